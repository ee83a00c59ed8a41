"""Feature extraction at LLaVA-1.5-7B's shape, random weights, bfloat16: where a GPU is at hand.

    python benchmarks/extraction_7b.py --peak-tflops 989       # an H100's or H200's dense bfloat16
    python benchmarks/extraction_7b.py --small --images 40     # does the script run? any machine

Draws JPEG files of 640 x 480 pixels and the model (a vision tower of 24 layers of width 1,024 on
336 pixels, 32 decoder layers of width 4,096, a small vocabulary; 13 GB on disk) and runs
`prism-tune select` with the first decoder layer and at full depth. Prints what the tool itself
meters, from the image files to the subset, loading the model included: images per second, FLOP/s
and their share of the device's peak, and the hours that LLaVA-665K's 624,610 image records would
take if each had an image of its own; and the most memory that PyTorch had allocated.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch
from drawn_models import draw_pool, save_llava

from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir, read_json
from prism_tune.selection.select import select

TRUE = {"num_layers": 32, "width": 4096, "vision_layers": 24, "vision_width": 1024}
SMALL = {"num_layers": 3, "width": 64, "vision_layers": 2, "vision_width": 64}
NUM_IMAGE_RECORDS = 624_610


def main() -> None:
    """Draw model and images, select twice, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tokens-per-batch", type=int, default=32_768)
    parser.add_argument("--peak-tflops", type=float, default=None, help="of the device, bfloat16")
    parser.add_argument("--small", action="store_true", help="a model of another, tiny shape")
    arguments = parser.parse_args()
    shape = SMALL if arguments.small else TRUE
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["PRISM_TUNE_CACHE"] = str(folder / "cache")
        save_llava(folder / "model", image_pixels=336, dtype=torch.bfloat16, **shape)
        num_images = arguments.images
        draw_pool(folder / "pool", num_records=num_images, num_images=num_images, size=(640, 480))
        rows = [measure(folder, layer, arguments) for layer in (1, shape["num_layers"])]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(f"\n{num_images:,} distinct JPEG files, {device}, bfloat16\n")
    print("| layers | seconds | images/s | TFLOP/s | of the peak | GiB | hours for 624,610 |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print("\n".join(rows))


def measure(folder: Path, layer: int, arguments: argparse.Namespace) -> str:
    """One selection, as a row of the table."""
    config = Config.model_validate(
        {
            "name": f"layer-{layer}",
            "output_dir": str(folder / "runs"),
            "model": {"path": str(folder / "model")},
            "data": {
                "records": str(folder / "pool" / "pool.json"),
                "image_dir": str(folder / "pool" / "images"),
                "num_workers": arguments.workers,
            },
            "selection": {
                "layer": layer,
                "dtype": "bfloat16",
                "tokens_per_batch": arguments.tokens_per_batch,
            },
        }
    )
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    run = RunDir(folder / "runs" / config.name)
    select(config, run)
    cost = read_json(run.selection / "manifest.json")["timings"]
    seconds, speed = cost["wall_seconds"], cost["images_per_second"]
    tflops = cost["flops_estimate"] / seconds / 1e12
    peak = arguments.peak_tflops
    share = f"{tflops / peak:.0%}" if peak else "-"
    gibibytes = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    hours = NUM_IMAGE_RECORDS / speed / 3600
    return (
        f"| {layer} | {seconds:.0f} | {speed:.0f} | {tflops:.1f} | {share} | {gibibytes:.1f} | "
        f"{hours:.2f} |"
    )


if __name__ == "__main__":
    main()

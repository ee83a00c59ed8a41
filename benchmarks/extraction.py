"""Speed of feature extraction, beside the straightforward way and the bare compute.

    python benchmarks/extraction.py                                    # about 30 minutes, 2 cores
    python benchmarks/extraction.py --records 60 --images 24 --layers 6 --width 256   # a quick look

A random LLaVA (24 decoder layers of width 512, a vision tower of 12 layers of width 384, 144 image
tokens), 2,000 records over 800 distinct JPEG files of 640 x 480 pixels. Prints the seconds of three
ways to the same features, in one run with one batch size, by the clock and of all processes' CPU
time (which other work on the machine disturbs less):

- straightforward: every record, decoded, preprocessed, full forward pass with
  `output_hidden_states=True`, mean over the image tokens of `hidden_states[layer]`, the model
  loaded already;
- prism_tune: `compute_features`, from the files to the store of features, everything included;
- floor: vision tower and k decoder layers on ready tensors of the distinct images, nothing else.

Goals: straightforward / prism_tune at least 8, prism_tune / floor at most 1.25. Also prints the
largest relative difference between the features of the first two, which have to be the same.
`--straightforward N` runs every (records / N)-th record only that way, and scales its seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from drawn_models import draw_pool, save_llava
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.collator import Collator
from prism_tune.data.images import open_image
from prism_tune.data.records import Pool, open_pool
from prism_tune.models.load import load_model, load_shallow
from prism_tune.models.processor import load_processor, resolve_template
from prism_tune.selection.evidence.encoding import Encoded, encode
from prism_tune.selection.evidence.features import compute_features
from prism_tune.selection.evidence.prompts import PromptKind, build_prompt
from prism_tune.selection.evidence.source import Evidence, Gathering
from prism_tune.selection.meter import SelectionMeter

Value = TypeVar("Value")
Seconds = NDArray[np.float64]
"""By the clock, and of CPU time."""


def main() -> None:
    """Draw model and pool, run the three ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--layers", type=int, default=24, help="decoder layers of the model")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vision-layers", type=int, default=12)
    parser.add_argument("--image-pixels", type=int, default=168)
    parser.add_argument("--layer", type=int, default=1, help="selection.layer")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="data.num_workers")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--straightforward", type=int, default=0, help="records; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRISM_TUNE_CACHE"] = f"{folder}/cache"
        config = resolve_template(draw(Path(folder), arguments))
        pool = open_pool(config.data)
        batch_size = arguments.batch_size
        config = with_batch_size(config, pool, batch_size)
        stride = max(1, len(pool) // (arguments.straightforward or len(pool)))
        chosen = range(0, len(pool), stride)
        seconds, table = timed(lambda: extract(config, pool))
        floor_seconds = measure_floor(config, pool, batch_size)
        full_seconds, expected = extract_straightforwardly(config, pool, chosen, batch_size)
        full_seconds *= len(pool) / len(chosen)
        difference = compare(table, chosen, expected)
    print(f"\n{arguments.records:,} records, {arguments.images:,} distinct JPEG files; ", end="")
    print(
        f"{arguments.layers} layers of width {arguments.width}, layer {arguments.layer}; ", end=""
    )
    print(f"batch {batch_size}; {torch.get_num_threads()} threads; ", end="")
    print(f"{len(chosen):,} records straightforwardly\n")
    print("| way | seconds: clock, CPU | straightforward / it | it / floor |")
    print("|---|---:|---:|---:|")
    for name, took in (
        ("straightforward", full_seconds),
        ("prism_tune", seconds),
        ("floor", floor_seconds),
    ):
        faster, slower = full_seconds / took, took / floor_seconds
        print(f"| {name} | {show(took, 1)} | {show(faster, 1)} | {show(slower, 2)} |")
    print(f"\nlargest relative difference of a feature: {difference:.1e}")


def draw(folder: Path, arguments: argparse.Namespace) -> Config:
    """Model, images and records, and the config that names them."""
    model = save_llava(
        folder / "model",
        num_layers=arguments.layers,
        width=arguments.width,
        vision_layers=arguments.vision_layers,
        image_pixels=arguments.image_pixels,
    )
    records = draw_pool(
        folder / "pool",
        num_records=arguments.records,
        num_images=arguments.images,
        size=(640, 480),
    )
    return Config.model_validate(
        {
            "name": "benchmark",
            "output_dir": str(folder / "runs"),
            "model": {"path": str(model)},
            "data": {
                "records": str(records),
                "image_dir": str(records.parent / "images"),
                "num_workers": arguments.workers,
            },
            "selection": {"layer": arguments.layer, "dtype": arguments.dtype},
        }
    )


def with_batch_size(config: Config, pool: Pool, batch_size: int) -> Config:
    """`tokens_per_batch` such that a batch of prefix prompts has `batch_size` of them."""
    unit = encode_record(pool, 0, "prefix", config, load_processor(config.model))
    tokens_per_batch = batch_size * len(unit.pooled_L)
    selection = config.selection.model_copy(update={"tokens_per_batch": tokens_per_batch})
    return config.model_copy(update={"selection": selection})


def extract(config: Config, pool: Pool) -> Evidence:
    """What `prism-tune select` does before it scores."""
    links = Path(config.output_dir) / config.name / "links"
    return compute_features(Gathering(config, pool, SelectionMeter(None), links), {})


@torch.inference_mode()
def extract_straightforwardly(
    config: Config, pool: Pool, chosen: Sequence[int], batch_size: int
) -> tuple[Seconds, NDArray[np.float32]]:
    """Each record through the whole model: seconds without loading it, (records, width)."""
    model = load_model(config.model, dtype=getattr(torch, config.selection.dtype))
    processor = load_processor(config.model)
    rows = []
    begin = read_clocks()
    for indices in batches(chosen, batch_size):
        inputs = processor(
            images=[open_image(path) for index in indices for path in pool.image_paths(index)],
            text=[
                build_prompt(pool[index], "whole", config.model.template, processor).text
                for index in indices
            ],
            padding=True,
            return_tensors="pt",
        )
        states = model(**inputs, output_hidden_states=True).hidden_states
        is_image = (inputs["input_ids"] == model.config.image_token_id).float()[..., None]
        pooled = (states[config.selection.layer].float() * is_image).sum(1) / is_image.sum(1)
        rows.append(pooled.numpy())
    return read_clocks() - begin, np.concatenate(rows)


def measure_floor(config: Config, pool: Pool, batch_size: int) -> Seconds:
    """Seconds of the shallow model alone, on the distinct images' ready tensors."""
    processor = load_processor(config.model)
    dtype = getattr(torch, config.selection.dtype)
    model = load_shallow(config.model, config.selection.layer, dtype=dtype)
    collate = Collator(processor, dtype)
    first = {pool.images(index)[0]: index for index in reversed(range(len(pool)))}
    seconds = np.zeros(2)
    for batch in batches(sorted(first.values()), batch_size):
        units = [encode_record(pool, index, "prefix", config, processor) for index in batch]
        inputs = collate([unit.inputs for unit in units])
        del inputs["attention_mask"]
        with torch.inference_mode():
            seconds += timed(lambda inputs=inputs: model(**inputs, use_cache=False))[0]
    return seconds


def encode_record(
    pool: Pool, index: int, kind: PromptKind, config: Config, processor: Any
) -> Encoded:
    """One record's inputs."""
    prompt = build_prompt(pool[index], kind, config.model.template, processor)
    return encode(prompt, [open_image(path) for path in pool.image_paths(index)], processor)


def compare(table: Evidence, chosen: Sequence[int], expected: NDArray[np.float32]) -> float:
    """The largest difference between two features of one record, in units of its norm."""
    assert table.values_UD is not None
    rows = table.values_UD[slice(0, table.values_UD.shape[0])][table.row_N[list(chosen)]]
    norms = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(rows - expected, axis=1) / norms).max())


def batches(items: Sequence[int], size: int) -> list[Sequence[int]]:
    """Consecutive parts of `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def timed(run: Callable[[], Value]) -> tuple[Seconds, Value]:
    """Seconds by the clock and of CPU time (ended child processes' included), and the value."""
    begin = read_clocks()
    value = run()
    return read_clocks() - begin, value


def read_clocks() -> Seconds:
    """The clock, and the CPU time so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = time.process_time() + children.ru_utime + children.ru_stime
    return np.array([time.perf_counter(), cpu_seconds])


def show(pair: Seconds, digits: int) -> str:
    """By the clock, CPU time."""
    return ", ".join(f"{value:.{digits}f}" for value in pair)


if __name__ == "__main__":
    main()

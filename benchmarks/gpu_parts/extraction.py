"""Feature extraction: the whole selection stage, and the shallow model alone on ready tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch
from extraction import encode_record
from gpu_parts.meter import on_device, peak_gib, share_of_peak
from gpu_parts.shapes import NUM_IMAGE_RECORDS

from prism_tune.config.sections import Config
from prism_tune.data.records import open_pool
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.load import load_shallow
from prism_tune.models.processor import load_processor
from prism_tune.run.folder import RunDir, read_json
from prism_tune.selection.evidence.shallow import Extractor
from prism_tune.selection.select import select


def run_stage(work: Path, *, model: str, layer: int, share: float, backend: str) -> dict[str, Any]:
    """`prism-tune select` of a few images, to warm up, of these again, and of so many more.

    The speed is that of the images by which the last two differ: loading the model is in both.

    Args:
        work: the work folder.
        model: of `shapes.draw_model`.
        layer: `selection.layer`.
        share: of the drawn images.
        backend: `model.image_backend`.
    """
    records = orjson.loads((work / "images" / "pool.json").read_bytes())
    num_few = max(2, len(records) // 100)
    num_images = max(num_few + 1, int(share * len(records)))
    took = []
    for attempt, number in (("first", num_few), ("few", num_few), ("all", num_images)):
        path = work / "images" / f"first_{number}.json"
        path.write_bytes(orjson.dumps(records[:number]))
        config = _config(work, path, f"{model}-{layer}-{backend}-{attempt}", model, layer, backend)
        run = RunDir(Path(config.output_dir) / config.name)
        begin = time.perf_counter()
        select(config, run, force=True)
        flops = read_json(run.selection / "manifest.json")["timings"]["flops_estimate"]
        took.append((time.perf_counter() - begin, flops))
    (first, _), (few, flops_of_few), (seconds, flops) = took
    more = max(seconds - few, 1e-3)
    rate = (num_images - num_few) / more
    tflops = (flops - flops_of_few) / more / 1e12
    return {
        "images": num_images,
        "seconds": seconds,
        "seconds_of_few": few,
        "seconds_of_few_at_first": first,
        "images_per_second": rate,
        "tflops": tflops,
        "mfu": share_of_peak(tflops),
        "hours_for_665k": NUM_IMAGE_RECORDS / rate / 3600,
        "peak_gib": peak_gib(),
    }


def run_alone(work: Path, *, model: str, layer: int, seconds: float) -> dict[str, Any]:
    """The extractor on one encoded batch, over and over: what the device can do.

    Args:
        work: the work folder.
        model: of `shapes.draw_model`.
        layer: how many decoder layers.
        seconds: how long.
    """
    config = _config(work, work / "images" / "pool.json", "alone", model, layer, "pil")
    pool, processor = open_pool(config.data), load_processor(config.model)
    device = pick_device()
    loaded = load_shallow(config.model, layer, dtype=resolve_dtype("auto", device), device=device)
    extractor = Extractor(loaded, processor, [layer], "mean")
    first = encode_record(pool, 0, "prefix", config, processor)
    size = max(1, config.selection.tokens_per_batch // len(first.pooled_L))
    size = min(size, len(pool))
    batch = [encode_record(pool, index, "prefix", config, processor) for index in range(size)]
    num_batches, took = repeat(lambda: extractor.run_batch(batch), seconds)
    inputs = extractor.place(batch)
    alone, model_took = repeat(lambda: loaded(**inputs, use_cache=False), seconds / 2)
    tflops = num_batches * extractor.estimate_flops(batch) / took / 1e12
    return {
        "batch": size,
        "images_per_second": num_batches * size / took,
        "images_per_second_without_collating": alone * size / model_took,
        "tokens_per_image": len(first.pooled_L),
        "tflops": tflops,
        "mfu": share_of_peak(tflops),
        "peak_gib": peak_gib(),
    }


@torch.inference_mode()
def repeat(call: Callable[[], object], seconds: float) -> tuple[int, float]:
    """How often in about so many seconds, after two calls to warm up; and the exact seconds."""
    for _ in range(2):
        call()
    on_device()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        call()
        on_device()
        count += 1
    return count, time.perf_counter() - begin


def _config(work: Path, records: Path, name: str, model: str, layer: int, backend: str) -> Config:
    return Config.model_validate(
        {
            "name": name,
            "output_dir": str(work / "selections" / name),
            "model": {
                "path": str(work / model),
                "template": "vicuna_v1",
                "image_backend": backend,
            },
            "data": {
                "records": str(records),
                "image_dir": str(work / "images" / "images"),
                "num_workers": on_device().num_workers,
            },
            "selection": {"layer": layer, "tokens_per_batch": 32_768},
        }
    )

"""Training steps: the training stage itself, for a few steps, read back from its own log."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from gpu_parts.meter import on_device, peak_gib, share_of_peak

from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.run.timings import read_timings
from prism_tune.training.callbacks import read_log
from prism_tune.training.train import train

_WARM_UP = 2


def run(
    work: Path, *, name: str, model: str, steps: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Train for some steps.

    Args:
        work: the work folder.
        name: of the run.
        model: of `shapes.draw_model`.
        steps: how many; the first two warm up.
        options: `training` keys; `hf` is added to ours, `attn_implementation` and `dtype` go to
            `model`.
    """
    config = _config(work, name, model, steps, options)
    run_dir = RunDir(work / "runs" / name)
    begin = time.perf_counter()
    train(config, run_dir, force=True)
    seconds = time.perf_counter() - begin
    lines = [line for line in read_log(run_dir.training / "log.jsonl") if "loss" in line]
    counts = read_timings(run_dir)[-1]["counts"]
    measured = lines[_WARM_UP:] or lines
    speed = statistics.median(line["tokens_per_second"] for line in measured)
    tflops = speed * counts["flops"] / counts["tokens"] / 1e12
    return {
        "tokens_per_second": speed,
        "tokens_per_step": counts["tokens"] / len(lines),
        "records_per_step": counts["records"] / len(lines),
        "tflops": tflops,
        "mfu": share_of_peak(tflops),
        "peak_gib": peak_gib(),
        "first_loss": lines[0]["loss"],
        "last_loss": lines[-1]["loss"],
        "stage_seconds": seconds,
        "steps": len(lines),
    }


def _config(work: Path, name: str, model: str, steps: int, options: dict[str, Any]) -> Config:
    given = dict(options)
    source = {key: given.pop(key) for key in ("attn_implementation", "dtype") if key in given}
    hf = {
        "per_device_train_batch_size": 16,
        "max_steps": steps,
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": True,
        **given.pop("hf", {}),
    }
    training = {
        "records": "pool",
        "deepspeed": None,
        "batching": "packed",
        "lora": {"r": 128, "lora_alpha": 256, "lora_dropout": 0.05},
        **given,
        "hf": hf,
    }
    return Config.model_validate(
        {
            "name": name,
            "output_dir": str(work / "runs"),
            "model": {"path": str(work / model), "template": "vicuna_v1", **source},
            "data": {
                "records": str(work / "mix" / "pool.json"),
                "image_dir": str(work / "mix" / "images"),
                "num_workers": on_device().num_workers,
            },
            "training": training,
        }
    )

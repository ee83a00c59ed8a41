"""Does a GPU give what the CPU gives? Tiny models, the stages themselves, the same numbers.

Each stage runs once with the GPU hidden and once with it, in processes of their own.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from gpu_parts.isolated import run_isolated
from support.tiny import save_tiny_llava
from support.tiny_runs import draw_questions, tiny_config
from support.whole_families import draw_mixed_pool, save_whole_family

from prism_tune.config.sections import Config
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.features.shards import StoredRows, list_shards, read_shard
from prism_tune.run.folder import RunDir, read_json
from prism_tune.selection.select import select
from prism_tune.training.callbacks import read_log
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

_STEPS = 6
_CLOSE = {"float32": 1e-3, "bfloat16": 3e-2}
"""Largest distance between two features of a record, in units of its norm."""


def run(work: Path, *, family: str) -> dict[str, Any]:
    """Every check: its name, whether it holds, and what was measured.

    Args:
        work: the work folder.
        family: "llava", or another of the tests' tiny ones.
    """
    folder = work / "equality" / family
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if family == "llava":
        save_tiny_llava(folder / "model")
    else:
        save_whole_family(family, folder / "model")
    draw_mixed_pool(folder / "pool")
    questions = draw_questions(folder / "questions")
    return {"checks": _check_family(family, folder, questions)}


def _check_family(family: str, folder: Path, questions: dict[str, str]) -> list[dict[str, Any]]:
    """Features and subsets in two precisions, answers, losses, ZeRO-2 and a resumed training."""
    checks = []

    def both(call: Any, **options: Any) -> list[dict[str, Any]]:
        given = {"folder": folder, "questions": questions, **options}
        return [_stage(call, folder, given, on_cpu=on_cpu) for on_cpu in (True, False)]

    def note(name: str, holds: bool, measured: str) -> None:
        checks.append({"name": f"{family}: {name}", "holds": bool(holds), "measured": measured})

    for dtype, tolerance in _CLOSE.items():
        cpu, gpu = both(_features, dtype=dtype)
        if "error" in cpu or "error" in gpu:
            note(f"features, {dtype}", False, f"{cpu.get('error')}; {gpu.get('error')}")
            continue
        apart = _distance(cpu["features"], gpu["features"])
        note(f"features, {dtype}", apart <= tolerance, f"{apart:.1e} of a norm apart")
        same = len(set(cpu["subset"]) & set(gpu["subset"]))
        note(
            f"subset, {dtype}",
            dtype != "float32" or same == len(cpu["subset"]),
            f"{same} of {len(cpu['subset'])} records the same",
        )
    cpu, gpu = both(_answers)
    answers = [found.get("answers", found.get("error")) for found in (cpu, gpu)]
    note(
        "answers, float32",
        answers[0] == answers[1],
        f"{answers[0] == answers[1]}: {answers[1]}"[:120],
    )
    cpu, gpu = both(_losses, name="plain")
    note(f"{_STEPS} steps of LoRA, float32", *_compare(cpu, gpu, 1e-3))
    options = {"folder": folder, "questions": questions}
    resumed = _stage(_losses, folder, {**options, "name": "resumed", "stop_at": 3}, on_cpu=False)
    note("killed after step 3 and resumed", *_compare(gpu, resumed, 1e-5))
    zero = {"deepspeed": "configs/deepspeed/zero2.json"}
    on_zero = _stage(_losses, folder, {**options, "name": "zero2", **zero}, on_cpu=False)
    note("ZeRO-2 beside plain", *_compare(gpu, on_zero, 1e-3))
    packed = _stage(
        _losses, folder, {**options, "name": "packed", "batching": "packed"}, on_cpu=False
    )
    on_cpu = _stage(
        _losses, folder, {**options, "name": "packed", "batching": "packed"}, on_cpu=True
    )
    note("packed", *_compare(on_cpu, packed, 1e-3))
    return checks


def _stage(call: Any, folder: Path, options: dict[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """What it returns, or {"error": ...}."""
    options = {**options, "place": "cpu" if on_cpu else "gpu"}
    log = folder / f"{call.__name__}_{options.get('name', '')}_{options['place']}.log"
    found = run_isolated(call, options, seconds=60, log=log, on_cpu=on_cpu)
    return found["result"] if found["status"] == "done" else {"error": found["error"]}


def _config(folder: Path, questions: dict[str, str], place: str, name: str, **changes: Any) -> Any:
    pool = folder / "pool" / "pool.json"
    options = tiny_config(folder / place, folder / "model", pool, questions)
    options["name"] = name
    options["model"]["template"] = "vicuna_v1"
    for section, values in changes.items():
        options[section] |= values
    config = Config.model_validate(options)
    return config, RunDir(Path(config.output_dir) / name)


def _features(folder: Path, questions: Any, place: str, dtype: str) -> dict[str, Any]:
    chosen = {"dtype": dtype, "budget": 0.5}
    config, run_dir = _config(folder, questions, place, f"features-{dtype}", selection=chosen)
    select(config, run_dir)
    files = [
        shard for folder in run_dir.root.parent.rglob("features/*") for shard in list_shards(folder)
    ]
    stored = StoredRows([read_shard(path) for path in dict.fromkeys(files)])
    order = np.argsort(stored.keys)
    rows = stored[slice(0, stored.shape[0])][order]
    subset = [record["id"] for record in read_json(run_dir.subset)]
    return {"features": rows, "subset": sorted(subset)}


def _answers(folder: Path, questions: Any, place: str) -> dict[str, Any]:
    config, run_dir = _config(folder, questions, place, "answers", training={"tuning": "none"})
    evaluate(config, run_dir, force=False)
    lines = (run_dir.benchmark("quickstart") / "predictions.jsonl").read_text().splitlines()
    return {"answers": sorted(lines)}


def _losses(
    folder: Path,
    questions: Any,
    place: str,
    name: str,
    stop_at: int | None = None,
    **training: Any,
) -> dict[str, Any]:
    hf = {"max_steps": _STEPS, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2}
    hf["per_device_train_batch_size"] = 4
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    changes = {"training": {"records": "pool", "lora": lora, "hf": hf, **training}}
    config, run_dir = _config(folder, questions, place, name, **changes)
    if stop_at is not None:
        _stop_once(stop_at, lambda: train(config, run_dir))
    train(config, run_dir)
    return {"losses": [line["loss"] for line in read_log(run_dir.training / "log.jsonl")]}


def _stop_once(step: int, call: Any) -> None:
    """As Ctrl-C would, once the step is logged."""
    log = TuningTrainer.log

    def log_then_stop(self: Any, logs: Any, start_time: Any = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == step + 1:
            raise KeyboardInterrupt

    TuningTrainer.log = log_then_stop
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        TuningTrainer.log = log


def _compare(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> tuple[bool, str]:
    """Losses: the largest difference, in units of the first."""
    if "error" in one or "error" in other:
        return False, f"{one.get('error')}; {other.get('error')}"[:300]
    first, second = np.array(one["losses"]), np.array(other["losses"])
    if len(first) != _STEPS or len(first) != len(second):
        return False, f"{len(first)} and {len(second)} losses of {_STEPS}"
    apart = float(np.abs(first - second).max() / first[0])
    return apart <= tolerance, f"losses {apart:.1e} of the first apart"


def _distance(one: Any, other: Any) -> float:
    first, second = np.array(one), np.array(other)
    norms = np.linalg.norm(first, axis=1)
    return float((np.linalg.norm(first - second, axis=1) / norms).max())

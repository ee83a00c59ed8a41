"""Run folders written as the stages write them, with results chosen by hand."""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage

QUESTIONS = [f"open-{k}" for k in range(20)] + [f"yes_no-{k}" for k in range(20)]


def quickstart_result(num_open: int, num_yes_no: int, **changes) -> dict:
    """Of 20 open and 20 yes/no questions the first so many are right; 5 points each."""
    credits = {q: float(k % 20 < (num_open, num_yes_no)[k // 20]) for k, q in enumerate(QUESTIONS)}
    metrics = {
        "accuracy_open": 5.0 * num_open,
        "accuracy_yes_no": 5.0 * num_yes_no,
        "accuracy": 2.5 * (num_open + num_yes_no),
        "accuracy_open_blind": 25.0,
        "accuracy_open_shuffled": 0.0,
    }
    result = {
        "benchmark": "quickstart",
        "metrics": metrics,
        "num_examples": 40,
        "num_missing": 0,
        "profile": "llava15",
        "provenance": {"dtype": "float32"},
        "per_question": credits,
        "notes": [],
    }
    result |= changes
    groups = {"accuracy_open": "open-", "accuracy_yes_no": "yes_no-", "accuracy": ""}
    return {**result, "provenance": {"groups": groups, **result["provenance"]}}


def llava_results(pope: float, mme: float, sqa: float) -> list[dict]:
    """POPE (one F1 for all splits), MME and ScienceQA; the other benchmarks were not run."""

    def result(name, metrics):
        return {
            "benchmark": name, "metrics": metrics, "num_examples": 10, "num_missing": 0,
            "profile": "llava15", "provenance": {}, "per_question": {}, "notes": [],
        }  # fmt: skip

    f1 = {f"f1_{split}": pope for split in ("popular", "random", "adversarial")}
    return [
        result("pope", f1),
        result("mme", {"cognition": mme, "perception": 1500.0}),
        result("scienceqa", {"accuracy": sqa, "accuracy_image": None}),
    ]


def timing(stage: str, seconds: float, **changes) -> dict:
    entry = {
        "stage": stage,
        "fingerprint": "f",
        "device": "cpu",
        "num_devices": 1,
        "start": "2025-01-01T00:00:00+00:00",
        "end": "2025-01-01T00:01:00+00:00",
        "finished": True,
        "wall_seconds": seconds,
        "device_seconds": seconds,
        "counts": {},
    }
    return {**entry, **changes}


class RunWriter:
    """Writes run folders under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_alike(self, name: str, value: float, **options) -> Path:
        """A run with this value in every metric of the quickstart; no mean over its questions."""
        metrics = dict.fromkeys(("accuracy_open", "accuracy_yes_no", "accuracy"), value)
        return self.write(name, [quickstart_result(0, 0, metrics=metrics)], **options)

    def write(
        self,
        name: str,
        results: list[dict],
        *,
        scorer: str = "prism",
        tuning: str = "lora",
        records: str = "subset",
        select_seconds: float = 2.0,
        tune_seconds: float = 100.0,
        seed: int = 0,
        hf: dict | None = None,
        selection: dict | None = None,
        timings: list[dict] | None = None,
        manifest: dict | None = None,
        model_name: str | None = None,
        pool: str | None = None,
    ) -> Path:
        """Write a run folder; `pool` is the fingerprint of what it selects from or is tuned on."""
        run = RunDir(self.folder / name)
        config = Config.model_validate(
            {
                "name": name,
                "seed": seed,
                "model_name": model_name,
                "model": {"path": model_name or "m"},
                "data": {"records": "pool.json"},
                "selection": {"scorer": scorer, "budget": 0.25, **(selection or {})},
                "training": {"tuning": tuning, "records": records, "hf": hf or {}},
            }
        )
        is_subset = tuning != "none" and records == "subset"
        entries = [timing("training", tune_seconds)] if tuning != "none" else []
        read = {} if pool is None or is_subset else {"records": pool}
        known = {} if pool is None else {"pool_fingerprint": pool}
        if is_subset:
            write_json(
                run.selection / "manifest.json",
                {"num_pool": 4000, "num_selected": 1000, "scorer": scorer}
                | known
                | (manifest or {}),
            )
            Stage(run.selection).finish({}, config=config)
            entries.insert(0, timing("selection", select_seconds))
        if tuning != "none":
            num_records = 1000 if is_subset else 4000
            Stage(run.training).finish(read, config=config, num_records=num_records)
        write_json(run.timings, entries if timings is None else timings)
        for result in results:
            folder = run.benchmark(result["benchmark"])
            write_json(folder / "results.json", result)
            Stage(folder).finish({}, config=config)
        return run.root

"""Overview: what was run on what, what it kept and cost, and the verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_tune.config.budget_words import describe_cut
from prism_tune.config.load import render_config
from prism_tune.config.sections import SelectionConfig
from prism_tune.report.numbers import count, large, percent, seconds
from prism_tune.report.section import Section
from prism_tune.report.verdict import describe_run, find_row, list_cells
from prism_tune.results.render import MISSING, Cell, Table
from prism_tune.results.runs import FinishedRun
from prism_tune.run.timings import sum_attempts

_STAGE_HEADER = ("Stage", "State", "Device", "Attempts", "Wall", "Device time", "Images", "FLOPs")


def build(run: FinishedRun, table: Table | None) -> Section:
    """The section; it has no data files."""
    lead, *details = describe_run(run, table)
    values = {
        "lead": lead,
        "details": details,
        "tiles": _tiles(run, find_row(table, run)),
        "facts": _facts(run),
        "stage_header": _STAGE_HEADER,
        "stages": _stages(run),
        "fingerprints": _fingerprints(run),
        "skipped": (run.manifest or {}).get("num_skipped", {}),
        "config": render_config(run.config),
    }
    return Section("overview", "Overview", "overview.html", values)


def _tiles(run: FinishedRun, row: Mapping[str, Cell]) -> list[dict[str, str]]:
    tiles = []
    manifest = run.manifest
    if manifest is not None:
        share = percent(manifest["num_selected"] / max(manifest["num_pool"], 1))
        note = f"of {count(manifest['num_pool'])} records, {share}"
        tiles.append(_tile("Kept", count(manifest["num_selected"]), note))
    for label, stage in (("Selecting", "selection"), ("Tuning", "training")):
        tiles.append(_tile(label, seconds(run.total(stage)), _device(run, stage)))
    for label, note in (
        ("C", "cost against tuning on the whole pool; below 1 pays"),
        ("Rel.", "performance in % of the table's baseline"),
    ):
        tiles.append(_tile(label, row[label].text if row else MISSING, note))
    return tiles


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _device(run: FinishedRun, stage: str) -> str:
    entries = run.attempts(stage)
    if not entries:
        return "has not run"
    number, device = entries[-1]["num_devices"], entries[-1]["device"]
    return f"device time, {number} x {device}" if number > 1 else f"device time, {device}"


def _facts(run: FinishedRun) -> list[tuple[str, str]]:
    """Of what had an effect: a whole pool has no selector, the cells of a comparison their own."""
    config = run.config
    is_own = not list_cells(run) or run.manifest is not None
    has_selection = run.manifest is not None or (run.is_selected and is_own)
    return [
        ("Model", config.model.path),
        ("Pool", config.data.records),
        *(_selection_facts(run) if has_selection else []),
        ("Tuning", f"{config.training.tuning} on the {config.training.records}"),
        *([("Seed", str(config.seed))] if is_own else []),
    ]


def _selection_facts(run: FinishedRun) -> list[tuple[str, str]]:
    selection = run.config.selection
    return [
        ("Selector", f"{selection.scorer}, keeps the {run.keep} scores"),
        ("Budget", f"{describe_cut(selection)}, cut {selection.scope.replace('_', ' ')}"),
        ("Features", _describe_features(selection)),
        ("Centring", selection.centering),
    ]


def _describe_features(selection: SelectionConfig) -> str:
    if selection.features_file is not None:
        return f"own, {selection.features_file}"
    return f"{selection.features}, layer {selection.layer}, {selection.pooling} pooled"


def _stages(run: FinishedRun) -> list[tuple[str, ...]]:
    names = dict.fromkeys(entry["stage"] for entry in run.timings)
    return [_stage_row(name, run.attempts(name)) for name in names]


def _stage_row(name: str, entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    last = entries[-1]
    return (
        name,
        "finished" if any(entry["finished"] for entry in entries) else "not finished",
        f"{last['num_devices']} x {last['device']}",
        count(len(entries)),
        seconds(sum_attempts(entries, "wall_seconds")),
        seconds(sum_attempts(entries, "device_seconds")),
        count(sum_attempts(entries, "images")),
        large(sum_attempts(entries, "flops")),
    )


def _fingerprints(run: FinishedRun) -> list[tuple[str, str]]:
    manifest = run.manifest or {}
    selection = run.record("selection")
    found = {
        "Pool": manifest.get("pool_fingerprint"),
        "Subset (SHA-256)": manifest.get("subset_sha256"),
        "Features": manifest.get("evidence", {}).get("features", {}).get("fingerprint"),
        "Model": selection.get("inputs", {}).get("model"),
        "Selection": selection.get("fingerprint"),
        "Training": run.record("training").get("fingerprint"),
    }
    return [(name, value) for name, value in found.items() if value]

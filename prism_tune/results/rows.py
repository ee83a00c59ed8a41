"""Runs in, the rows of a table out: runs that differ only in name and seed make one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prism_tune.results.runs import TableRun
from prism_tune.run.fingerprints import fingerprint

_SCORER_LABELS = {
    "prism": "PRISM",
    "random": "Random",
    "alignment": "Alignment",
    "clip_score": "CLIP-Score",
    "length": "Length",
    "perplexity": "Perplexity",
    "el2n": "EL2N",
    "grand": "GraNd",
    "coincide": "COINCIDE",
}


@dataclass(frozen=True)
class Row:
    """One row of a table: a configuration, run under one seed or several."""

    label: str
    runs: tuple[TableRun, ...]

    @property
    def first(self) -> TableRun:
        """Any run of the row, where only the shared configuration matters."""
        return self.runs[0]

    @property
    def names(self) -> str:
        """The runs behind the row; of such that differ in their number alone, as a shell has it."""
        names = [run.name for run in self.runs]
        stems = {name.rstrip("0123456789") for name in names}
        if len(names) == 1 or len(stems) > 1 or stems & set(names):
            return ", ".join(names)
        (stem,) = stems
        return f"{stem}{{{','.join(name[len(stem) :] for name in names)}}}"

    @property
    def is_random(self) -> bool:
        """Tuned on a random subset."""
        return self.first.is_selected and self.first.config.selection.scorer == "random"


def group_rows(runs: Sequence[TableRun]) -> list[Row]:
    """Rows in the order untuned, Random, other selectors, whole pool; within these as given."""
    groups: dict[str, list[TableRun]] = {}
    for run in runs:
        groups.setdefault(fingerprint(_shared_config(run)), []).append(run)
    members = sorted(groups.values(), key=lambda group: _position(group[0]))
    labels = _distinct_labels([group[0] for group in members])
    return [Row(label, tuple(group)) for label, group in zip(labels, members, strict=True)]


def _shared_config(run: TableRun) -> dict[str, Any]:
    """What has to agree within a row: all that the row's kind depends on, but name and seed.

    Not which benchmarks were asked last: their results are compared one by one.
    """
    config = run.config.model_dump(mode="json")
    ignored = {"name", "seed", "output_dir", "compare_random", "compare", "tracking"}
    for key in ("benchmarks", "data"):
        del config["evaluation"][key]
    if not run.is_selected:
        ignored |= {"selection"}
    if run.is_untuned:
        ignored |= {"training"}
    return {key: value for key, value in config.items() if key not in ignored}


def _position(run: TableRun) -> int:
    if run.is_untuned:
        return 0
    if run.is_full:
        return 3
    return 1 if run.config.selection.scorer == "random" else 2


def _label(run: TableRun, *, with_model: bool) -> str:
    model = run.config.model_name
    return f"{model}: {_describe(run)}" if with_model and model else _describe(run)


def _describe(run: TableRun) -> str:
    if run.is_untuned:
        return "untuned"
    tuning = run.config.training.tuning
    if run.is_full:
        return f"whole pool ({tuning})"
    selection = run.config.selection
    scorer = _SCORER_LABELS.get(selection.scorer, selection.scorer)
    budget = selection.budget
    kept = f"{budget:,} records" if isinstance(budget, int) else f"{100 * budget:g} %"
    return f"{scorer} {kept} ({tuning})"


def _distinct_labels(runs: Sequence[TableRun]) -> list[str]:
    """Rows that would read alike also say where they depart from most of them: `[layer=3]`."""
    several_models = len({run.config.model_name for run in runs}) > 1
    labels = [_label(run, with_model=several_models) for run in runs]
    return [
        label
        + _departures(run, [r for r, other in zip(runs, labels, strict=True) if other == label])
        for run, label in zip(runs, labels, strict=True)
    ]


def _departures(run: TableRun, alike: Sequence[TableRun]) -> str:
    flat = [_flatten(_shared_config(other)) for other in alike]
    own = _flatten(_shared_config(run))
    keys = dict.fromkeys(key for config in flat for key in config)
    usual = {key: _majority([str(config.get(key)) for config in flat]) for key in keys}
    departing = [key for key in keys if str(own.get(key)) != usual[key]]
    listed = ", ".join(f"{key.rpartition('.')[2]}={own.get(key)}" for key in departing)
    return f" [{listed}]" if listed else ""


def _majority(values: Sequence[str]) -> str | None:
    """The value of more than half."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""Runs in, the rows of a table out: runs that differ only in name and seed make one row.

Also which row is compared with which: the Random row beside a selector, the whole pool behind a
subset.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from prism_tune.config.budget_words import label_cut
from prism_tune.config.epochs import num_epochs, read_number
from prism_tune.errors import UserError
from prism_tune.results.labels import name_method
from prism_tune.results.render import format_budget
from prism_tune.results.runs import FinishedRun
from prism_tune.run.fingerprints import fingerprint


@dataclass(frozen=True)
class Row:
    """One row of a table: a configuration, run under one seed or several."""

    label: str
    runs: tuple[FinishedRun, ...]

    @property
    def first(self) -> FinishedRun:
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

    def by_seed(self, values: Sequence[float | None]) -> dict[int, float]:
        """Seed -> value, the mean of runs of one seed; without runs whose value is None.

        Args:
            values: one of each run.
        """
        found: dict[int, list[float]] = {}
        for run, value in zip(self.runs, values, strict=True):
            if value is not None:
                found.setdefault(run.config.seed, []).append(value)
        return {seed: statistics.fmean(of_seed) for seed, of_seed in found.items()}

    def under(self, seeds: Set[int]) -> Row:
        """The row's runs under these seeds."""
        return Row(self.label, tuple(run for run in self.runs if run.config.seed in seeds))

    @property
    def is_random(self) -> bool:
        """Tuned on a random subset, no part of which is a list's."""
        selection = self.first.config.selection
        return self.first.is_selected and selection.scorer == "random" and not selection.must_keep


def feature_depth(run: FinishedRun) -> int | None:
    """Layers of the model that its features are of; None where it read none."""
    features = (run.manifest or {}).get("evidence", {}).get("features", {})
    depth = features.get("num_model_layers")
    return None if depth is None else int(depth)


BaselineOf = Callable[[Row], Row | None]
"""The row that Rel. of a row refers to."""


def group_rows(runs: Sequence[FinishedRun]) -> list[Row]:
    """Rows in the order untuned, Random, other selectors, whole pool; within these as given."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(fingerprint(_shared_config(run)), []).append(run)
    members = sorted(groups.values(), key=lambda group: _position(group[0]))
    labels = _distinct_labels([group[0] for group in members])
    return [Row(label, tuple(group)) for label, group in zip(labels, members, strict=True)]


def _shared_config(run: FinishedRun) -> dict[str, Any]:
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


def _position(run: FinishedRun) -> int:
    if run.is_untuned:
        return 0
    if run.is_full:
        return 3
    return 1 if run.config.selection.scorer == "random" else 2


def _label(run: FinishedRun, *, with_model: bool) -> str:
    model = run.config.model_name
    return f"{model}: {_describe(run)}" if with_model and model else _describe(run)


def _describe(run: FinishedRun) -> str:
    if run.is_untuned:
        return "untuned"
    tuning = run.config.training.tuning
    if run.is_full:
        return f"whole pool ({tuning})"
    selection = run.config.selection
    own = " on own features" if selection.features_file else ""
    asked = f"{format_budget(selection.budget)}{label_cut(selection)}"
    name = "Own list" if is_listed(run) else name_method(selection, feature_depth(run))
    return f"{name}{own} {asked} ({tuning})"


def is_listed(run: FinishedRun) -> bool:
    """Whether a random draw has drawn nothing: every record is of the list that had to be kept."""
    reasons = (run.manifest or {}).get("num_reasons", {})
    is_drawn = run.config.selection.scorer == "random"
    return is_drawn and bool(reasons.get("must_keep")) and not reasons.get("selected")


def _distinct_labels(runs: Sequence[FinishedRun]) -> list[str]:
    """Rows that would read alike also say where they depart from most of them: `[layer=3]`."""
    several_models = len({run.config.model_name for run in runs}) > 1
    labels = [_label(run, with_model=several_models) for run in runs]
    return [
        label
        + _departures(run, [r for r, other in zip(runs, labels, strict=True) if other == label])
        for run, label in zip(runs, labels, strict=True)
    ]


def _departures(run: FinishedRun, alike: Sequence[FinishedRun]) -> str:
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


def find_named(rows: Sequence[Row], name: str) -> Row:
    """The row of a run, by its name or folder; UserError for none."""
    for row in rows:
        if any(name.rstrip("/") in (run.name, str(run.root)) for run in row.runs):
            return row
    known = ", ".join(run.name for row in rows for run in row.runs)
    raise UserError(f"--baseline {name}: not one of the given runs ({known})")


def same_model(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The rows that start from the same model."""
    return [other for other in rows if other.first.config.model == row.first.config.model]


def random_beside(row: Row, rows: Sequence[Row]) -> Row | None:
    """The Random row of the same model, tuning, pool and budget, tuned as long.

    Of several the one whose cut is alike in all, then the one of the same recipe. Where records of
    a list are in every subset, they are in Random's.
    """
    candidates = _randoms_alike(row, rows)
    for is_alike in _SHARED.values():
        candidates = [other for other in candidates if is_alike(row, other)]
    return min(
        candidates,
        key=lambda other: (_what_is_cut(row) != _what_is_cut(other), *_compare_recipes(row, other)),
        default=None,
    )


def say_lacking(row: Row, rows: Sequence[Row]) -> str:
    """What a Random row would have to share with this one, where `random_beside` finds none."""
    found, lacking = _randoms_alike(row, rows), "model, pool and tuning"
    for what, is_alike in _SHARED.items():
        if found:
            found, lacking = [other for other in found if is_alike(row, other)], what
    return lacking


def _randoms_alike(row: Row, rows: Sequence[Row]) -> list[Row]:
    own = row.first.config
    return [
        other
        for other in same_model(row, rows)
        if other is not row
        and (other.is_random or _is_drawn_beside(other, own.selection.must_keep))
        and other.first.config.training.tuning == own.training.tuning
    ]


def _is_drawn_beside(row: Row, must_keep: str | None) -> bool:
    """A random draw, beside the records of a list."""
    selection = row.first.config.selection
    is_drawn = row.first.is_selected and selection.scorer == "random"
    return is_drawn and selection.must_keep == must_keep


def _is_same_pool(row: Row, other: Row) -> bool:
    """By the pool's content; by its path where that is not known of both."""
    found = [run.pool_fingerprint for run in (row.first, other.first)]
    if None not in found:
        return found[0] == found[1]
    return row.first.config.data.records == other.first.config.data.records


def _budget(row: Row) -> list[Any]:
    """How much is kept; rows and image records differ by the text-only ones, as labels say."""
    selection = row.first.config.selection
    return [selection.budget, selection.source_budgets, selection.budget_of == "tokens"]


def _what_is_cut(row: Row) -> list[Any]:
    """What decides how many are kept, whoever chooses them."""
    selection = row.first.config.selection
    lists = (selection.must_keep, selection.must_drop)
    return [*_budget(row), selection.budget_of, selection.text_only, *lists]


def is_tuned_as_long(row: Row, other: Row) -> bool:
    """Whether both went over their records as often, or took as many steps in place of that."""
    return _length(row) == _length(other)


_SHARED: dict[str, Callable[[Row, Row], bool]] = {
    "pool": _is_same_pool,
    "pool and budget": lambda row, other: _budget(row) == _budget(other),
    "epochs or steps": is_tuned_as_long,
}
"""What Random shares with whom it judges, beside model and tuning."""


def _length(row: Row) -> tuple[float | None, float]:
    hf = row.first.config.training.hf
    return num_epochs(hf), read_number(hf, "max_steps", -1)


def _compare_recipes(row: Row, other: Row) -> tuple[bool, bool]:
    """Whether two were tuned for another time, and by other settings: the smaller the closer."""
    own, its = (one.first.config.training.model_dump(exclude={"records"}) for one in (row, other))
    return not is_tuned_as_long(row, other), own != its


def find_full(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row tuned on the whole of the same pool, with the same model and tuning as `row`.

    Of several the one whose recipe is most alike.
    """
    tuning = row.first.config.training.tuning
    candidates = [
        other
        for other in same_model(row, rows)
        if other.first.is_full
        and other.first.config.training.tuning == tuning
        and _is_same_pool(row, other)
    ]
    return min(candidates, key=lambda other: _compare_recipes(row, other), default=None)

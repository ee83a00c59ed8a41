"""The columns of a table: which metric of which benchmark each one shows, in explicit sets.

Enters: the names of benchmarks a run has results of. Leaves: a `ColumnSet`. A set is fixed and is
printed with Rel., because Rel. is a mean over columns and means nothing without them. Also a single
benchmark's metrics with their 95 % intervals, where they are mean credits of questions.

Shape legend: B resamples, Q questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

import numpy as np

from prism_tune.intervals import percentile_interval, resample_means
from prism_tune.schema import BenchmarkResult

HEADINGS = frozenset(
    {
        *("Method", "Run", "Kept", "Rel.", "95 % CI", "Δ paper", "Rel. printed"),
        *("T_select", "T_tune", "C"),
    }
)
"""What a table of scores calls its columns that are no benchmark's."""
_TOLERANCE = 0.06
"""Percent points a mean credit may lie off its metric: some metrics are rounded to one decimal."""


@dataclass(frozen=True)
class Column:
    """One column: the mean of `metrics` of `benchmark`, times `scale`.

    Attributes:
        label: the heading.
        benchmark: name in the benchmark registry.
        metrics: names in `BenchmarkResult.metrics`; the column is n/a where one is missing.
        scale: brings fractions to percent.
        control: shown beside the others (controls, MME's perception beside its cognition,
            benchmarks of one's own), not counted in Rel.
        other: a metric by another rule, and what that is: a note has its values.
    """

    label: str
    benchmark: str
    metrics: tuple[str, ...]
    scale: float = 1.0
    control: bool = False
    other: tuple[str, str] | None = None


@dataclass(frozen=True)
class ColumnSet:
    """A named, ordered set of columns."""

    name: str
    columns: tuple[Column, ...]

    @property
    def scored(self) -> tuple[Column, ...]:
        """The columns that count in Rel."""
        return tuple(column for column in self.columns if not column.control)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The benchmarks behind the columns, each once, in order."""
        return tuple(dict.fromkeys(column.benchmark for column in self.columns))


def add_own(columns: ColumnSet, results: Iterable[Mapping[str, BenchmarkResult]]) -> ColumnSet:
    """The set with a column for each benchmark of the user's own that the runs have results of.

    They stand beside a set that the runs have results of, which is fixed, and do not count in its
    Rel.; where they are all there is, they are the set. One that is called as another column is
    ("C") has "(benchmark)" behind its name.
    """
    listed = list(results)
    own = {n: c for found in listed for n, r in found.items() if (c := _own_column(n, r))}
    ordered = [own[name] for name in sorted(own)]
    if not own:
        return columns
    if not any(found.keys() & set(columns.benchmarks) for found in listed):
        return ColumnSet("own", _call_apart(ordered, HEADINGS))
    labels = {column.label for column in columns.columns}
    beside = _call_apart([replace(c, control=True) for c in ordered], HEADINGS | labels)
    return ColumnSet(columns.name, (*columns.columns, *beside))


def _call_apart(own: Iterable[Column], taken: Set[str]) -> tuple[Column, ...]:
    """Two columns of one name would be one in JSON, and in what is found by its heading."""
    return tuple(replace(c, label=f"{c.label} (benchmark)") if c.label in taken else c for c in own)


def _own_column(name: str, result: BenchmarkResult) -> Column | None:
    """The column of a benchmark of one's own: its accuracy, or the first metric of a plugin's."""
    if result.provenance.get("metric"):
        return Column(name, name, ("accuracy",))
    if "benchmark's plugin" not in result.provenance or not result.metrics:
        return None
    return Column(name, name, (next(iter(result.metrics)),), 100 / scale_of(result))


def unshown_notes(
    columns: ColumnSet,
    results: Iterable[Mapping[str, BenchmarkResult]],
    tables: Mapping[str, ColumnSet],
) -> list[str]:
    """What runs were evaluated on and no column shows, and where it is to be seen.

    Args:
        columns: those of this table.
        results: of each run.
        tables: the columns that each table has of the same runs.
    """
    names = dict.fromkeys(name for of_run in results for name in of_run)
    places = {name: [t for t, c in tables.items() if name in c.benchmarks] for name in names}
    nowhere = "no table: see `prism-tune report`"
    listed = [
        f"{name} ({', '.join(f'`tables {t}`' for t in found) or nowhere})"
        for name, found in places.items()
        if name not in columns.benchmarks
    ]
    return [f"Evaluated, and no column here: {', '.join(listed)}."] if listed else []


def column_value(column: Column, results: Mapping[str, BenchmarkResult]) -> float | None:
    """What the column shows for a run's results; None where benchmark or metric is missing."""
    result = results.get(column.benchmark)
    if result is None:
        return None
    values = [result.metrics.get(metric) for metric in column.metrics]
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return None
    return column.scale * sum(present) / len(present)


def mean_questions(result: BenchmarkResult, metric: str) -> list[str] | None:
    """The questions whose mean credit a metric is, so that it can be resampled; None for others.

    The benchmark declares them, in `provenance.groups`: metric -> what the ids of its questions
    begin with. It has to be true of the numbers as well.
    """
    start = result.provenance.get("groups", {}).get(metric)
    if start is None or result.metrics.get(metric) is None:
        return None
    questions = [question for question in result.per_question if question.startswith(start)]
    if not questions:
        return None
    mean = sum(result.per_question[question] for question in questions) / len(questions)
    off = abs(100 * mean - 100 / scale_of(result) * result.metrics[metric])
    return questions if off <= _TOLERANCE else None


def column_scores(
    columns: Iterable[Column], results: Mapping[str, BenchmarkResult]
) -> dict[str, float | None]:
    """Label -> value of each column."""
    return {column.label: column_value(column, results) for column in columns}


def scale_of(result: BenchmarkResult) -> float:
    """What a credit of 1 is worth in its metrics: 100, or 1 where these are fractions."""
    return float(result.provenance.get("scale", 100))


def num_digits(scale: float) -> int:
    """How many decimals a metric of that scale is printed with."""
    return 3 if scale == 1 else 1


@dataclass(frozen=True)
class Metric:
    """One metric; the interval is over questions, None where these do not differ in their credit.

    `is_mean`: the metric is a mean over questions; else there is no interval either.
    `scale` is as `scale_of` has it; `controls` are the metric's values without the image, or with
    another one, by control.
    """

    name: str
    value: float
    scale: float
    is_mean: bool
    interval: tuple[float, float] | None
    controls: dict[str, float]


def list_metrics(result: BenchmarkResult) -> list[Metric]:
    """The benchmark's metrics in its own order, controls beside them."""
    controls = tuple(result.provenance.get("controls", ()))
    beside = {f"{name}_{control}" for name in result.metrics for control in controls}
    names = [name for name in result.metrics if name not in beside]
    return [_measure(result, name, controls) for name in names]


def _measure(result: BenchmarkResult, name: str, controls: Iterable[str]) -> Metric:
    found = {c: result.metrics[f"{name}_{c}"] for c in controls if f"{name}_{c}" in result.metrics}
    scale, bounds = scale_of(result), None
    questions = mean_questions(result, name)
    if questions is not None:
        credits_1Q = np.array([[result.per_question[question] for question in questions]])
        masks_1Q = np.ones(credits_1Q.shape, bool)
        means_B11 = resample_means(credits_1Q, masks_1Q, result.benchmark)
        interval = percentile_interval(means_B11[:, 0, 0])
        bounds = interval and (interval[0] * scale / 100, interval[1] * scale / 100)
    return Metric(name, result.metrics[name], scale, questions is not None, bounds, found)


_QUICKSTART = ColumnSet(
    "quickstart",
    (
        Column("open", "quickstart", ("accuracy_open",)),
        Column("yes/no", "quickstart", ("accuracy_yes_no",)),
        Column("all", "quickstart", ("accuracy",)),
        Column("open (blind)", "quickstart", ("accuracy_open_blind",), control=True),
        Column("open (shuffled)", "quickstart", ("accuracy_open_shuffled",), control=True),
    ),
)
_SQA = Column("SQA", "scienceqa", ("accuracy",))
_SQA_IMG = Column("SQA-I", "scienceqa", ("accuracy_image",))
_VIZWIZ = Column(
    "VizWiz",
    "vizwiz",
    ("accuracy",),  # the official rule, on the answers as they are
    other=("accuracy_m4c_first", "by the route of LLaVA's upload, of which published numbers are"),
)
_POPE_SPLITS = tuple(
    Column(f"POPE-{split[0].upper()}", "pope", (f"f1_{split}",))
    for split in ("popular", "random", "adversarial")
)
_POPE = Column("POPE", "pope", tuple(column.metrics[0] for column in _POPE_SPLITS))
_MMVET = Column("MM-Vet", "mmvet", ("score",))
_MMBENCH = Column("MMBench", "mmbench", ("accuracy",))
_MME_C = Column("MME-C", "mme", ("cognition",))
_MME_P = Column("MME-P", "mme", ("perception",))
_MMMU = Column("MMMU", "mmmu", ("accuracy_expected",), scale=100.0)
_TEXTVQA = Column("TextVQA", "textvqa", ("accuracy",))
_SELECTORS = (
    # What published numbers are of: the upload, whose answers are normalised before.
    Column("VQAv2", "vqav2", ("accuracy_upload",)),
    Column("GQA", "gqa", ("accuracy",)),
    _VIZWIZ,
    _SQA_IMG,
    _TEXTVQA,
    _POPE,
    _MME_P,
    _MMBENCH,
    Column("MMBench-CN", "mmbench_cn", ("accuracy",)),
    Column("LLaVA-W", "llava_bench", ("score",)),
)
_WITHOUT_MMMU = (_SQA, _SQA_IMG, _VIZWIZ, *_POPE_SPLITS, _MMVET, _MMBENCH, _MME_C)

COLUMN_SETS = {
    "quickstart": _QUICKSTART,
    "llava": ColumnSet("llava", (*_WITHOUT_MMMU, _MMMU, replace(_MME_P, control=True))),
    "ablation": ColumnSet("ablation", _WITHOUT_MMMU),
    "visionflan": ColumnSet("visionflan", (_VIZWIZ, _SQA_IMG, _TEXTVQA, _POPE, _MME_P, _MMBENCH)),
    "selectors": ColumnSet("selectors", _SELECTORS),
    "language": ColumnSet(
        "language",
        (
            Column("HellaSwag", "hellaswag", ("accuracy_norm",)),
            Column("MMLU", "mmlu", ("accuracy",)),
            Column("MMLU-Pro", "mmlu_pro", ("accuracy",)),
        ),
    ),
}
"""The paper's sets, the ten columns of other selection studies, and the embedded default's."""


def scale_in_percent(
    benchmark: str, metric: str, results: Iterable[Mapping[str, BenchmarkResult]]
) -> float:
    """What a metric is multiplied by to be in percent, as the columns of its benchmark are.

    Of a plugin's metrics the first, and those that are means of credits; others stay as they are.
    """
    columns = [c for of_set in COLUMN_SETS.values() for c in of_set.columns]
    for column in columns:
        if column.benchmark == benchmark:
            return column.scale
    found = next((of_run[benchmark] for of_run in results if benchmark in of_run), None)
    own = None if found is None else _own_column(benchmark, found)
    if found is None or own is None:
        return 1.0
    is_credit = metric in own.metrics or metric in found.provenance.get("groups", {})
    return own.scale if is_credit else 1.0

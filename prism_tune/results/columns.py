"""The columns of a table: which metric of which benchmark each one shows, in explicit sets.

Enters: the names of benchmarks a run has results of. Leaves: a `ColumnSet`. A set is fixed and is
printed with Rel., because Rel. is a mean over columns and means nothing without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prism_tune.schema import BenchmarkResult


@dataclass(frozen=True)
class Column:
    """One column: the mean of `metrics` of `benchmark`, times `scale`.

    Attributes:
        label: the heading.
        benchmark: name in the benchmark registry.
        metrics: names in `BenchmarkResult.metrics`; the column is n/a where one is missing.
        scale: brings fractions to percent.
        questions: the questions behind the metric where it is their mean credit ("all", or the
            prefix of their ids), so that it can be resampled; None where it is no such mean.
        control: shown for judging the others, never counted in Rel.
    """

    label: str
    benchmark: str
    metrics: tuple[str, ...]
    scale: float = 1.0
    questions: str | None = None
    control: bool = False


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


def column_scores(
    columns: Iterable[Column], results: Mapping[str, BenchmarkResult]
) -> dict[str, float | None]:
    """Label -> value of each column."""
    return {column.label: column_value(column, results) for column in columns}


_QUICKSTART = ColumnSet(
    "quickstart",
    (
        Column("open", "quickstart", ("accuracy_open",), questions="open"),
        Column("yes/no", "quickstart", ("accuracy_yes_no",), questions="yes_no"),
        Column("all", "quickstart", ("accuracy",), questions="all"),
        Column("open (blind)", "quickstart", ("accuracy_open_blind",), control=True),
        Column("open (shuffled)", "quickstart", ("accuracy_open_shuffled",), control=True),
    ),
)
_SQA = Column("SQA", "scienceqa", ("accuracy",), questions="all")
_SQA_IMG = Column("SQA-I", "scienceqa", ("accuracy_image",))
_VIZWIZ = Column("VizWiz", "vizwiz", ("accuracy",), questions="all")
_POPE_SPLITS = tuple(
    Column(f"POPE-{split[0].upper()}", "pope", (f"f1_{split}",))
    for split in ("popular", "random", "adversarial")
)
_POPE = Column("POPE", "pope", tuple(column.metrics[0] for column in _POPE_SPLITS))
_MMVET = Column("MM-Vet", "mmvet", ("score",), questions="all")
_MMBENCH = Column("MMBench", "mmbench", ("accuracy",), questions="all")
_MME_C = Column("MME-C", "mme", ("cognition",))
_MME_P = Column("MME-P", "mme", ("perception",))
_MMMU = Column("MMMU", "mmmu", ("accuracy_expected",), scale=100.0, questions="all")
_TEXTVQA = Column("TextVQA", "textvqa", ("accuracy",), questions="all")
_WITHOUT_MMMU = (_SQA, _SQA_IMG, _VIZWIZ, *_POPE_SPLITS, _MMVET, _MMBENCH, _MME_C)

COLUMN_SETS = {
    "quickstart": _QUICKSTART,
    "llava": ColumnSet("llava", (*_WITHOUT_MMMU, _MMMU)),
    "ablation": ColumnSet("ablation", _WITHOUT_MMMU),
    "visionflan": ColumnSet("visionflan", (_VIZWIZ, _SQA_IMG, _TEXTVQA, _POPE, _MME_P, _MMBENCH)),
    "language": ColumnSet(
        "language",
        (
            Column("HellaSwag", "hellaswag", ("accuracy_norm",), questions="all"),
            Column("MMLU", "mmlu", ("accuracy",), questions="all"),
            Column("MMLU-Pro", "mmlu_pro", ("accuracy",), questions="all"),
        ),
    ),
}
"""The paper's sets, and the embedded default's."""

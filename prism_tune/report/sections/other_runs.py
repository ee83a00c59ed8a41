"""Compare: several runs side by side: what their subsets share, hold, reach and cost.

Shape legend: R runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from prism_tune.report.figures import Figure, bar_size, category_colour, named_axis, single
from prism_tune.report.numbers import count, number, percent, plot_text, seconds
from prism_tune.report.section import PageFolder, Section
from prism_tune.report.sections.training import format_interval, split_results
from prism_tune.report.verdict import find_row
from prism_tune.results.columns import Metric, list_metrics, num_digits
from prism_tune.results.notes import stale_notes, unranked_notes
from prism_tune.results.overlap import Overlap, overlap_matrix
from prism_tune.results.relative import find_differences
from prism_tune.results.render import MISSING, Cell, Table
from prism_tune.results.rows import Row
from prism_tune.results.runs import FinishedRun

_MAX_SOURCES = 16
_PAIR_HEADER = ("Subsets", "Kept", "Kept by the other", "Shared", "Jaccard", "Expected of random")
_COST_HEADER = ("Run", "Selector", "Kept", "Selecting", "Tuning", "Rel.", "C")


def build(runs: Sequence[FinishedRun], table: Table | None, page: PageFolder) -> Section:
    """The section; the first run is the report's own."""
    if len(runs) < 2:
        return Section("compare", "Compare", "compare.html", {"ready": False})
    selected = [(run.name, run) for run in runs if run.records]
    matrix = overlap_matrix([run.records for _, run in selected if run.records])
    figures: dict[str, Figure] = {}
    if len(selected) > 1:
        figures["overlap"] = _overlap_plot([name for name, _ in selected], matrix)
        figures["composition"] = _composition_plot(selected)
    first, further = split_results(_result_rows(runs))
    values = {
        "ready": True,
        "has_overlap": len(selected) > 1,
        "without": [run.name for run in runs if not run.records],
        "pair_header": _PAIR_HEADER,
        "pairs": _pair_rows([name for name, _ in selected], matrix),
        "size": bar_size(2 * len(_source_names(selected))),
        "result_header": ("Benchmark", "Metric", *(run.name for run in runs)),
        "results": first,
        "further": further,
        "notes": [*_differences(runs), *_warn_of(runs[1:])],
        "cost_header": _COST_HEADER,
        "costs": [_cost_row(run, find_row(table, run)) for run in runs],
    }
    scripts = (page.add_data("compare", {"figures": figures}),) if figures else ()
    return Section("compare", "Compare", "compare.html", values, scripts)


def _overlap_plot(names: Sequence[str], matrix: Sequence[Sequence[Overlap]]) -> Figure:
    shares = [[overlap.jaccard for overlap in row] for row in matrix]
    heatmap = {
        "type": "heatmap",
        "z": shares,
        "x": list(range(len(names))),
        "y": list(range(len(names))),
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "reversescale": True,
        "texttemplate": "%{z:.2f}",
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "Jaccard %{z:.3f}<extra></extra>",
        "colorbar": {"title": {"text": "Jaccard"}, "thickness": 12, "outlinewidth": 0},
    }
    across = named_axis(names, range=[-0.5, len(names) - 0.5])
    return single([heatmap], {"xaxis": across, "yaxis": named_axis(names)})


def _source_names(selected: Sequence[tuple[str, FinishedRun]]) -> list[str]:
    """The sources of all pools, those with the most kept records first."""
    kept: dict[str, int] = {}
    for _, run in selected:
        for name, counts in (run.manifest or {}).get("per_source", {}).items():
            kept[name] = kept.get(name, 0) + counts["kept"]
    return sorted(kept, key=lambda name: (-kept[name], name))[:_MAX_SOURCES]


def _composition_plot(selected: Sequence[tuple[str, FinishedRun]]) -> Figure:
    """Share of each source in each subset."""
    sources = _source_names(selected)
    traces = []
    for place, (name, run) in enumerate(selected):
        per_source = (run.manifest or {}).get("per_source", {})
        total = max(sum(counts["kept"] for counts in per_source.values()), 1)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plot_text(name),
                "y": list(range(len(sources))),
                "x": [per_source.get(source, {"kept": 0})["kept"] / total for source in sources],
                "marker": {"color": category_colour(place)},
                "hovertemplate": "%{x:.1%}",
            }
        )
    layout = {
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": {"title": {"text": "share of the subset"}, "tickformat": ".0%"},
        "yaxis": named_axis(sources),
    }
    return single(traces, layout)


def _pair_rows(names: Sequence[str], matrix: Sequence[Sequence[Overlap]]) -> list[tuple[str, ...]]:
    pairs = combinations(range(len(names)), 2)
    return [_pair_row(f"{names[a]} and {names[b]}", matrix[a][b]) for a, b in pairs]


def _pair_row(title: str, overlap: Overlap) -> tuple[str, ...]:
    counts = (overlap.num_first, overlap.num_second, overlap.num_shared)
    return (title, *map(count, counts), number(overlap.jaccard), number(overlap.expected))


def _result_rows(runs: Sequence[FinishedRun]) -> list[tuple[str, ...]]:
    """Every metric that a run has, with its interval."""
    found = [
        {
            (name, metric.name): metric
            for name, r in run.results.items()
            for metric in list_metrics(r)
        }
        for run in runs
    ]
    keys = dict.fromkeys(key for of_run in found for key in of_run)
    return [(*key, *(_result_cell(of_run.get(key)) for of_run in found)) for key in keys]


def _result_cell(metric: Metric | None) -> str:
    if metric is None:
        return MISSING
    digits = num_digits(metric.scale)
    value = number(metric.value, digits)
    return f"{value} ({format_interval(metric, digits)})" if metric.interval else value


def _differences(runs: Sequence[FinishedRun]) -> list[str]:
    """What keeps results of a benchmark from being compared, and pools from being the same."""
    found = find_differences({run.name: run.results for run in runs})
    notes = [f"{difference}; such scores cannot be compared." for difference in found]
    pools = {run.manifest["pool_fingerprint"] for run in runs if run.manifest}
    if len(pools) > 1:
        notes.append(
            "The runs were selected from different pools; overlap is by record all the same."
        )
    return notes


def _warn_of(others: Sequence[FinishedRun]) -> list[str]:
    """What the overview says of the report's own run."""
    rows = [Row(run.name, (run,)) for run in others]
    return [*stale_notes(rows), *unranked_notes(rows)]


def _cost_row(run: FinishedRun, row: Mapping[str, Cell]) -> tuple[str, ...]:
    manifest = run.manifest
    kept = MISSING
    if manifest is not None:
        share = percent(manifest["num_selected"] / max(manifest["num_pool"], 1))
        kept = f"{count(manifest['num_selected'])} ({share})"
    return (
        run.name,
        run.config.selection.scorer if manifest is not None else "none",
        kept,
        seconds(run.total("selection")),
        seconds(run.total("training")),
        *(row[heading].text if row else MISSING for heading in ("Rel.", "C")),
    )

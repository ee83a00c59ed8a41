"""Scores: their distribution with the cut, and what each source keeps.

Shape legend: N records of the pool, K records of one source, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.intervals import are_equal
from prism_tune.report import paper_pool
from prism_tune.report.figures import (
    Figure,
    Variant,
    bar_size,
    figure,
    named_axis,
    single,
    variant,
    vertical_line,
)
from prism_tune.report.numbers import count, number, percent
from prism_tune.report.section import PageFolder, Section
from prism_tune.report.sources import SourceSummary, find_cuts, summarise_sources
from prism_tune.results.records import RecordTable
from prism_tune.results.render import MISSING
from prism_tune.results.runs import FinishedRun, Keep

_NUM_BINS = 60
_TEXTS = {
    "keep": "Text-only records are kept without a score.",
    "own_source": "Text-only records have no score: they are sources, whose share is drawn.",
    "drop": "Text-only records are dropped.",
    "rank": "Text-only records are ranked too.",
}
_MAX_SOURCES = 30


def build(run: FinishedRun, page: PageFolder) -> Section:
    """The section, and its plots in `data/scores.js`."""
    records = run.records
    if records is None:
        return Section("scores", "Scores", "scores.html", {"ready": False})
    selection = run.config.selection
    sources = summarise_sources(records, run.keep)
    shown = sources[:_MAX_SOURCES]
    is_paper_pool = paper_pool.is_llava_665k(len(records), records.sources.names)
    figures = {"sources": _source_bars(shown, is_paper_pool)}
    ranked = [source for source in shown if source.quantiles]
    if ranked:
        is_global = selection.scope == "global" and not selection.source_budgets
        cut_as_one = is_global or len(ranked) == 1
        figures["distribution"] = _distributions(records, ranked, run.keep, cut_as_one)
        figures["spread"] = _spread(ranked, run.keep)
    values = {
        "ready": True,
        "scorer": selection.scorer,
        "keep": run.keep,
        "scope": selection.scope,
        "own_budgets": list(selection.source_budgets),
        "text_only": _TEXTS[selection.text_only],
        "variants": [
            ("all", "all sources"),
            *((str(place), source.name) for place, source in enumerate(ranked)),
        ],
        "has_scores": bool(ranked),
        "sizes": {"sources": bar_size(len(shown)), "spread": bar_size(len(ranked))},
        "num_hidden": len(sources) - len(shown),
        "header": _header(is_paper_pool),
        "rows": [_source_row(source, is_paper_pool) for source in sources],
        "paper": _paper_note(records) if is_paper_pool else "",
    }
    script = page.add_data("scores", {"figures": figures})
    return Section("scores", "Scores", "scores.html", values, (script,))


def _distributions(
    records: RecordTable, ranked: Sequence[SourceSummary], keep: Keep, cut_as_one: bool
) -> Figure:
    """One histogram of all sources ("all"), and one of each (its number)."""
    ranked_N = records.is_ranked_N
    whole_K = np.flatnonzero(ranked_N)
    variants = {"all": _histogram(records, whole_K, keep if cut_as_one else None)}
    for number_of_source, source in enumerate(ranked):
        rows_K = np.flatnonzero(ranked_N & records.sources.mask(source.name))
        variants[str(number_of_source)] = _histogram(records, rows_K, keep)
    return figure(variants)


def _histogram(records: RecordTable, rows_K: NDArray[np.int64], keep: Keep | None) -> Variant:
    """Kept and dropped records stacked; with the cut, where they were cut as one group."""
    scores_K, selected_K = records.score_N[rows_K], records.selected_N[rows_K]
    edges = _bin_edges(scores_K)
    centres, width = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
    traces = []
    for name, colour, part in (("kept", "$kept", selected_K), ("dropped", "$dropped", ~selected_K)):
        counts_B, _ = np.histogram(scores_K[part], bins=edges)
        traces.append(
            {
                "type": "bar",
                "name": name,
                "x": centres,
                "y": counts_B,
                "width": width,
                "marker": {"color": colour},
                "hovertemplate": "score %{x:.4g}<br>%{y:,} records",
            }
        )
    cuts = find_cuts(records, rows_K, keep) if keep else ()
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"title": {"text": "score"}},
        "yaxis": {"title": {"text": "records"}},
        "shapes": [vertical_line(cut) for cut in cuts],
    }
    return variant(traces, layout)


def _bin_edges(scores_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Even bins; one for scores that are equal but for rounding, which has no room for more."""
    low, high = scores_K.min(keepdims=True), scores_K.max(keepdims=True)
    if not are_equal(low, high).all():
        return np.histogram_bin_edges(scores_K, bins=_NUM_BINS)
    half = abs(high) / 10 + (high == 0)
    return np.concatenate([low - half, high + half])


def _source_bars(sources: Sequence[SourceSummary], is_paper_pool: bool) -> Figure:
    """Kept and dropped records of each source, stacked."""
    places = list(range(len(sources)))
    shares = [percent(source.num_kept / source.num_records) for source in sources]
    kept = {
        "type": "bar",
        "orientation": "h",
        "name": "kept",
        "y": places,
        "x": [source.num_kept for source in sources],
        "text": shares,
        "textposition": "auto",
        "insidetextanchor": "start",
        "insidetextfont": {"color": "$surface"},
        "marker": {"color": "$kept"},
        "hovertemplate": "%{x:,} kept, %{text}<extra></extra>",
    }
    dropped = {
        "type": "bar",
        "orientation": "h",
        "name": "dropped",
        "y": places,
        "x": [source.num_dropped for source in sources],
        "marker": {"color": "$dropped"},
        "hovertemplate": "%{x:,} dropped<extra></extra>",
    }
    traces = [kept, dropped, *([_paper_marks(sources)] if is_paper_pool else [])]
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "xaxis": {"title": {"text": "records"}},
        "yaxis": named_axis([source.name for source in sources]),
    }
    return single(traces, layout)


def _paper_marks(sources: Sequence[SourceSummary]) -> dict[str, Any]:
    """How many records of a source the paper's subset keeps, where that is known."""
    known = [
        (place, share * source.num_records)
        for place, source in enumerate(sources)
        if (share := paper_pool.published_share(source.name)) is not None
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "kept by the paper",
        "y": [place for place, _ in known],
        "x": [kept for _, kept in known],
        "marker": {
            "symbol": "diamond",
            "size": 11,
            "color": "$c1",
            "line": {"color": "$ink", "width": 1},
        },
        "hovertemplate": "paper: %{x:,.0f} kept<extra></extra>",
    }


def _spread(ranked: Sequence[SourceSummary], keep: Keep) -> Figure:
    """A box of the scores of each source, and its cut."""
    columns = list(zip(*(source.quantiles for source in ranked), strict=True))
    boxes = {
        "type": "box",
        "orientation": "h",
        "name": "scores (5 to 95 %)",
        "y": list(range(len(ranked))),
        "lowerfence": columns[0],
        "q1": columns[1],
        "median": columns[2],
        "q3": columns[3],
        "upperfence": columns[4],
        "line": {"color": "$c7", "width": 1.5},
        "hoverinfo": "x",
    }
    cuts = [(place, cut) for place, source in enumerate(ranked) for cut in source.cuts]
    marks = {
        "type": "scatter",
        "mode": "markers",
        "name": f"cut ({keep} kept)",
        "y": [place for place, _ in cuts],
        "x": [cut for _, cut in cuts],
        "marker": {"symbol": "line-ns", "size": 22, "line": {"color": "$cut", "width": 3}},
        "hovertemplate": "cut at %{x:.4g}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "score"}},
        "yaxis": named_axis([source.name for source in ranked]),
    }
    return single([boxes, marks], layout)


def _header(is_paper_pool: bool) -> tuple[str, ...]:
    paper = ("Paper",) if is_paper_pool else ()
    return ("Source", "Records", "Kept", "Dropped", "Share", *paper, "Text only", "Median", "Cut")


def _source_row(source: SourceSummary, is_paper_pool: bool) -> tuple[str, ...]:
    paper = (percent(paper_pool.published_share(source.name)),) if is_paper_pool else ()
    return (
        source.name,
        count(source.num_records),
        count(source.num_kept),
        count(source.num_dropped),
        percent(source.num_kept / source.num_records),
        *paper,
        count(source.num_text_only),
        _score(source.quantiles[2]) if source.quantiles else MISSING,
        " and ".join(map(_score, source.cuts)) or MISSING,
    )


def _score(value: float) -> str:
    """Cosines and losses to four places, places in an order of picking as they are."""
    return number(value, 4 if abs(value) < 10 else 1)


def _paper_note(records: RecordTable) -> str:
    kept = int(records.selected_N.sum())
    return (
        f"This pool is LLaVA-665K. The paper's released subset keeps "
        f"{count(paper_pool.NUM_KEPT)} of {count(paper_pool.NUM_RECORDS)} records "
        f"({percent(paper_pool.NUM_KEPT / paper_pool.NUM_RECORDS)}), and exactly a third of VG, "
        f"VQAv2 and OCR-VQA; this run keeps {count(kept)} ({percent(kept / len(records))})."
    )

"""Geometry: the narrow cone, what re-centring does to it, and a map of the pool.

Shape legend: R sampled records, D feature width, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import UserError
from prism_tune.features.spectrum import effective_rank
from prism_tune.report.feature_sample import (
    FeatureSample,
    FloatArray,
    cosine_histogram,
    draw_sample,
)
from prism_tune.report.figures import NUM_COLOURS, Figure, Variant, figure, single, variant
from prism_tune.report.numbers import count, number, percent, plot_text
from prism_tune.report.section import PageFolder, Section
from prism_tune.report.thumbnails import write_thumbnails
from prism_tune.results.records import RecordTable
from prism_tune.results.runs import FinishedRun

_NUM_SHOWN = 64  # of the spectrum
_COLOURINGS = (("source", "source"), ("score", "score"), ("kept", "kept"))


def build(run: FinishedRun, page: PageFolder) -> Section:
    """The section, its plots in `data/geometry.js` and the map's thumbnails."""
    sample = draw_sample(run)
    if sample is None or run.records is None:
        values = {"ready": False, "reason": _why_not(run)}
        return Section("geometry", "Geometry", "geometry.html", values)
    cosines = {
        "raw": cosine_histogram(sample.values_RD),
        "centred": cosine_histogram(sample.centred_RD),
    }
    shares = {name: sample.variance_shares(centred=name == "centred") for name in cosines}
    points = _describe_points(run, run.records, sample.records, page)
    figures = {
        "cosines": _cosine_plot({name: found[:2] for name, found in cosines.items()}),
        "spectrum": _spectrum_plot(shares),
        "map": _map_plot(sample.project(), run.records, sample.records),
    }
    values = {
        "ready": True,
        "colourings": _COLOURINGS,
        "sampled": _describe_sample(sample),
        "header": ("Measure", "Raw", "Re-centred"),
        "rows": _numbers({name: found[2] for name, found in cosines.items()}, shares),
        "exact": _exact(run),
        "own": _own_centring(run),
    }
    data = page.add_data("geometry", {"figures": figures, "points": points})
    return Section(
        "geometry", "Geometry", "geometry.html", values, (data, page.add_asset("map.js"))
    )


def _why_not(run: FinishedRun) -> str:
    if run.records is None:
        return "The selection of this run has not finished: there are no features to look at yet."
    if "features" not in (run.manifest or {}).get("evidence", {}):
        scorer = run.config.selection.scorer
        return f"The selector {scorer} looks at no features, so there is no geometry to show."
    if run.records.feature_keys is None:
        return (
            "scores.parquet does not say which feature belongs to which record: it was written by "
            "an older prism_tune. `prism-tune select CONFIG --force` writes it anew."
        )
    return "The features of this run are gone, or too few to look at."


def _describe_sample(sample: FeatureSample) -> str:
    if len(sample.records) == sample.num_available:
        return f"All {count(sample.num_available)} records that have a feature are shown."
    return (
        f"{count(len(sample.records))} of the {count(sample.num_available)} records that have a "
        "feature are shown, evenly spaced over the pool."
    )


def _cosine_plot(histograms: dict[str, tuple[FloatArray, NDArray[np.int64]]]) -> Figure:
    names = {"raw": ("raw features", "$c1"), "centred": ("re-centred features", "$c0")}
    traces = []
    for key, (edges, counts_B) in histograms.items():
        name, colour = names[key]
        traces.append(
            {
                "type": "bar",
                "name": name,
                "x": (edges[:-1] + edges[1:]) / 2,
                "y": counts_B / counts_B.sum(),
                "width": float(edges[1] - edges[0]),
                "marker": {"color": colour},
                "opacity": 0.75,
                "hovertemplate": "cosine %{x:.2f}<br>%{y:.1%} of the pairs",
            }
        )
    layout = {
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": {"title": {"text": "cosine of two records"}, "range": [-1, 1]},
        "yaxis": {"title": {"text": "share of pairs"}, "tickformat": ".0%"},
    }
    return single(traces, layout)


def _spectrum_plot(shares: dict[str, FloatArray]) -> Figure:
    names = {"raw": ("raw features", "$c1", "circle"), "centred": ("re-centred", "$c0", "square")}
    traces = []
    for key, shares_R in shares.items():
        name, colour, symbol = names[key]
        shown = shares_R[:_NUM_SHOWN]
        shown = shown[shown > 1e-9]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": np.arange(1, len(shown) + 1),
                "y": shown,
                "line": {"color": colour, "width": 2},
                "marker": {"color": colour, "size": 6, "symbol": symbol},
                "hovertemplate": "direction %{x}: %{y:.2%}",
            }
        )
    layout = {
        "xaxis": {"title": {"text": "direction"}},
        "yaxis": {
            "title": {"text": "share of the squared length"},
            "type": "log",
            "tickformat": "~%",
            "dtick": 1,
        },
    }
    return single(traces, layout)


def _map_plot(points_R2: FloatArray, records: RecordTable, rows: NDArray[np.int64]) -> Figure:
    layout = {
        "xaxis": {"title": {"text": "PCA 1"}, "zeroline": False},
        "yaxis": {"title": {"text": "PCA 2"}, "zeroline": False},
        "hoverdistance": 12,
    }
    kept_R = records.selected_N[rows]
    by_kept = [("dropped", "$dropped", ~kept_R), ("kept", "$kept", kept_R)]
    return figure(
        {
            "source": variant(_groups(points_R2, _by_source(records, rows)), layout),
            "score": _by_score(points_R2, records.score_N[rows], layout),
            "kept": variant(_groups(points_R2, by_kept), layout),
        }
    )


def _by_source(
    records: RecordTable, rows: NDArray[np.int64]
) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(name, colour, which) of the largest sources; the rest share the last colour."""
    codes_R = records.sources.codes_N[rows]
    sizes = np.bincount(codes_R, minlength=len(records.sources.names))
    order = [code for code in np.argsort(-sizes, kind="stable").tolist() if sizes[code]]
    own = order if len(order) <= NUM_COLOURS else order[: NUM_COLOURS - 1]
    groups = [
        (records.sources.names[code], f"$c{place}", codes_R == code)
        for place, code in enumerate(own)
    ]
    if len(own) < len(order):
        others = np.isin(codes_R, order[len(own) :])
        groups.append((f"{len(order) - len(own)} other sources", f"$c{NUM_COLOURS - 1}", others))
    return groups


def _groups(
    points_R2: FloatArray, groups: Sequence[tuple[str, str, NDArray[np.bool_]]]
) -> list[dict[str, Any]]:
    return [_scatter(points_R2, name, {"color": colour}, which) for name, colour, which in groups]


def _by_score(
    points_R2: FloatArray, scores_R: NDArray[np.float64], layout: dict[str, Any]
) -> Variant:
    marker = {
        "color": scores_R,
        "colorscale": "Cividis",
        "showscale": True,
        "colorbar": {"title": {"text": "score"}, "thickness": 12, "outlinewidth": 0},
    }
    everything = np.ones(len(scores_R), dtype=bool)
    return variant([_scatter(points_R2, "score", marker, everything)], layout)


def _scatter(
    points_R2: FloatArray, name: str, marker: dict[str, Any], which: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plot_text(name),
        "x": np.ascontiguousarray(points_R2[which, 0]),
        "y": np.ascontiguousarray(points_R2[which, 1]),
        "customdata": np.flatnonzero(which),
        "marker": {"size": 6, "opacity": 0.75, **marker},
        "hoverinfo": "none",
    }


def _describe_points(
    run: FinishedRun, records: RecordTable, rows: NDArray[np.int64], page: PageFolder
) -> list[dict[str, Any]]:
    """What the hover card says of each sampled record."""
    try:
        thumbs = write_thumbnails(run, rows.tolist(), page.root)
    except UserError:  # the gallery says that the pool cannot be opened, and why
        thumbs = {}
    return [
        {
            "uid": (uid := records.uid(row)),
            "id": records.ids[row].as_py(),
            "source": records.sources[row],
            "score": float(records.score_N[row]),
            "kept": bool(records.selected_N[row]),
            "thumb": next(iter(thumbs.get(uid, ())), None),
        }
        for row in rows.tolist()
    ]


def _numbers(means: dict[str, float], shares: dict[str, FloatArray]) -> list[tuple[str, str, str]]:
    def row(name: str, values: dict[str, str]) -> tuple[str, str, str]:
        return name, values["raw"], values["centred"]

    def num_for(shares_R: FloatArray, share: float) -> int:
        return int(np.searchsorted(np.cumsum(shares_R), share) + 1)

    return [
        row("Mean cosine of two records", {k: number(mean) for k, mean in means.items()}),
        row("Share of the first direction", {k: percent(s[0]) for k, s in shares.items()}),
        row("Share of the first ten", {k: percent(s[:10].sum()) for k, s in shares.items()}),
        row("Directions for 90 %", {k: count(num_for(s, 0.9)) for k, s in shares.items()}),
        row("Effective rank", {k: number(effective_rank(s), 1) for k, s in shares.items()}),
    ]


def _exact(run: FinishedRun) -> str:
    """The mean cosines over all pairs of the pool, where the selector measured them."""
    measured = (run.manifest or {}).get("anisotropy")
    if measured is None:
        return ""
    return (
        f"Over all pairs of the pool, as measured by the selector: mean cosine "
        f"{number(measured['mean_cosine_raw'])} raw, {number(measured['mean_cosine_centred'])} "
        "re-centred."
    )


def _own_centring(run: FinishedRun) -> str:
    """Where the run's scores are centred in another way than the plots."""
    selection = run.config.selection
    if selection.centering != "corpus":
        return f"This run's own scores are centred otherwise (centering: {selection.centering})."
    if selection.scope == "per_source":
        return (
            "This run scores inside each source, with the source's own mean; the plots are of all."
        )
    return ""

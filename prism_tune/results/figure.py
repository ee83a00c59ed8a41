"""A comparison to look at: every run a dot, every selector a line, beside the baseline.

One panel per budget. A selector's diamond is its mean over seeds. Its bar is the baseline's mean
plus the 95 % interval of the difference to it, so that it touches the dashed line exactly where the
difference has not been told from 0. Where a seed failed, the difference is over the seeds that both
have, and the diamond need not stand in the middle of its bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from prism_tune.results.render import format_budget

Row = Mapping[str, Any]

_DOT = {"color": "rgba(90, 110, 140, 0.45)", "size": 7}
_MEAN = {"color": "#1b4b91", "size": 10, "symbol": "diamond"}
_MIDDLE = {"color": "#1b4b91", "size": 9, "symbol": "line-ns-open", "line": {"width": 1.5}}
_BASELINE = {"color": "#c2410c", "width": 1.5, "dash": "dash"}
_WHOLE_POOL = {"color": "#4d7c0f", "width": 1.5, "dash": "dot"}
_ROW_PIXELS, _FRAME_PIXELS = 26, 190


def draw_comparison(found: Mapping[str, Any]) -> str:
    """A page that needs nothing else.

    Args:
        found: what `build_grid` returned.
    """
    page: str = build_figure(found).to_html(include_plotlyjs=True, full_html=True)
    return page


def build_figure(found: Mapping[str, Any]) -> go.Figure:
    """The panels; the rows of each from the best mean down."""
    measured = [row for row in found["rows"] if row["performance"] is not None]
    budgets = list(dict.fromkeys(row["budget"] for row in measured if row["budget"] is not None))
    whole = next((row for row in measured if row["budget"] is None), None)
    titles = [
        f"{format_budget(b)}{' of the pool' if isinstance(b, float) else ''}" for b in budgets
    ]
    figure = make_subplots(
        rows=1,
        cols=max(1, len(budgets)),
        subplot_titles=titles,
        shared_xaxes="all",
        horizontal_spacing=0.12,  # for the names of the next panel's rows
    )
    for column, budget in enumerate(budgets, start=1):
        rows = [row for row in measured if row["budget"] == budget]
        _draw_panel(figure, column, rows, found["baseline"], whole)
    num_rows = max((sum(r["budget"] == budget for r in measured) for budget in budgets), default=0)
    figure.update_layout(
        template="plotly_white",
        showlegend=False,
        height=_FRAME_PIXELS + _ROW_PIXELS * num_rows,
        title=_caption(found, whole),
        title_font_size=13,
        margin={"t": 130},
    )
    return figure


def _draw_panel(
    figure: go.Figure, column: int, rows: Sequence[Row], baseline: str, whole: Row | None
) -> None:
    ordered = sorted(rows, key=lambda row: row["performance"]["mean"])
    names = [escape(row["selector"]) for row in ordered]
    runs = [
        (value, name, seed)
        for row, name in zip(ordered, names, strict=True)
        for seed, value in row["performances"].items()
    ]
    dots = go.Scatter(
        x=[value for value, _, _ in runs],
        y=[name for _, name, _ in runs],
        text=[f"seed {seed}" for _, _, seed in runs],
        mode="markers",
        marker=_DOT,
        hovertemplate="%{y}, %{text}: %{x:.1f}<extra></extra>",
    )
    means = go.Scatter(
        x=[row["performance"]["mean"] for row in ordered],
        y=names,
        mode="markers",
        marker=_MEAN,
        hovertemplate="%{y}: mean %{x:.1f}<extra></extra>",
    )
    reference = next((row for row in rows if row["selector"] == baseline), None)
    for trace in (dots, _draw_bars(ordered, reference), means):
        figure.add_trace(trace, row=1, col=column)
    for row, line in ((reference, _BASELINE), (whole, _WHOLE_POOL)):
        if row is not None:
            figure.add_vline(x=row["performance"]["mean"], line=line, row=1, col=column)


def _draw_bars(rows: Sequence[Row], reference: Row | None) -> go.Scatter:
    """The intervals, from the baseline's mean on; none for the baseline, and with one seed."""
    start = reference["performance"]["mean"] if reference else 0.0
    judged = [row for row in rows if reference and _has_interval(row)]
    found = [row["difference"] for row in judged]
    return go.Scatter(
        x=[start + d["mean"] for d in found],
        y=[escape(row["selector"]) for row in judged],
        text=[f"{d['mean']:+.1f} ({d['low']:+.1f} to {d['high']:+.1f})" for d in found],
        mode="markers",
        marker=_MIDDLE,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [d["high"] - d["mean"] for d in found],
            "arrayminus": [d["mean"] - d["low"] for d in found],
            "thickness": 1.5,
            "color": _MEAN["color"],
        },
        hovertemplate="%{y}: difference %{text}<extra></extra>",
    )


def _has_interval(row: Row) -> bool:
    return row["difference"] is not None and row["difference"]["low"] is not None


def _caption(found: Mapping[str, Any], whole: Row | None) -> str:
    pool = "" if whole is None else "; dotted line: the whole pool"
    return (
        f"{escape(found['name'])}: {escape(', '.join(found['metrics']))}. Dots: runs; diamonds: "
        f"means; dashed line: {escape(found['baseline'])}{pool}.<br>Bars: the dashed line plus the "
        "95 % interval of the difference over seeds (those that both have);<br>one that touches "
        "the dashed line has not been told apart from it."
    )

"""Plots as plain plotly JSON.

A figure has one variant or several, of which the page shows one; colours are given by their place
in the page's palette ("$kept", "$c0"), so that both themes have their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_tune.report.numbers import plot_text

NUM_COLOURS = 8
Trace = dict[str, Any]
Variant = dict[str, Any]
Figure = dict[str, Any]


def variant(data: Sequence[Trace], layout: Mapping[str, Any]) -> Variant:
    """Traces and their layout."""
    return {"data": list(data), "layout": dict(layout)}


def figure(variants: Mapping[str, Variant]) -> Figure:
    """A figure whose first variant is shown first."""
    return {"initial": next(iter(variants)), "variants": dict(variants)}


def single(data: Sequence[Trace], layout: Mapping[str, Any]) -> Figure:
    """A figure with one variant."""
    return figure({"only": variant(data, layout)})


def category_colour(index: int) -> str:
    """The palette's colours in turn."""
    return f"$c{index % NUM_COLOURS}"


def named_axis(names: Sequence[str], **more: Any) -> dict[str, Any]:
    """An axis of names, the first on top; names are data, so they are escaped and cut."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plot_text(name) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "zeroline": False,
        "showgrid": False,
        **more,
    }


def bar_size(num_bars: int) -> str:
    """The reserved height (a class of the style sheet) for so many horizontal bars."""
    steps = (4, 9, 16)
    return f"bars-{1 + sum(num_bars > step for step in steps)}"


def vertical_line(x: float) -> dict[str, Any]:
    """A dashed line over the whole height."""
    line = {"color": "$cut", "width": 2, "dash": "dash"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}

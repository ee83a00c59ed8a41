"""Numbers as people read them; the filters of the templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from prism_tune.results.render import MISSING

_MAX_LABEL = 32


def count(value: float | None) -> str:
    """1,234,567."""
    return MISSING if value is None else f"{value:,.0f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as percent."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of digits after the point."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def seconds(value: float | None) -> str:
    """`9.0 s`, `6 min 11 s`, `3 h 5 min`."""
    if value is None:
        return MISSING
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def large(value: float | None) -> str:
    """Three digits and a power: `1.23e+15`; plain below a million."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.3g}"


def plot_text(text: str) -> str:
    """Text for a plot, which reads a few tags and entities: escaped, and cut where it is long."""
    cut = text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"
    return cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> Markup:
    """Escaped text, what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one is left open
        return escape(text)
    marked = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    ]
    return Markup("").join(marked)


FILTERS: dict[str, Callable[..., Any]] = {
    "count": count,
    "percent": percent,
    "number": number,
    "seconds": seconds,
    "large": large,
    "code": code,
}

"""Sections in, `index.html` out: one page, everything it loads lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prism_tune import __version__
from prism_tune.report.numbers import FILTERS
from prism_tune.report.section import TEMPLATES, PageFolder, Section

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # plotly styles what it draws inline
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def write_page(title: str, sections: Sequence[Section], page: PageFolder) -> None:
    """Render the sections into the folder that their data are in already."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    html = environment.get_template("base.html").render(
        title=title,
        sections=sections,
        policy=POLICY,
        styles=[
            page.add_asset("report.css"),
            *dict.fromkeys(style for section in sections for style in section.styles),
        ],
        theme_script=page.add_asset("theme.js"),
        scripts=[
            page.add_asset("report.js"),
            *dict.fromkeys(script for section in sections for script in section.scripts),
        ],
        version=__version__,
    )
    page.add_file(_PLOTLY, "plotly.min.js")  # read by report.js when a plot is to be drawn
    (page.root / "index.html").write_text(html, encoding="utf-8")

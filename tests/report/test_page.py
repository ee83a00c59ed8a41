"""The page in a real browser: opened from disk, used by mouse and keyboard, read in both themes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from support.report_pages import HOSTILE_SOURCE, assert_accessible, draw_plots

SECTIONS = ("overview", "geometry", "scores", "gallery", "compare", "training", "answers")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def drawn(report, open_shared_page):
    """`drawn(width)`: a page for tests that only read it, and of each section how many plots."""

    @cache
    def draw(width):
        page = open_shared_page(report, width=width)
        return page, {section: draw_plots(page, section) for section in SECTIONS}

    return draw


def test_every_section_is_there_and_its_plots_are_drawn(drawn):
    page, counts = drawn(DESKTOP)
    headings = page.locator("main > section > h2").all_inner_texts()
    assert [
        section.get_attribute("id") for section in page.locator("main > section").all()
    ] == list(SECTIONS)
    assert len(headings) == len(SECTIONS)
    assert (counts["geometry"], counts["scores"], counts["compare"]) == (3, 3, 2)
    assert counts["training"] == 4


def test_what_is_printed_has_every_plot(report, open_page):
    """Also those that nobody has scrolled to."""
    page = open_page(report)
    has_plotly = "() => 'Plotly' in window"
    assert not page.evaluate(has_plotly)  # the page does not wait for it
    page.wait_for_function(has_plotly)
    page.pdf()
    plots = page.locator("[data-plot]").all()
    assert len(plots) >= 10
    assert all(plot.get_attribute("data-drawn") for plot in plots)


def test_nothing_is_wider_than_a_phone(drawn):
    page, _ = drawn(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE


def test_nothing_moves_while_plots_are_drawn(report, open_page):
    page = open_page(report)
    before = page.evaluate("document.documentElement.scrollHeight")
    for section in SECTIONS:
        draw_plots(page, section)
    shift = page.evaluate(
        """() => new Promise(done => new PerformanceObserver(list => done(
             list.getEntries().reduce((sum, entry) => sum + entry.value, 0)))
             .observe({type: 'layout-shift', buffered: true}) || setTimeout(() => done(0), 200))"""
    )
    assert page.evaluate("document.documentElement.scrollHeight") == before
    assert shift < 0.01


def test_the_theme_follows_the_system_and_the_button(report, open_page):
    page = open_page(report, theme="dark")
    draw_plots(page, "scores")
    theme = page.locator("html")
    ink = "document.querySelector('#scores [data-plot] .xtick text').style.fill"
    assert theme.get_attribute("data-theme") == "dark"
    dark_ink = page.evaluate(ink)
    button = page.get_by_role("button", name="Dark theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.focus()
    page.keyboard.press("Enter")
    assert theme.get_attribute("data-theme") == "light"
    assert button.get_attribute("aria-pressed") == "false"
    page.wait_for_function(f"before => {ink} !== before", arg=dark_ink)
    page.reload()
    assert theme.get_attribute("data-theme") == "light"  # the choice is kept


def test_the_distribution_of_one_source_is_chosen_by_keyboard(report, open_page):
    page = open_page(report)
    draw_plots(page, "scores")
    plot = page.locator("[data-plot='scores.distribution']")
    assert plot.get_attribute("data-drawn") == "all"
    page.get_by_label("Show").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(
        "() => document.querySelector(\"[data-plot='scores.distribution']\").dataset.drawn === '0'"
    )
    assert plot.locator(".shapelayer path").count() == 1  # a source is cut at one score


def test_the_map_changes_colours_and_shows_the_record_under_the_pointer(report, open_page):
    page = open_page(report)
    draw_plots(page, "geometry")
    plot = page.locator("[data-plot='geometry.map']")
    names = plot.locator(".legendtext").all_text_contents()
    assert {"shape", "colour"} <= set(names)
    page.get_by_role("radio", name="kept", exact=True).check()
    page.wait_for_function(
        "() => document.querySelector(\"[data-plot='geometry.map']\").dataset.drawn === 'kept'"
    )
    assert plot.locator(".legendtext").all_text_contents() == ["dropped", "kept"]
    plot.scroll_into_view_if_needed()
    card = page.locator(".hover-card")
    assert not card.is_visible()
    plot.locator(".points path").first.hover(force=True)
    card.wait_for(state="visible")
    assert re.search(r"score -?[\d.e-]+\s*(dropped|kept)", card.inner_text())
    assert card.locator("img").evaluate("image => image.naturalWidth") > 0


def test_hostile_names_are_text(drawn):
    page, _ = drawn(DESKTOP)
    assert page.title() == "tiny · prism_tune report"
    cells = page.locator("#scores tbody th").all_inner_texts()
    assert HOSTILE_SOURCE in cells
    assert HOSTILE_SOURCE in page.locator("#scores option").all_inner_texts()
    ticks = page.locator("[data-plot='scores.sources'] .ytick text").all_text_contents()
    assert any(tick.startswith("<b>bold</b>") for tick in ticks)


def test_sections_are_reached_by_keyboard(report, open_page):
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    links = page.locator("header nav a")
    links.nth(SECTIONS.index("scores")).focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelector('#scores').getBoundingClientRect().top < 120"
    )
    assert page.url.endswith("#scores")


@pytest.mark.parametrize(("width", "theme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_accessible_in_both_themes(report, open_page, width, theme):
    page = open_page(report, width=width)
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    for section in SECTIONS:
        draw_plots(page, section)
    if theme == "dark":
        page.get_by_role("button", name="Dark theme").click()
    assert_accessible(page)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_screenshots_are_kept(drawn, width):
    """For people: CI keeps the folder."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page, _ = drawn(width)
    for section in SECTIONS:
        path = SCREENSHOTS / f"{section}-{width}.png"
        style = ".bar { position: static !important }"
        page.locator(f"#{section}").screenshot(path=path, style=style)
        assert path.stat().st_size > 5000

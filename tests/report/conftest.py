"""A tiny run brought from the pool to the table by the real verbs, its report, and a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from support.report_pages import prism_tune, write_hostile_pool, write_questions
from support.tiny_runs import tiny_config

BROWSERS = (
    "chromium-headless-shell",  # without windows: a page opens in a quarter of the time
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)


@pytest.fixture(scope="session")
def runs(tiny_llava_dir, tmp_path_factory) -> Path:
    """`tiny` (PRISM: selected, tuned, evaluated, tabled) and `tiny-random` (selected)."""
    folder = tmp_path_factory.mktemp("report")
    pool = write_hostile_pool(folder / "pool")
    config = tiny_config(folder, tiny_llava_dir, pool, write_questions(folder))
    config["selection"]["budget"] = 0.5
    config["training"]["hf"] |= {"max_steps": 4, "save_strategy": "steps"}
    config["evaluation"]["controls"] = ["blind"]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    for verb in ("select", "train", "evaluate"):
        prism_tune(verb, str(path))
    prism_tune("select", str(path), "name=tiny-random", "selection.scorer=random")
    prism_tune("tables", "main", "--runs", str(folder / "runs" / "tiny"))
    return folder / "runs"


@pytest.fixture(scope="session")
def report(runs) -> Path:
    """The folder of the report of `tiny`, with `tiny-random` beside it."""
    prism_tune("report", str(runs / "tiny"), "--compare", str(runs / "tiny-random"))
    return runs / "tiny" / "report"


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, from wherever the system has it."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert found, "these tests drive a real browser: apt-get install chromium-headless-shell"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """`open_page(folder, width=..., theme=...)` -> the page, opened from disk.

    At the end nothing may have been complained about, and nothing asked for outside the folder.
    """
    yield from _open_pages(browser)


@pytest.fixture(scope="module")
def open_shared_page(browser):
    """The same for a page that several tests only read."""
    yield from _open_pages(browser)


def _open_pages(browser):
    contexts, faults = [], []

    def open_page(folder: Path, *, width: int = 1280, theme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        inside = folder.resolve().as_uri() + "/"
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith((inside, "data:", "blob:")) or faults.append(r.url),
        )
        # A page that is left while its lazy pictures load has given these up itself.
        page.on(
            "requestfailed",
            lambda r: r.failure == "net::ERR_ABORTED" or faults.append(f"failed: {r.url}"),
        )
        page.goto(f"{inside}index.html")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []

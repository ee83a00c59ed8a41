"""What the report's tests share: hostile records, the verbs, and plots that are drawn late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from support.tiny import draw_image, draw_pool
from typer.testing import CliRunner

from prism_tune.cli.app import app

NUM_IMAGES = 40
NUM_QUESTIONS = 12
MARKUP = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
HOSTILE_SOURCE = "<b>bold</b> & \"quoted\" <script>document.title='hacked'</script>"
HOSTILE_FILE = "'><img src=x onerror=alert(1)>.png"
AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],  # to describe also what passes takes most of its time
    "preload": False,  # it would fetch the style sheets, which the page's policy forbids
}


def prism_tune(*arguments: str) -> str:
    """Run a verb in this process; its output."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def write_hostile_pool(folder: Path) -> Path:
    """The drawn pool, and records whose texts, ids, sources and file names are markup."""
    pool = draw_pool(folder, num_images=NUM_IMAGES)
    records = json.loads(pool.read_text())
    for number in range(6):
        name = HOSTILE_FILE if number == 0 else f"{number}.png"
        record = {
            "id": f"{MARKUP}{number}",
            "source": HOSTILE_SOURCE,
            "image": name,
            "conversations": [
                {"from": "human", "value": f"<image>\n{MARKUP} what is {number}?"},
                {"from": "gpt", "value": f"</script>{MARKUP}"},
            ],
        }
        records.append(record)
    draw_image(folder / "images" / HOSTILE_FILE, 99)
    pool.write_text(json.dumps(records))
    return pool


def write_questions(folder: Path) -> dict[str, str]:
    """A quickstart benchmark of open and yes/no questions."""
    images = folder / "test_images"
    images.mkdir()
    questions = []
    for number in range(NUM_QUESTIONS):
        draw_image(images / f"{number}.png", number)
        kind, answer = ("open", "red") if number % 2 else ("yes_no", "yes")
        question = {"question_id": f"{kind}-{number}", "image": f"{number}.png"}
        questions.append(
            {**question, "text": f"what is {number}?", "answer": answer, "category": "colour"}
        )
    (folder / "test.json").write_text(json.dumps(questions))
    return {"annotations": str(folder / "test.json"), "image_dir": str(images)}


def draw_plots(page, section: str) -> int:
    """Scroll through a section until all of its plots are drawn; their number."""
    plots = page.locator(f"#{section} [data-plot]")
    for plot in plots.all():
        plot.scroll_into_view_if_needed()
        page.wait_for_function(
            "name => document.querySelector(`[data-plot='${name}']`).dataset.drawn",
            arg=plot.get_attribute("data-plot"),
        )
    return plots.count()


def assert_accessible(page: Any, context: str | None = None) -> None:
    """Axe finds no violation in the page, or in what `context` selects of it."""
    found = Axe().run(page, context=context, options=AXE)
    assert found.violations_count == 0, found.generate_report()


def at_gallery(page: Any) -> Any:
    """The page, once its gallery has its first records."""
    page.locator("#gallery").scroll_into_view_if_needed()
    wait_for(page, "Records 1 to")
    return page


def wait_for(page: Any, text: str) -> None:
    """Until the status line, which screen readers announce, holds the text."""
    page.wait_for_function(
        "text => document.querySelector('#gallery-status').textContent.includes(text)", arg=text
    )


def show(page: Any, view: str) -> None:
    """Choose a view of the gallery."""
    page.locator("#gallery-view").select_option(label=view)


def unfold(page: Any, name: str) -> None:
    """What lies folded above the gallery's cards: Marks, Answers, About, and Filters on a phone."""
    page.locator("#gallery").get_by_role("button", name=name, exact=True).click()

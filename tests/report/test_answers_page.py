"""The answers in a real browser: filters, flips between two runs, whole pictures, hostile texts."""

from __future__ import annotations

import io
import json
from threading import Thread

import pytest
from PIL import Image
from support.answered_runs import finish
from support.report_pages import MARKUP, assert_accessible

from prism_tune.evaluation import finished_answers
from prism_tune.report.build import build_report
from prism_tune.report.question_pictures import QuestionPictures
from prism_tune.report.serving.serve import ReportServer
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir, write_json

pytestmark = pytest.mark.slow

NUM = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """40 questions of two images and choices, the first hostile; pictures of the first pages."""
    folder = tmp_path_factory.mktemp("answered")
    for n in range(NUM + 1):
        Image.new("RGB", (900, 600), (6 * n, 90, 250 - 6 * n)).save(folder / f"{n}.png")
    questions = [
        {
            "question_id": f"q{n}",
            "image": [f"{n}.png", f"{n + 1}.png"],
            "question": f"What is the otter number {n}?",
            "choices": ["a fish", f"a stone {n}"],
            "answer": "AB"[n % 2],
            "category": ("sea", "land")[n // 20],
        }
        for n in range(NUM)
    ]
    questions[0] |= {"question": f"</script>{MARKUP}", "choices": [MARKUP, "b"], "category": MARKUP}
    questions[1]["image"] = ["../secret.png"]
    (folder / "own.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
    now = [MARKUP, *("A" if n < 30 else None for n in range(1, NUM))]
    before = ["A", *("B" for _ in range(1, NUM))]
    path = folder / "own.jsonl"
    finish(folder / "now", "own", path, now, metric="letter")
    finish(folder / "before", "own", path, before, metric="letter")
    language = RunDir(folder / "now").benchmark("mmlu") / "results.json"
    result = {"benchmark": "mmlu", "metrics": {"acc": 1.0}, "num_examples": 1}
    write_json(language, {**result, "num_missing": 0, "profile": "llava15"})
    runs = [RunDir(folder / name) for name in ("now", "before")]
    build_report(runs, source=finished_answers)
    return runs[0]


def at_answers(page):
    page.locator("#answers").scroll_into_view_if_needed()
    page.locator("#answers-form").scroll_into_view_if_needed()
    wait_for(page, "Questions 1 to 12 of 40")
    return page


def wait_for(page, text):
    page.wait_for_function(
        "text => document.querySelector('#answers-status').textContent.includes(text)", arg=text
    )


def widths(dialog):
    """Of its pictures, once they are there."""
    script = "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth)))"
    return dialog.locator("img").evaluate_all(script)


def test_filters_and_flips(run, open_page):
    page = at_answers(open_page(run.root / "report"))
    assert "lm-eval asked it" in page.locator("#answers details").text_content()
    page.get_by_label("Change").select_option(label="right before, wrong now (20)")
    wait_for(page, "Questions 1 to 12 of 20")
    card = page.locator("#answers-list li").nth(1)
    assert card.locator(".badge").all_inner_texts() == ["Wrong", "Right before, wrong now"]
    assert card.locator("dd").all_inner_texts() == ["B", "B", "A"]
    page.get_by_label("Answer", exact=True).select_option(label="no answer (10)")
    wait_for(page, "Questions 1 to 5 of 5")
    page.get_by_label("Find").fill("NUMBER otter 31")
    page.keyboard.press("Enter")
    wait_for(page, "Questions 1 to 1 of 1")
    page.get_by_label("Find").fill("")
    page.get_by_label("Change").select_option("")
    page.get_by_label("Answer", exact=True).select_option("")
    page.get_by_label("Category").select_option(label="land (20)")
    wait_for(page, "Questions 1 to 12 of 20")
    page.get_by_label("Before").select_option("")
    wait_for(page, "Questions 1 to 12 of 20")
    assert page.get_by_label("Change").is_disabled()


def test_a_question_is_opened_by_keyboard_with_all_images_and_choices(run, open_page):
    page = at_answers(open_page(run.root / "report"))
    page.locator("#answers-list h3 a").nth(2).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="What is the otter number 2?")
    dialog.wait_for()
    assert "A. a fish\nB. a stone 2" in dialog.locator(".text").first.inner_text()
    assert dialog.locator("h4 .badge").all_inner_texts() == ["Wrong", "Right"]
    assert widths(dialog) == [640, 640]
    page.keyboard.press("ArrowRight")
    page.get_by_role("dialog", name="What is the otter number 3?").wait_for()
    assert widths(dialog.page.locator("dialog[open]")) == [640, 640]
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('#answers-record').open")
    page.wait_for_function("() => location.hash === '#answers'")  # by an event behind the closing


def test_hostile_texts_are_text(run, open_page):
    page = at_answers(open_page(run.root / "report"))
    page.evaluate("() => { location.hash = '#question/own/0' }")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert MARKUP in dialog.locator(".text").first.text_content()
    assert page.locator("#answers script, #answers img[src='x']").count() == 0
    assert page.title() == "now · prism_tune report"
    assert dialog.evaluate("d => d.scrollWidth <= d.clientWidth")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_accessible_with_and_without_a_question_open(run, open_page, width, theme):
    page = at_answers(open_page(run.root / "report", width=width, theme=theme))
    assert_accessible(page, "#answers")
    page.locator("#answers-list h3 a").nth(2).click()
    page.locator("dialog[open]").wait_for()
    assert_accessible(page, "dialog[open]")
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


def test_pictures_are_drawn_by_benchmark_row_and_place(run):
    pictures = QuestionPictures(run, finished_answers)
    with ReportServer(FinishedRun(run), run.root / "report", "127.0.0.1", 0, pictures) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        drawn = server.answer("/answers/own/25-1.webp")
        assert Image.open(io.BytesIO(drawn.body)).size == (640, 427)
        outside = server.answer("/answers/own/1-0.webp")  # a path out of the image folder
        assert Image.open(io.BytesIO(outside.body)).size == (192, 144)
        for path in ("own/40-0", "own/2-2", "pope/0-0", "../0-0", "own/-1-0", "mmlu/0-0"):
            assert server.answer(f"/answers/{path}.webp") is None
        server.shutdown()


def test_without_annotations_and_without_answers_it_is_said(tmp_path):
    path = tmp_path / "test.json"
    row = {"question_id": "q", "image": "1.png", "text": "what?", "answer": "red", "category": "c"}
    path.write_text(json.dumps([row]))
    run = RunDir(finish(tmp_path / "run", "quickstart", path, ["red"]))
    path.unlink()
    page = build_report([run], source=finished_answers)
    assert "no image, reference and category" in page.read_text()
    (run.benchmark("quickstart") / "predictions.jsonl").unlink()
    assert "None of this run&#39;s benchmarks has answers" in build_report(
        [run], source=finished_answers
    ).read_text().replace("'", "&#39;")

"""The gallery as a workbench: marks to a file that a selection reads, groups, words, pictures."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.drawn_runs import draw_records, write_drawn_run
from support.report_pages import at_gallery, prism_tune, show, unfold, wait_for

from prism_tune.report.build import build_report
from prism_tune.report.sections import gallery
from prism_tune.results.runs import FinishedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The drawn run and its page; record 4 has a second image, record 5 eight turns."""
    records = draw_records()
    records[4]["image"] = ["4.png", "9.png"]
    records[4]["conversations"][0]["value"] = "<image>\n<image>\nWhich of the two is greener?"
    records[5]["conversations"] += draw_records()[5]["conversations"]
    records[5]["conversations"][4]["value"] = "And the last of the otters?"
    records[5]["conversations"][7]["value"] = "The last words."
    run = write_drawn_run(tmp_path_factory.mktemp("marks"), records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "RELATIVE_COSINE", 0.8)  # of eight drawn numbers each
        build_report([run])
    return FinishedRun(run)


@pytest.fixture
def page(run, open_page):
    return at_gallery(open_page(run.run.root / "report"))


def find(page, text):
    page.locator("#gallery-text").fill(text)
    page.keyboard.press("Enter")
    wait_for(page, f"Found “{text}”")


def ids(page):
    return page.locator("#gallery-list h3").all_inner_texts()


def open_record(page, run, name):
    row = run.records.ids.to_pylist().index(name)
    page.evaluate("uid => { location.hash = uid }", run.records.uid(row))
    dialog = page.get_by_role("dialog", name=name)
    dialog.wait_for()
    return dialog


def close(page):
    page.keyboard.press("Escape")
    page.wait_for_function("() => location.hash === '#gallery'")  # by an event behind the closing


def download(page, folder):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download marks").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_marks_of_the_page_decide_the_next_selection(runs, report, open_page, tmp_path):
    """From the browser through the file to the subset, by card, by keyboard and by search."""
    page = at_gallery(open_page(report))
    card = page.locator("#gallery-list > li").first
    dropped = card.locator("h3").inner_text()
    assert card.locator(".badge").inner_text() == "Dropped"
    card.get_by_role("button", name="Keep").click()
    second = page.locator("#gallery-list > li").nth(1)
    second.locator("h3 a").focus()
    page.keyboard.press("l")
    find(page, "shape-1")
    found = int(page.locator("#gallery-listed").inner_text().split()[1])
    assert found > 5
    unfold(page, "Marks")
    page.locator(".marks-all").get_by_role("button", name="Drop").click()
    text = f"Marked: 1 keep, {found} drop, 1 look again."
    page.wait_for_function(
        "text => document.querySelector('#gallery-marks').textContent === text", arg=text
    )
    file = download(page, tmp_path)
    assert file.name == "marks-tiny.json"
    marks = json.loads(file.read_text())
    assert {kind: len(uids) for kind, uids in marks.items()} == {
        "keep": 1,
        "drop": found,
        "look_again": 1,
    }
    config = str(runs.parent / "tiny.yaml")
    lists = [f"selection.must_{kind}={file}" for kind in ("keep", "drop")]
    prism_tune("select", config, "name=marked", *lists)
    scores = pq.read_table(runs / "marked" / "selection" / "scores.parquet").to_pydict()
    kept = dict(zip(scores["uid"], scores["selected"], strict=True))
    reason = dict(zip(scores["uid"], scores["reason"], strict=True))
    assert [(kept[uid], reason[uid]) for uid in marks["keep"]] == [(True, "must_keep")]
    assert {(kept[uid], reason[uid]) for uid in marks["drop"]} == {(False, "must_drop")}
    assert scores["id"][scores["uid"].index(marks["keep"][0])] == dropped


def test_marks_are_remembered_undone_and_read_again(page, run, tmp_path):
    card = page.locator("#gallery-list > li").first
    keep = card.get_by_role("button", name="Keep")
    keep.click()
    page.reload()
    at_gallery(page)
    assert keep.get_attribute("aria-pressed") == "true"
    file = download(page, tmp_path)
    unfold(page, "Marks")
    page.get_by_role("button", name="Clear").click()
    assert keep.get_attribute("aria-pressed") == "false"
    assert page.locator("#gallery-marks").inner_text() == "Nothing is marked."
    page.get_by_role("button", name="Undo").click()
    assert keep.get_attribute("aria-pressed") == "true"
    keep.click()  # a second press takes it away
    assert keep.get_attribute("aria-pressed") == "false"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"drop": [run.records.uid(7), "0" * 32]}))
    page.get_by_label("Read marks").set_input_files(file)
    wait_for(page, "2 marks read; 1 are of no record of this pool")
    page.get_by_label("Mark", exact=True).select_option("drop")
    wait_for(page, "of 1")
    assert ids(page) == ["record-7"]
    file.write_text("no JSON")
    page.get_by_label("Read marks").set_input_files(file)
    wait_for(page, "no file of marks")


def test_near_duplicates_are_shown_and_marked_as_a_group(page, run):
    show(page, "Near-duplicates")
    wait_for(page, "of 81")
    button = page.locator("#gallery-list .group-button").first
    assert button.inner_text().startswith("3 alike, ")
    button.click()
    wait_for(page, "of 3")
    numbers = sorted(int(name.removeprefix("record-")) for name in ids(page))
    assert numbers == [numbers[0], numbers[0] + 30, numbers[0] + 60]
    unfold(page, "Marks")
    page.locator(".marks-all").get_by_role("button", name="Look again").click()
    assert page.locator("#gallery-marks").inner_text().endswith("3 look again.")
    page.get_by_role("button", name="show all again").click()
    wait_for(page, "of 81")
    page.get_by_label("Cluster", exact=True).select_option("1")
    shown = page.locator("#gallery-cluster option:checked").inner_text()
    show(page, "Clusters")
    wait_for(page, f"of {shown.split()[1]}")


def test_dropped_records_without_a_kept_relative_come_with_a_warning(page, run):
    page.get_by_role("button", name="Show them").click()
    page.wait_for_function("() => document.querySelector('#gallery-list .alone')")
    assert set(page.locator("#gallery-list .badge").all_inner_texts()) == {"Dropped"}
    said = page.locator("#gallery-list .alone").all_inner_texts()
    cosines = [float(text.rpartition(" ")[2].replace("\u2212", "-")) for text in said]
    assert cosines == sorted(cosines)
    assert max(cosines) < 0.8
    assert len(said) == len(ids(page))
    notice = page.locator("#gallery > .notice").inner_text()
    dropped = int((~run.records.selected_N & run.records.is_ranked_N).sum())
    assert f"of all {dropped} dropped records" in notice


def test_every_word_is_found_and_marked(page):
    find(page, 'doing "tram number"')
    wait_for(page, "of 13")
    marked = page.locator("#gallery-list > li").first.locator("mark").all_inner_texts()
    assert marked == ["tram number", "doing"]
    find(page, "last words otters")  # a late turn: the whole of a small pool is searched
    assert ids(page) == ["record-5"]
    assert "The last words." in page.locator("#gallery-list > li").inner_text()
    find(page, "otters tram")
    wait_for(page, "No records")


def test_a_record_shows_all_of_its_turns_and_pictures(page, run):
    dialog = open_record(page, run, "record-5")
    assert dialog.locator(".turns dd").count() == 8
    assert dialog.locator("h4").first.inner_text().startswith("Closest kept records")
    close(page)
    dialog = open_record(page, run, "record-4")
    assert dialog.locator(".picture-button img").count() == 2
    first = page.locator("#gallery-list h3 a").first
    close(page)
    first.click()
    before = page.locator("#gallery-record-title").inner_text()
    page.get_by_role("button", name="Next record").click()
    page.wait_for_function(
        "before => document.querySelector('#gallery-record-title').textContent !== before",
        arg=before,
    )
    page.keyboard.press("k")
    assert page.locator("dialog .mark-keep").get_attribute("aria-pressed") == "true"


def test_the_full_picture_comes_from_the_image_folder(run, browser):
    """From disk, where the folder is where it was; and on a phone the menu has every section."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto((run.run.root / "report" / "index.html").resolve().as_uri())
    page.get_by_role("button", name="Sections").click()
    links = page.locator(".bar nav a")
    assert links.count() == len(page.locator("main > section").all()) > 4
    assert all(link.is_visible() for link in links.all())
    links.filter(has_text="Gallery").click()
    assert not links.first.is_visible()
    wait_for(page, "Records 1 to")
    open_record(page, run, "record-4")
    button = page.locator(".picture-button").nth(1)
    button.click()
    image = button.locator("img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
    assert image.get_attribute("src").endswith("pool/images/9.png")
    button.click()
    assert "/thumbs/" in button.locator("img").evaluate("image => image.src")
    context.close()


def test_a_click_on_the_map_opens_the_record(page, run):
    plot = page.locator('[data-plot="geometry.map"]')
    plot.scroll_into_view_if_needed()
    plot.locator(".point").first.wait_for()
    point = page.evaluate("() => PRISM.data.geometry.points[0]")
    page.evaluate(
        """() => {
          const plot = document.querySelector('[data-plot="geometry.map"]');
          plot.emit("plotly_click", { points: [{ customdata: 0 }] });
        }"""
    )
    page.get_by_role("dialog", name=point["id"]).wait_for()
    assert page.url.endswith(f"#{point['uid']}")


def test_short_answers_stand_in_a_table(tmp_path):
    """Sixty yes, forty no; the lowest scores are kept, which are those of the yes."""
    records = draw_records(60)
    for number, record in enumerate(records):
        answer = "Yes." if number % 3 else "a long answer of many more words than three"
        record["source"] = "one"
        record["conversations"][1]["value"] = answer
    run = write_drawn_run(tmp_path, records)
    html = build_report([run]).read_text()
    rows = html.partition('id="gallery-answers-caption"')[2].partition("</table>")[0]
    cells = [part.partition("<")[0] for part in rows.split(">") if part.partition("<")[0].strip()]
    kept = np.array(FinishedRun(run).records.selected_N)
    yes = sum(bool(kept[number]) for number in range(60) if number % 3)
    assert cells[cells.index("yes") + 1 : cells.index("yes") + 4] == ["40", str(yes), "66.7 %"]
    assert cells[cells.index("(others, and longer ones)") + 1] == "20"

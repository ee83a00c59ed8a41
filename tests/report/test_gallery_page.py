"""The gallery in a real browser: orders, filters, search, pages, neighbours, hostile records."""

from __future__ import annotations

import base64
import gzip
import json
import re
from threading import Thread

import pytest
from PIL import Image
from support.drawn_runs import NUM_RECORDS, draw_records, write_drawn_run
from support.report_pages import MARKUP, assert_accessible, at_gallery, show, unfold, wait_for

from prism_tune.features.closest import Candidates, find_neighbours
from prism_tune.report import cards, views
from prism_tune.report.build import build_report
from prism_tune.report.sections import gallery
from prism_tune.report.serving.serve import ReportServer
from prism_tune.report.views import find_cut, order_views, uid_numbers
from prism_tune.results.runs import FinishedRun

HOSTILE_TEXTS = (
    f"</script>{MARKUP}",
    "\"'`${document.title='hacked'}{{7*7}}\u2028document.title='hacked'//\u2029",
    "\u202egnp.exe \u2066\u200f to the left",
    "javascript:document.title='hacked'",
    "W" * 3000,
    "-->\x07\x1b[31m &lt;b&gt; <!-- ]]>",
)
HOSTILE_FILES = (
    "'\"><img src=x onerror=document.title='hacked'>.png",
    "\u202egnp.\u2028.png",
    "a b%2e%2e#?&amp;.png",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The drawn run with its page, in chunks of 40 records, with 8 of its 90 prepared."""
    run = write_drawn_run(tmp_path_factory.mktemp("gallery"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (cards, gallery):
            patch.setattr(module, "CHUNK_RECORDS", 40)
        choose = gallery.choose_prepared
        patch.setattr(gallery, "choose_prepared", lambda *given: choose(*given)[:8])
        patch.setattr(views, "PREPARED_RECORDS", 0)
        patch.setattr(gallery.Relatives, "find_lonely", lambda relatives: [])
        build_report([run])
    return FinishedRun(run)


@pytest.fixture
def page(run, open_page):
    return at_gallery(open_page(run.run.root / "report"))


def test_a_thumbnail_is_shown_whole(page):
    """Square images in wide frames: nothing of them is cut off."""
    page.wait_for_function("() => document.querySelector('#gallery .thumb img')?.naturalWidth > 0")
    heights = page.evaluate(
        "[...document.querySelectorAll('#gallery .card > .thumb img')]"
        ".map((image) => [image.clientHeight, image.parentElement.clientHeight])"
    )
    assert heights
    assert all(image <= frame for image, frame in heights)


def ids(page):
    return page.locator("#gallery-list h3").all_inner_texts()


def names(run, rows):
    return [run.records.ids[int(row)].as_py() for row in rows]


def unprepared_row(run):
    """A record with an image that the page has neither a thumbnail nor neighbours of."""
    text = (run.run.root / "report/data/gallery-prepared.js").read_text().partition(" = ")[2]
    prepared = json.loads(gzip.decompress(base64.b64decode(json.loads(text.removesuffix(";\n")))))
    known = prepared["cards"] | prepared["stubs"]
    return next(row for row in range(NUM_RECORDS) if str(row) not in known and row % 10)


def orders(run):
    cut = find_cut(run.records, per_source=True)
    return order_views(run.records, cut, uid_numbers(run.records))


def test_the_page_orders_as_the_run_says(page, run):
    views = [
        ("Most redundant", "high", 81),
        ("Least redundant", "low", 81),
        ("Around the cut", "cut", 81),
        ("Random draw", "draw", 90),
    ]
    for label, view, number in views:
        expected = names(run, orders(run)[view][:36])
        show(page, label)
        page.wait_for_function(  # two views have as many: the count alone may be the last one's
            "name => document.querySelector('#gallery-list h3')?.innerText === name",
            arg=expected[0],
        )
        wait_for(page, f"of {number}")
        seen = []
        for _ in range(3):
            seen += ids(page)
            page.get_by_role("button", name="Next").click()
            wait_for(page, f"Records {len(seen) + 1} to")
        assert seen == expected, label


def test_a_card_says_what_the_run_says(page, run):
    row = int(orders(run)["high"][0])
    card = page.locator("#gallery-list li").first
    assert card.locator(".badge").inner_text() == "Dropped"
    assert card.locator(".source").inner_text() == run.records.sources[row]
    rank = run.records.rank_N[row]
    assert card.locator(".standing").inner_text() == (
        f"score 1, rank {rank} of 27 in its source; the first 13 are kept"
    )
    question = draw_records()[row]["conversations"][0]["value"].removeprefix("<image>\n")
    assert card.locator("dd").first.inner_text() == question
    assert card.locator("img").first.evaluate("image => image.naturalWidth") == 48


def test_filters_by_source_and_verdict(page, run):
    page.get_by_label("Source", exact=True).select_option("charts (30)")
    page.get_by_label("Verdict").select_option(label="dropped (42)")
    shown = [
        row
        for row in orders(run)["high"]
        if run.records.sources[row] == "charts" and not run.records.selected_N[row]
    ]
    wait_for(page, f"Records 1 to 12 of {len(shown)}")
    assert ids(page) == names(run, shown[:12])
    assert set(page.locator("#gallery-list .source").all_inner_texts()) == {"charts"}
    assert set(page.locator("#gallery-list .badge").all_inner_texts()) == {"Dropped"}


def test_search_reads_every_chunk(page, run):
    """Every seventh record is an otter; the pool's order, across three chunks."""
    page.get_by_label("Find").fill("the OTTER number")
    page.keyboard.press("Enter")
    wait_for(page, "Found “the OTTER number”. Records 1 to 12 of 13")
    assert ids(page) == [f"record-{number}" for number in range(3, 87, 7)]
    page.get_by_label("Verdict").select_option("1")
    kept = [row for row in range(3, NUM_RECORDS, 7) if run.records.selected_N[row]]
    wait_for(page, f"of {len(kept)}")
    assert ids(page) == names(run, kept)[:12]
    page.get_by_label("Find").fill("no such words")
    page.get_by_role("button", name="Search").click()
    wait_for(page, "No records")
    assert page.locator("#gallery-list li").count() == 0
    show(page, "Least redundant")
    wait_for(page, "Records 1 to 12")
    assert page.get_by_label("Find").input_value() == ""


def test_search_by_uid_image_or_id(page, run):
    uid = run.records.uid(88)[:20]
    alike = ["record-28", "record-58", "record-88"]
    for text, found in ((uid, ["record-88"]), ("28.png", alike), ("CORD-88", ["record-88"])):
        page.get_by_label("Find").fill(text)
        page.keyboard.press("Enter")
        wait_for(page, f"Found “{text}”")
        assert ids(page) == found


def test_arrow_keys_turn_the_page_and_it_is_announced(page):
    status = page.locator("#gallery-status")
    assert status.get_attribute("aria-live") == "polite"
    page.locator("#gallery-list").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    wait_for(page, "Records 13 to 24 of 81")
    assert page.locator("#gallery-page").inner_text() == "Page 2 of 7"
    page.locator("#gallery-list h3 a").first.focus()
    page.keyboard.press("ArrowRight")
    wait_for(page, "Records 25 to 36 of 81")
    assert page.evaluate("() => document.activeElement.id") == "gallery-list"
    page.keyboard.press("ArrowLeft")
    wait_for(page, "Records 13 to 24 of 81")
    page.get_by_label("Find").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#gallery-view").focus()
    page.keyboard.press("ArrowRight")  # the next view, not the next page
    wait_for(page, "Records 1 to 12 of 81")
    assert page.locator("#gallery-view option:checked").inner_text() == "Least redundant"


def test_the_last_page_is_the_last(page):
    for _ in range(6):
        page.get_by_role("button", name="Next").click()
    wait_for(page, "Records 73 to 81 of 81")
    assert page.get_by_role("button", name="Next").is_disabled()
    page.locator("#gallery-list").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#gallery-list > li").count() == 9


def test_a_record_and_its_neighbours_are_opened_by_keyboard(page, run):
    row = int(orders(run)["high"][2])
    records = run.records
    candidates = Candidates(
        run.features, records.is_ranked_N, records.selected_N, records.sources.codes_N
    )
    expected = find_neighbours(candidates, run.config.selection.centering, [row])[row]
    assert expected.nearest != expected.nearest_kept
    page.locator("#gallery-list h3 a").nth(2).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=f"{run.records.ids[row].as_py()}")
    dialog.wait_for()
    assert page.url.endswith(f"#{run.records.uid(row)}")
    kept = dialog.locator("section").first
    assert kept.locator("h4").inner_text() == "Closest kept records in its source, by cosine"
    seen = [float(text.replace("\u2212", "-")) for text in kept.locator("strong").all_inner_texts()]
    assert seen == pytest.approx([n.cosine for n in expected.nearest_kept], abs=0.0051)
    assert dialog.locator("h4").last.inner_text() == "Same image: 2 other records of the pool"
    neighbour = kept.locator("a").first
    neighbour.focus()
    page.keyboard.press("Enter")
    name = names(run, [expected.nearest_kept[0].row])[0]
    page.get_by_role("dialog", name=name).wait_for()
    page.go_back()
    page.get_by_role("dialog", name=names(run, [row])[0]).wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('dialog').open")
    page.wait_for_function("() => location.hash === '#gallery'")  # by an event behind the closing


def test_links_to_records(page, run):
    """Of one that is not prepared, and of one that is not there."""
    row = unprepared_row(run)
    index = page.url.partition("#")[0]
    page.goto("about:blank")
    page.goto(f"{index}#{run.records.uid(row)}")
    dialog = page.get_by_role("dialog", name=names(run, [row])[0])
    dialog.wait_for()
    assert "`" not in dialog.inner_text()
    assert "prism-tune report RUN --serve works them out for every record" in dialog.inner_text()
    assert "2 more turns" in dialog.inner_text()
    page.goto("about:blank")
    other = run.records.uid(row)[:8] + "0" * 24
    page.goto(f"{index}#{other}")
    wait_for(page, f"No record of this pool has the uid {other}")


def test_the_theme_is_switched_under_the_gallery(page):
    card = page.locator("#gallery-list li").first
    colour = "element => getComputedStyle(element).backgroundColor"
    before = card.evaluate(colour)
    page.get_by_role("button", name="Dark theme").click()
    assert card.evaluate(colour) != before
    assert_accessible(page, "#gallery-list")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_accessible_with_and_without_a_record_open(run, open_page, width, theme):
    page = at_gallery(open_page(run.run.root / "report", width=width, theme=theme))
    assert_accessible(page, "#gallery")
    page.locator("#gallery-list h3 a").first.click()
    page.locator("dialog[open]").wait_for()
    assert_accessible(page, "dialog")
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    assert page.locator("dialog").evaluate("d => d.scrollWidth <= d.clientWidth")


@pytest.mark.parametrize(("width", "height", "pictures"), [(1440, 900, 8), (390, 844, 1)])
def test_the_first_screen_shows_pictures(run, open_page, width, height, pictures):
    """The controls stand in one row, or on a phone folded; four pictures are whole, four begin."""
    page = open_page(run.run.root / "report", width=width)
    page.set_viewport_size({"width": width, "height": height})
    at_gallery(page)
    page.evaluate("() => { location.hash = 'gallery' }")
    tops = "all => all.map(thumb => thumb.getBoundingClientRect().top)"
    first = page.locator("#gallery-list .card > .thumb").evaluate_all(tops)
    assert sum(top < 0.9 * height for top in first) >= pictures
    assert first[0] < height / 2
    source = page.get_by_label("Source", exact=True)
    assert source.is_visible() == (width > 390)
    if width == 390:
        unfold(page, "Filters")
        source.select_option("charts (30)")
        wait_for(page, "of 27")
        assert page.locator("#gallery-filtered").inner_text() == "Filters (1)"


def test_nothing_moves_while_records_arrive(run, open_page):
    page = open_page(run.run.root / "report")
    height = "() => document.querySelector('#gallery').offsetHeight"
    before = page.evaluate(height)
    at_gallery(page)
    page.locator("#gallery-list").focus()
    page.keyboard.press("ArrowRight")
    wait_for(page, "Records 13 to")
    assert page.evaluate(height) == before


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    records = draw_records(20)
    for number, text in enumerate(HOSTILE_TEXTS):
        file = HOSTILE_FILES[number % len(HOSTILE_FILES)]
        turns = [("human", f"<image>\n{text}"), ("gpt", text)]
        records.append(
            {
                "id": f"{text}\ud800",
                "source": text,
                "image": file,
                "conversations": [{"from": role, "value": value} for role, value in turns],
            }
        )
    run = write_drawn_run(folder, records)
    for file in HOSTILE_FILES:
        Image.new("RGB", (40, 30), "red").save(folder / "pool" / "images" / file)
    build_report([run])
    return FinishedRun(run)


def test_hostile_records_are_text(hostile, open_page):
    page = at_gallery(open_page(hostile.run.root / "report"))
    title = page.title()
    show(page, "Random draw")
    wait_for(page, "of 26")
    for row in range(20, 26):
        text = HOSTILE_TEXTS[row - 20]
        page.evaluate("uid => { location.hash = uid }", hostile.records.uid(row))
        page.wait_for_function(
            "id => document.querySelector('#gallery-record-title').textContent === id",
            arg=f"{text}\\ud800",
        )
        dialog = page.locator("dialog")
        shown = dialog.locator(".turns dd").first.evaluate("element => element.textContent")
        assert shown == cards.shorten(f"<image>\n{text}", cards.PREPARED_CHARACTERS)
        file = HOSTILE_FILES[(row - 20) % 3]
        assert file in dialog.locator(".facts").evaluate("element => element.textContent")
        image = dialog.locator(".record-head img")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
        assert image.get_attribute("alt") == f"Image {file}"
        assert dialog.evaluate("d => d.scrollWidth <= d.clientWidth")
    page.keyboard.press("Escape")
    page.get_by_label("Find").fill(MARKUP)
    page.keyboard.press("Enter")
    wait_for(page, f"Found “{MARKUP}”. Records 1 to 1 of 1")
    assert page.locator("#gallery script, #gallery img[src='x'], #gallery b").count() == 0
    assert page.title() == title
    assert page.evaluate("() => document.documentElement.scrollWidth") == 1280


def test_a_writing_direction_ends_with_its_text(hostile, open_page):
    """The override of a record's text does not turn the words behind it."""
    page = at_gallery(open_page(hostile.run.root / "report"))
    page.evaluate("uid => { location.hash = uid }", hostile.records.uid(22))
    page.locator("dialog[open]").wait_for()
    elements = page.locator("dialog bdi, dialog dd[dir], dialog h3").all()
    assert elements
    for element in elements:
        assert element.evaluate("e => getComputedStyle(e).unicodeBidi") == "isolate"


def test_served_every_record_has_a_thumbnail(run, browser):
    """Of a record whose thumbnail the page on disk does not have."""
    with ReportServer(run, run.run.root / "report", "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        faults = []
        page = browser.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url)
        at_gallery(page)
        row = unprepared_row(run)
        page.goto(f"{server.url}#{run.records.uid(row)}")
        image = page.locator(".record-head img").first
        image.wait_for()
        assert re.fullmatch(r"thumbs/[0-9a-f]{32}-0\.webp", image.get_attribute("src"))
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
        page.close()
        server.shutdown()
    assert faults == []

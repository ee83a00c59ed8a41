"""What the gallery is given: orders by hand, cards, and every record in some chunk."""

from __future__ import annotations

import base64
import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from support.drawn_runs import NUM_RECORDS, draw_records, write_drawn_run

from prism_tune.report import cards, views
from prism_tune.report.cards import describe_record, shorten
from prism_tune.report.section import PageFolder
from prism_tune.report.sections import gallery
from prism_tune.report.views import (
    choose_prepared,
    find_cut,
    order_labelled,
    order_views,
    uid_numbers,
)
from prism_tune.results.records import Categories, RecordTable
from prism_tune.results.runs import FinishedRun
from prism_tune.run.stage import Stage
from prism_tune.schema import Record, Turn


def table(scores, ranks, kept, sources=None):
    number = len(scores)
    sources = np.asarray(sources or [0] * number, dtype=np.int32)
    uids = pa.chunked_array([[f"{number - row:08x}{row:024x}" for row in range(number)]])
    return RecordTable(
        uids=uids,
        ids=uids,
        sources=Categories(tuple(f"s{code}" for code in range(sources.max() + 1)), sources),
        reasons=Categories(("selected",), np.zeros(number, dtype=np.int32)),
        score_N=np.array(scores, dtype=np.float64),
        rank_N=np.array(ranks, dtype=np.int64),
        selected_N=np.array(kept, dtype=bool),
        feature_keys=None,
    )


def unpack(path):
    text = path.read_text()
    name, _, value = text.removesuffix(";\n").partition(" = ")
    return name, gzip.decompress(base64.b64decode(json.loads(value)))


def orders_of(records, *, per_source=False):
    cut = find_cut(records, per_source=per_source)
    found = order_views(records, cut, uid_numbers(records))
    return {name: rows.tolist() for name, rows in found.items()}


def test_orders_by_hand():
    """Uids count down, so of equal keys the later row comes first; row 2 is text-only."""
    records = table([0.1, 0.5, np.nan, 0.5, -0.2], [2, 3, 0, 4, 1], [1, 0, 1, 0, 1])
    orders = orders_of(records)
    assert orders["high"] == [3, 1, 0, 4]
    assert orders["low"] == [4, 0, 3, 1]
    assert orders["cut"] == [1, 0, 4, 3]  # 2 of 4 kept: distances 0.5, 0.5, 1.5, 1.5
    assert orders["draw"] == [4, 3, 2, 1, 0]


def test_the_cut_is_each_sources_own():
    """Source 0 keeps 1 of 2, source 1 keeps 3 of 4: distances 1/4, 1/4 and 5/8, 3/8, 1/8, 1/8."""
    records = table(
        [0, 1, 0, 1, 2, 3], [1, 2, 1, 2, 3, 4], [1, 0, 1, 1, 1, 0], sources=[0, 0, 1, 1, 1, 1]
    )
    assert orders_of(records, per_source=True)["cut"] == [5, 4, 1, 0, 3, 2]


def test_a_small_pool_is_prepared_as_a_whole():
    records = table([0.1, 0.5, np.nan], [1, 2, 0], [1, 0, 1])
    assert choose_prepared(records, {}) == [0, 1, 2]


def test_labels_in_order_with_kept_records_first():
    """Rows 1 and 3 are alike, and so are 0, 2 and 4; row 5 is like none."""
    label_N = np.array([1, 2, 1, 2, 1, 0], dtype=np.int32)
    kept_N = np.array([0, 1, 1, 0, 0, 1], dtype=bool)
    numbers_N = np.array([9, 1, 5, 0, 3, 2], dtype=np.uint32)
    assert order_labelled(label_N, kept_N, numbers_N).tolist() == [2, 4, 0, 1, 3]


def test_prepared_are_the_first_of_each_view_source_and_verdict(monkeypatch):
    monkeypatch.setattr(views, "PREPARED_RECORDS", 0)
    number = 400
    scores = np.arange(number) / number
    sources = [row % 4 for row in range(number)]
    kept = [row < 100 for row in range(number)]
    records = table(scores, np.arange(number) + 1, kept, sources)
    cut = find_cut(records, per_source=False)
    prepared = choose_prepared(records, order_views(records, cut, uid_numbers(records)))
    assert len(prepared) == len(set(prepared))
    expected = {*range(364, 400), *range(36)}  # the highest scores, the lowest
    expected |= set(range(82, 118))  # around the cut
    for code in range(4):
        expected |= {*range(352 + code, 400, 4), *range(code, 48, 4)}
    expected |= {*range(88, 112)}  # kept ones of the highest scores, dropped ones of the lowest
    assert expected <= set(prepared)
    assert len(prepared) < 250


def test_a_card_holds_the_beginning_of_a_record():
    record = Record(
        "u", "i", "s", ("a.png",), (Turn("human", "x" * 300), Turn("gpt", "y"), Turn("human", "z"))
    )
    uid, name, images, turns, num_turns = describe_record(record)
    assert (uid, name, images, num_turns) == ("u", "i", ("a.png",), 3)
    assert turns == [["human", "x" * 239 + "…"], ["gpt", "y"]]


def test_a_records_own_system_line_comes_first():
    turns = (Turn("human", "what?"), Turn("gpt", "red"))
    record = Record("uid", "7", "shop", (), turns, system="Be brief.")
    _, _, _, shown, num_turns = describe_record(record)
    assert shown == [["system", "Be brief."], ["human", "what?"]]
    assert num_turns == 3


def test_scattered_records_come_in_order_over_several_mappings(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "_ROWS_PER_MAPPING", 3)
    pool = FinishedRun(write_drawn_run(tmp_path)).pool
    rows = [7, 0, 5, 5, 9, 2, 1]
    found = list(cards.read_scattered(pool, rows))
    assert [row for row, _ in found] == rows
    assert [record.uid for _, record in found] == [pool.uids[row] for row in rows]


def test_texts_are_cut_between_characters():
    assert shorten("abc", 3) == "abc"
    assert shorten("ab cd", 4) == "ab…"
    assert shorten("\U0001f600" * 3, 2) == "\U0001f600…"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The drawn run and the folder of its gallery, in chunks of 40 records."""
    run = FinishedRun(write_drawn_run(tmp_path_factory.mktemp("gallery")))
    page = PageFolder(tmp_path_factory.mktemp("page"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (cards, gallery):
            patch.setattr(module, "CHUNK_RECORDS", 40)
        return run, page.root, gallery.build(run, page)


@pytest.mark.slow
def test_every_record_is_in_its_chunk(built):
    run, folder, _ = built
    found = []
    for number in range(3):
        name, content = unpack(folder / "data" / f"gallery-{number}.js")
        assert name == f'PRISM.data["gallery-{number}"]'
        found += json.loads(content)
    assert [card[0] for card in found] == run.records.uids.to_pylist()
    assert not (folder / "data" / "gallery-3.js").exists()
    raw = draw_records()[77]
    assert found[77][1:3] == ["record-77", ["17.png"]]
    assert found[77][3] == [
        ["human", raw["conversations"][0]["value"]],
        ["gpt", raw["conversations"][1]["value"]],
    ]
    assert found[77][4] == 4


@pytest.mark.slow
def test_the_columns_lie_one_after_the_other(built):
    run, folder, _ = built
    _, content = unpack(folder / "data" / "gallery-columns.js")
    assert len(content) == 33 * NUM_RECORDS
    words = np.frombuffer(content[: 32 * NUM_RECORDS], dtype="<u4").reshape(8, NUM_RECORDS)
    assert words[0].tolist() == [int(uid[:8], 16) for uid in run.records.uids.to_pylist()]
    scores = words[1].view("<f4")
    np.testing.assert_array_equal(scores, run.records.score_N.astype(np.float32))
    assert words[2].tolist() == run.records.rank_N.tolist()
    assert [run.records.sources.names[code] for code in words[3]] == [
        run.records.sources[row] for row in range(NUM_RECORDS)
    ]
    assert list(content[32 * NUM_RECORDS :]) == run.records.selected_N.tolist()


@pytest.mark.slow
def test_records_that_share_an_image_are_a_group(built):
    """Three records an image, of which every tenth has none; the features are drawn apart."""
    run, folder, _ = built
    _, content = unpack(folder / "data" / "gallery-columns.js")
    group_N, cluster_N = np.frombuffer(content, "<u4", 2 * NUM_RECORDS, 20 * NUM_RECORDS).reshape(
        2, NUM_RECORDS
    )
    closest_N = np.frombuffer(content, "<f4", NUM_RECORDS, 28 * NUM_RECORDS)
    assert group_N[1] == group_N[31] == group_N[61] > 0
    assert np.bincount(group_N)[1:].tolist() == [3] * 27
    assert group_N[10] == cluster_N[10] == 0
    assert sorted(np.unique(cluster_N[group_N > 0])) == [1, 2]
    assert np.isnan(closest_N[10])
    kept_N = run.records.selected_N
    for row in np.flatnonzero(group_N * ~kept_N):
        assert (closest_N[row] == 1) == kept_N[group_N == group_N[row]].any()


@pytest.mark.slow
def test_prepared_records_have_thumbnails_and_neighbours(built):
    run, folder, section = built
    _, content = unpack(folder / "data" / "gallery-prepared.js")
    prepared = json.loads(content)
    assert len(prepared["cards"]) == section.values["num_prepared"]
    for row, card in prepared["cards"].items():
        assert card[0] == run.records.uid(int(row))
        if run.records.is_ranked_N[int(row)]:
            assert (folder / card[5][0]).stat().st_size > 0
            assert len(card[6]["nearest_kept"]) == 4
            named = [n["row"] for kind in ("nearest", "nearest_kept") for n in card[6][kind]]
            for other in [*named, *card[6]["same_image"]]:
                assert str(other) in prepared["cards"] or str(other) in prepared["stubs"]
        else:
            assert card[5:] == [[], None]
    assert len(prepared["cards"]["1"][3]) == 4  # the turns that the chunk leaves out, too


def test_a_run_whose_selection_has_not_finished_says_so(tmp_path):
    run = write_drawn_run(tmp_path)
    Stage(run.audit).finish({}, config=FinishedRun(run).config)
    Stage(run.selection).reopen()
    section = gallery.build(FinishedRun(run), PageFolder(tmp_path / "page"))
    assert section.values["ready"] is False
    assert "has not finished" in section.values["reason"]


def test_a_pool_that_is_gone_is_named(tmp_path):
    run = write_drawn_run(tmp_path)
    (tmp_path / "pool" / "pool.json").unlink()
    section = gallery.build(FinishedRun(run), PageFolder(tmp_path / "page"))
    assert str(tmp_path / "pool" / "pool.json") in section.values["reason"]


@pytest.mark.parametrize("change", [{"scorer": "alignment"}, {"scorer": "length"}])
def test_no_neighbours_are_made_up(tmp_path, change):
    run = FinishedRun(write_drawn_run(tmp_path))
    selection = run.config.selection.model_copy(update=change)
    run.__dict__["config"] = run.config.model_copy(update={"selection": selection})
    if change["scorer"] == "length":
        run.__dict__["features"] = None
    page = PageFolder(tmp_path / "page")
    section = gallery.build(run, page)
    meta = json.loads((page.root / "data" / "gallery.js").read_text().partition(" = ")[2][:-2])
    assert meta["noNeighbours"]
    assert section.values["views"][0] == ("high", "Highest score")
    assert section.values["explained"] == ""


def test_data_scripts_hold_no_markup(tmp_path):
    page = PageFolder(tmp_path)
    page.add_data("x", {"text": "</script><!--\u2028\u2029"})
    content = (tmp_path / "data" / "x.js").read_text()
    assert not set("<\u2028\u2029") & set(content)
    assert json.loads(content.partition(" = ")[2][:-2]) == {"text": "</script><!--\u2028\u2029"}

"""The numbers behind the plots, against hand-computed cases."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.drawn_runs import write_drawn_run

from prism_tune.features.spectrum import effective_rank
from prism_tune.report.feature_sample import FeatureSample, cosine_histogram
from prism_tune.report.numbers import count, large, percent, plot_text, seconds
from prism_tune.report.paper_pool import is_llava_665k, published_share
from prism_tune.report.section import PageFolder
from prism_tune.report.sections import scores
from prism_tune.report.sources import find_cuts
from prism_tune.results.records import Categories, RecordTable
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import read_json, write_json

FOLDERS = ("coco", "gqa", "ocr_vqa", "textvqa", "vg")


def sample(values):
    rows = np.array(values, dtype=np.float64)
    return FeatureSample(np.arange(len(rows)), rows, len(rows))


def scored(values, selected, reasons=None):
    """Records of one source with these scores, verdicts and reasons."""
    uids = pa.chunked_array([[f"{number:032x}" for number in range(len(values))]])
    names = tuple(sorted(set(reasons or ["selected"])))
    codes = [names.index(reason) for reason in reasons or ["selected"] * len(values)]
    return RecordTable(
        uids=uids,
        ids=uids,
        sources=Categories(("s",), np.zeros(len(values), dtype=np.int32)),
        reasons=Categories(names, np.array(codes, dtype=np.int32)),
        score_N=np.array(values),
        rank_N=np.ones(len(values), dtype=np.int64),
        selected_N=np.array(selected, dtype=bool),
        feature_keys=None,
    )


def test_cosines_are_of_all_pairs_and_a_zero_vector_has_none():
    """Pairs: (a, b) 0, (a, c) -1, (b, c) 0, and three with the zero vector."""
    edges, counts_B, mean = cosine_histogram(np.array([[2.0, 0], [0, 3], [-1, 0], [0, 0]]))
    assert counts_B.sum() == 6
    assert (counts_B[0], counts_B[len(counts_B) // 2]) == (1, 5)
    assert (edges[0], edges[-1]) == (-1, 1)
    assert mean == pytest.approx(-1 / 6)


def test_the_spectrum_before_and_after_centring():
    """Three rows on a line through (10, 0): all of the centred length is along y."""
    cone = sample([[10.0, -1], [10, 0], [10, 1]])
    raw, centred = cone.variance_shares(centred=False), cone.variance_shares(centred=True)
    np.testing.assert_allclose(raw[:2], [300 / 302, 2 / 302], atol=1e-12)
    np.testing.assert_allclose(centred, [1, 0, 0], atol=1e-12)
    assert effective_rank(centred) == pytest.approx(1)
    assert effective_rank(np.array([0.25] * 4)) == pytest.approx(4)


def test_the_map_keeps_the_distances_of_flat_features():
    values = np.array([[0.0, 0, 5], [3, 0, 5], [0, 4, 5]])
    points = sample(values).project()
    assert points.shape == (3, 2)
    distances = [np.linalg.norm(points[a] - points[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(distances, [3, 4, 5])


def test_features_without_any_variance_lie_on_one_point():
    points = sample([[1.0, 1]] * 4).project()
    np.testing.assert_allclose(points, np.zeros((4, 2)), atol=1e-12)


@pytest.mark.parametrize(
    ("keep", "selected", "cuts"),
    [
        ("low", [1, 1, 0, 0], (2.5,)),
        ("high", [0, 0, 1, 1], (2.5,)),
        ("middle", [0, 1, 1, 0], (2.0, 3.0)),
        ("low", [1, 1, 1, 1], ()),
        ("low", [0, 0, 0, 0], ()),
    ],
)
def test_the_cut_lies_between_kept_and_dropped(keep, selected, cuts):
    assert find_cuts(scored([1.0, 2, 3, 7], selected), np.arange(4), keep) == cuts


@pytest.mark.parametrize(
    ("keep", "selected", "cuts"),
    [("low", [1, 1, 0, 0, 1], (2.5,)), ("middle", [0, 1, 1, 0, 1], (2.0, 3.0))],
)
def test_what_a_list_had_kept_lies_beside_the_cut(keep, selected, cuts):
    """The last record is kept though its score, 9, is beyond the cut."""
    reasons = [*(("below_cut", "selected")[kept] for kept in selected[:-1]), "must_keep"]
    records = scored([1.0, 2, 3, 7, 9], selected, reasons)
    assert find_cuts(records, np.arange(5), keep) == cuts


def rescore(run, scores_N, **selection):
    """The run's records with these scores, the lowest half of the ranked ones kept."""
    path = run.selection / "scores.parquet"
    table = pq.read_table(path)
    unranked_N = table["score"].is_null().to_numpy()
    score = pa.array(scores_N, mask=unranked_N)
    selected = pa.array(unranked_N | (scores_N <= np.median(scores_N)))
    for name, values in (("score", score), ("selected", selected)):
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path)
    record = read_json(run.selection / "stage.json")
    record["config"]["selection"] |= selection
    write_json(run.selection / "stage.json", record)


def build_scores(run, folder):
    """The section's values, and what its plots show: figure -> variant."""
    page = PageFolder(folder)
    section = scores.build(FinishedRun(run), page)
    text = (folder / "data" / "scores.js").read_text()
    figures = json.loads(text[text.index("= ") + 2 :].strip().removesuffix(";"))["figures"]
    return section.values, {name: one["variants"] for name, one in figures.items()}


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_scores_that_differ_by_rounding_have_one_bin(value, tmp_path):
    """As leverage gives in a source of few records: 0.1 and the next larger double."""
    run = write_drawn_run(tmp_path)
    rescore(run, np.where(np.arange(90) % 2, value, np.nextafter(value, np.inf)))
    _, figures = build_scores(run, tmp_path)
    for variant in figures["distribution"].values():
        kept, dropped = variant["data"]
        assert [len(kept["y"]), len(dropped["y"])] == [1, 1]
        assert kept["width"] > 0
    whole = figures["distribution"]["all"]["data"]
    assert sum(trace["y"][0] for trace in whole) == 81


@pytest.mark.parametrize(("own", "num_lines"), [({}, 1), ({"animals": 0.5}, 0)])
def test_a_pool_is_cut_at_one_score_unless_sources_have_budgets_of_their_own(
    own, num_lines, tmp_path
):
    run = write_drawn_run(tmp_path)
    rescore(run, np.arange(90) / 90, scope="global", source_budgets=own)
    values, figures = build_scores(run, tmp_path)
    assert len(figures["distribution"]["all"]["layout"]["shapes"]) == num_lines
    assert values["own_budgets"] == list(own)


def test_llava_665k_is_known_by_its_size_and_its_folders():
    assert is_llava_665k(665_298, FOLDERS)
    assert is_llava_665k(660_000, ("COCO", "GQA", "OCR-VQA"))
    assert not is_llava_665k(665_298, ("a", "b", "c"))
    assert not is_llava_665k(186_000, FOLDERS)
    assert [published_share(name) for name in ("vg", "OCR-VQA", "VQAv2", "gqa")] == [
        1 / 3,
        1 / 3,
        1 / 3,
        None,
    ]


def test_numbers_read_well():
    assert (count(1234567), count(None), percent(0.3005), large(1.2345e15)) == (
        "1,234,567",
        "n/a",
        "30.0 %",
        "1.23e+15",
    )
    assert [seconds(s) for s in (9.04, 59.96, 371, 11105)] == [
        "9.0 s",
        "1 min 0 s",
        "6 min 11 s",
        "3 h 5 min",
    ]


def test_text_in_a_plot_is_text():
    assert plot_text("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert len(plot_text("x" * 100)) == 32


@pytest.mark.parametrize(
    ("text_only", "told"),
    [
        ("keep", "Text-only records are kept without a score."),
        ("own_source", "Text-only records have no score: they are sources, whose share is drawn."),
    ],
)
def test_the_scores_say_what_becomes_of_texts_and_places_have_no_decimals(
    text_only, told, tmp_path
):
    run = write_drawn_run(tmp_path)
    record = read_json(run.selection / "stage.json")
    record["config"]["selection"]["text_only"] = text_only
    write_json(run.selection / "stage.json", record)
    found = scores.build(FinishedRun(run), PageFolder(tmp_path)).values
    assert found["text_only"] == told
    assert (scores._score(0.51234), scores._score(140.0)) == ("0.5123", "140.0")

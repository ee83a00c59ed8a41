"""The numbers behind the plots, against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest
from support.drawn_runs import write_drawn_run

from prism_tune.report.feature_sample import FeatureSample, cosine_histogram, effective_rank
from prism_tune.report.numbers import count, large, percent, plot_text, seconds
from prism_tune.report.paper_pool import is_llava_665k, published_share
from prism_tune.report.section import PageFolder
from prism_tune.report.sections import scores
from prism_tune.report.sources import find_cuts
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import read_json, write_json

FOLDERS = ("coco", "gqa", "ocr_vqa", "textvqa", "vg")


def sample(values):
    rows = np.array(values, dtype=np.float64)
    return FeatureSample(np.arange(len(rows)), rows, len(rows))


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
    scores_K = np.array([1.0, 2, 3, 7])
    assert find_cuts(scores_K, np.array(selected, dtype=bool), keep) == cuts


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

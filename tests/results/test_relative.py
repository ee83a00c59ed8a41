import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.errors import UserError
from prism_tune.intervals import resample_means
from prism_tune.results.relative import (
    check_comparable,
    leave_one_out,
    relative_samples,
    relative_score,
)
from prism_tune.schema import BenchmarkResult

_scores = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.1, 1000), min_size=1, max_size=6)


def test_rel_is_the_mean_of_ratios():
    relative = relative_score({"a": 30.0, "b": 60.0}, {"a": 40.0, "b": 50.0})
    assert relative.value == pytest.approx((75 + 120) / 2)
    assert relative.columns == ("a", "b")
    assert relative.skipped == ()


def test_columns_missing_on_either_side_or_zero_in_the_baseline_are_skipped_and_named():
    scores = {"a": 50.0, "b": None, "c": 3.0, "d": 4.0}
    baseline = {"a": 100.0, "b": 1.0, "c": 0.0, "d": None, "e": 1.0}
    relative = relative_score(scores, baseline)
    assert relative.value == pytest.approx(50)
    assert relative.skipped == ("b", "c", "d", "e")


def test_nothing_in_common_is_no_number():
    assert relative_score({"a": 1.0}, {"b": 1.0}).value is None


@given(_scores)
def test_the_baseline_itself_is_100(scores):
    assert relative_score(scores, scores).value == pytest.approx(100)


@given(_scores, st.floats(0.01, 100))
def test_a_columns_unit_does_not_matter(scores, factor):
    baseline = dict.fromkeys(scores, 7.0)
    plain = relative_score(scores, baseline).value
    unit = relative_score(
        {k: v * factor for k, v in scores.items()}, {k: v * factor for k, v in baseline.items()}
    ).value
    assert unit == pytest.approx(plain)


@given(_scores)
def test_the_order_of_columns_does_not_matter(scores):
    baseline = dict.fromkeys(scores, 3.0)
    backwards = dict(reversed(scores.items()))
    assert relative_score(backwards, baseline).value == pytest.approx(
        relative_score(scores, baseline).value
    )


def test_leave_one_out_drops_all_columns_of_a_benchmark():
    scores, baseline = {"P": 90.0, "R": 110.0, "S": 60.0}, {"P": 100.0, "R": 100.0, "S": 50.0}
    without = leave_one_out(scores, baseline, {"P": "pope", "R": "pope", "S": "sqa"})
    assert without == pytest.approx({"pope": 120, "sqa": 100})


def test_one_benchmark_cannot_be_left_out():
    assert leave_one_out({"P": 1.0}, {"P": 1.0}, {"P": "pope"}) == {}


def test_rows_and_columns_are_resampled_together():
    """Row 1 answers exactly as row 0: their ratio never moves; columns use their questions only."""
    credits_RQ = np.array([[1.0, 0, 1, 1, 0, 1] * 20] * 2)
    masks_CQ = np.array([[True] * 120, [False] * 60 + [True] * 60])
    samples_BRC = resample_means(credits_RQ, masks_CQ, "pope")
    assert (relative_samples(samples_BRC, 1, 0) == 100).all()
    assert not np.allclose(samples_BRC[:, 0, 0], samples_BRC[:, 0, 1])


def _result(**changes) -> BenchmarkResult:
    plain = {
        "benchmark": "mmvet",
        "metrics": {"score": 1.0},
        "num_examples": 2,
        "num_missing": 0,
        "profile": "llava15",
        "provenance": {"judge": "gpt-4-0613", "data": "d1"},
        "per_question": {"1": 1.0, "2": 0.0},
    }
    return BenchmarkResult(**{**plain, **changes})


def test_alike_measurements_are_comparable():
    check_comparable({"a": {"mmvet": _result()}, "b": {"mmvet": _result()}, "c": {}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "lmms_eval"}, r"differ in profile \(a: llava15; b: lmms_eval\)"),
        ({"provenance": {"judge": "local", "data": "d1"}}, r"judge \(a: gpt-4-0613; b: local\)"),
        ({"provenance": {"data": "d1"}}, r"judge \(a: gpt-4-0613; b: None\)"),
        ({"provenance": {"judge": "gpt-4-0613", "data": "d2"}}, r"data \(a: d1; b: d2\)"),
        (
            {"provenance": {"judge": "gpt-4-0613", "data": "d1", "metric": "exact"}},
            r"metric \(a: None; b: exact\)",
        ),
        (
            {"provenance": {"judge": "gpt-4-0613", "data": "d1", "chat_template": "chatml"}},
            r"use of a chat template \(a: False; b: True\)",
        ),
        ({"num_examples": 3}, r"number of questions \(a: 2; b: 3\)"),
        ({"per_question": {"1": 1.0, "3": 0.0}}, "a and b answered different questions"),
    ],
)
def test_unlike_measurements_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_comparable({"a": {"mmvet": _result()}, "b": {"mmvet": _result(**changes)}})

"""A benchmark's metrics: which are mean credits of which questions, and their intervals."""

from __future__ import annotations

import json

import pytest
from support.table_runs import llava_results, quickstart_result

from prism_tune.results.build import build_table, compose_table
from prism_tune.results.columns import COLUMN_SETS, HEADINGS, add_own, list_metrics
from prism_tune.results.runs import open_runs
from prism_tune.results.scores import score_header
from prism_tune.schema import BenchmarkResult


def result(metrics, per_question, **provenance):
    return BenchmarkResult(
        benchmark="b",
        metrics=metrics,
        num_examples=len(per_question),
        num_missing=0,
        profile="llava15",
        provenance=provenance,
        per_question=per_question,
    )


def test_a_metric_has_an_interval_where_it_is_the_mean_of_its_questions():
    """60 of 100 open questions and 30 of 100 yes/no: a binomial has sd 4.9, and 3.5 for both."""
    credits = {f"open-{k}": float(k < 60) for k in range(100)}
    credits |= {f"yes_no-{k}": float(k < 30) for k in range(100)}
    metrics = {"accuracy_open": 60.0, "accuracy_yes_no": 30.0, "accuracy": 45.0, "total": 90.0}
    groups = {"accuracy_open": "open-", "accuracy": ""}
    found = {
        metric.name: metric for metric in list_metrics(result(metrics, credits, groups=groups))
    }
    low, high = found["accuracy_open"].interval
    assert (low, high) == pytest.approx((60 - 9.6, 60 + 9.6), abs=1.5)
    low, high = found["accuracy"].interval
    assert (low, high) == pytest.approx((45 - 6.9, 45 + 6.9), abs=1.5)
    assert found["total"].interval is None
    assert found["accuracy_yes_no"].interval is None  # the benchmark does not declare it


def test_a_metric_that_is_no_mean_of_its_questions_has_no_interval():
    credits = {str(k): 1.0 for k in range(10)}
    (metric,) = list_metrics(result({"accuracy": 70.0}, credits, groups={"accuracy": ""}))
    assert (metric.is_mean, metric.interval) == (False, None)


@pytest.mark.parametrize("credit", [0.0, 1.0])
def test_where_all_questions_have_one_credit_no_resample_says_how_sure_it_is(credit):
    credits = {str(k): credit for k in range(10)}
    metrics = {"accuracy": 100 * credit}
    (metric,) = list_metrics(result(metrics, credits, groups={"accuracy": ""}))
    assert (metric.is_mean, metric.interval) == (True, None)


def test_fractions_keep_their_scale_and_controls_stand_beside_their_metric():
    credits = {str(k): float(k < 4) for k in range(8)}
    metrics = {"accuracy": 0.5, "accuracy_blind": 0.25}
    (metric,) = list_metrics(
        result(metrics, credits, scale=1, groups={"accuracy": ""}, controls=["blind"])
    )
    assert metric.scale == 1
    assert 0 < metric.interval[0] < 0.5 < metric.interval[1] < 1
    assert metric.controls == {"blind": 0.25}


def test_benchmarks_of_ones_own_stand_beside_a_set_or_are_the_set():
    own = result({"accuracy": 50.0}, {}, metric="exact")
    official = result({"accuracy": 60.0}, {})
    beside = add_own(COLUMN_SETS["visionflan"], [{"mine": own, "pope": official}, {"yours": own}])
    assert [c.label for c in beside.columns][-2:] == ["mine", "yours"]
    assert beside.scored == COLUMN_SETS["visionflan"].scored
    alone = add_own(COLUMN_SETS["visionflan"], [{"mine": own}])
    assert (alone.name, [c.label for c in alone.scored]) == ("own", ["mine"])
    assert add_own(COLUMN_SETS["llava"], [{"pope": official}]) is COLUMN_SETS["llava"]


def test_what_was_evaluated_and_is_no_column_is_named_with_where_it_stands(runs):
    others = [
        {**llava_results(80.0, 300.0, 60.0)[2], "benchmark": name}
        for name in ("gqa", "textvqa", "mathvista")
    ]
    path = runs.write("prism", [*llava_results(80.0, 300.0, 60.0), *others])
    assert (
        "- Evaluated, and no column here: gqa (`tables selectors`), mathvista (no table: see "
        "`prism-tune report`), textvqa (`tables visionflan`, `tables selectors`)."
    ) in build_table("main", [path], baseline=None).splitlines()


def test_beside_the_quickstart_only_tables_that_would_show_it_are_named(runs):
    """`main`, `ablation` and `models` show the quickstart of such runs."""
    path = runs.write("prism", [quickstart_result(9, 9), llava_results(80.0, 300.0, 60.0)[0]])
    text = build_table("main", [path], baseline=None)
    assert (
        "- Evaluated, and no column here: pope (`tables visionflan`, `tables selectors`)."
    ) in text.splitlines()
    alone = runs.write("alone", [quickstart_result(9, 9)])
    assert "no column here" not in build_table("main", [alone], baseline=None)


def own_result(name, accuracy):
    official = llava_results(80.0, 300.0, 60.0)[2]
    own = {"metrics": {"accuracy": accuracy}, "provenance": {"metric": "exact"}}
    return {**official, **own, "benchmark": name}


def test_a_benchmark_that_is_called_as_a_tables_own_column_stands_beside_it(runs):
    """In JSON the one took the other's place."""
    full = runs.write("full", [own_result("C", 50.0), own_result("Run", 40.0)], records="pool")
    prism = runs.write("prism", [own_result("C", 20.0), own_result("Run", 30.0)])
    text = build_table("main", [full, prism], baseline=None, output_format="json")
    row = json.loads(text)["rows"][0]
    assert list(row) == [
        "Method", "Run", "Kept", "C (benchmark)", "Run (benchmark)", "Rel.", "95 % CI",
        "T_select", "T_tune", "C",
    ]  # fmt: skip
    assert (row["Run"]["names"], row["C (benchmark)"]["text"]) == (["prism"], "20.0")
    assert row["C"]["text"] == "1.77"


def test_a_benchmark_that_is_called_as_a_column_of_the_set_stands_beside_it(runs):
    path = runs.write("prism", [*llava_results(80.0, 300.0, 60.0), own_result("SQA", 50.0)])
    (row,) = json.loads(build_table("main", [path], baseline=None, output_format="json"))["rows"]
    assert (row["SQA"]["text"], row["SQA (benchmark)"]["text"]) == ("60.0", "50.0")


def test_all_headings_of_a_table_are_known(runs):
    path = runs.write("prism", [quickstart_result(9, 9)])
    comparison = compose_table("main", open_runs([path]), None).comparison
    labels = {column.label for column in COLUMN_SETS["quickstart"].columns}
    assert set(score_header(comparison, with_paper=True)) - labels == HEADINGS


def test_every_metric_is_listed():
    """POPE has 17; the adversarial split comes last."""
    names = [f"{name}_{k}" for k in range(5) for name in ("f1", "recall", "yes_ratio")]
    found = list_metrics(result(dict.fromkeys([*names, "f1", "accuracy"], 80.0), {}))
    assert [metric.name for metric in found] == [*names, "f1", "accuracy"]

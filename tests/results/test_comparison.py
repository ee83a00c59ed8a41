"""Differences of Rel.: over which columns, and over which seeds."""

from __future__ import annotations

import json

import pytest
from support.table_runs import llava_results, quickstart_result

from prism_tune.results.build import build_table


def _without(results, name):
    return [result for result in results if result["benchmark"] != name]


def _row(paths, label, **options):
    content = json.loads(build_table("main", paths, baseline=None, output_format="json", **options))
    return next(row for row in content["rows"] if row["Method"]["text"].startswith(label))


def test_rows_over_different_columns_have_no_verdict_and_the_columns_are_named(runs):
    full = runs.write("full", llava_results(90.0, 300.0, 70.0), records="pool")
    prism = runs.write("prism", _without(llava_results(80.0, 300.0, 65.0), "mme"))
    random = _without(llava_results(70.0, 200.0, 60.0), "pope")
    paths = [full, prism, runs.write("random", random, scorer="random")]
    text = build_table("main", paths, baseline=None, printed=False)
    assert (
        "- PRISM 25 % (lora) against Random 25 % (lora): their Rel. are over different columns "
        "(PRISM 25 % (lora) lacks MME-C; Random 25 % (lora) lacks POPE-P, POPE-R, POPE-A), so "
        "there is no verdict.\n"
    ) in text
    assert "no column has a value on both sides" not in text


@pytest.mark.parametrize(
    ("of_pool", "said"),
    [
        (slice(3), "their Rel. are over different columns (PRISM 25 % (lora) lacks "),
        (slice(2, 3), "no column has a value on both sides and more than 0 in the baseline, so "),
    ],
)
def test_rows_without_a_column_in_common_have_no_verdict(runs, of_pool, said):
    full = runs.write("full", llava_results(90.0, 300.0, 70.0)[of_pool], records="pool")
    prism = runs.write("prism", llava_results(80.0, 300.0, 65.0)[:1])
    random = runs.write("random", llava_results(70.0, 200.0, 60.0)[1:2], scorer="random")
    text = build_table("main", [full, prism, random], baseline=None, printed=False)
    assert f"- PRISM 25 % (lora) against Random 25 % (lora): {said}" in text
    assert "so there is no verdict.\n" in text or "no Rel. and no verdict.\n" in text


def test_a_difference_over_shared_seeds_is_over_the_columns_of_the_rows(runs):
    """Of the seeds that both have, PRISM has MME throughout; its Rel. does not count it.

    SQA: (66 - 60 + 70 - 62) / 2 is 7, of the pool's 70 10 points.
    """
    paths = [runs.write("full", llava_results(90.0, 300.0, 70.0)[1:], records="pool")]
    for seed, sqa in enumerate((66.0, 70.0, 90.0)):
        results = llava_results(0.0, 300.0, sqa)[1:] if seed < 2 else llava_results(0, 0, sqa)[2:]
        paths.append(runs.write(f"prism{seed}", results, seed=seed))
    for seed, sqa in enumerate((60.0, 62.0)):
        results = llava_results(0.0, 300.0, sqa)[1 + seed :]
        paths.append(runs.write(f"random{seed}", results, scorer="random", seed=seed))
    text = build_table("main", paths, baseline=None, printed=False)
    assert "- PRISM 25 % (lora) against Random 25 % (lora): +10.0 points of Rel., within" in text


def test_two_runs_of_a_seed_count_once_in_value_and_interval(runs):
    """Rel. 60, 60 and 75 under the seeds 0, 0 and 1 are 60 and 75: -6 and +9 beside Random."""
    paths = [runs.write_alike("full", 100.0, records="pool")]
    for seed in range(2):
        paths.append(runs.write_alike(f"random{seed}", 66.0, scorer="random", seed=seed))
    for name, (value, seed) in {"a": (60.0, 0), "b": (60.0, 0), "c": (75.0, 1)}.items():
        paths.append(runs.write_alike(f"prism-{name}", value, seed=seed))
    text = build_table("main", paths, baseline=None)
    assert (
        "- PRISM 25 % (lora) against Random 25 % (lora): +1.5 points of Rel., within noise (95 % "
        "interval over seeds -93.8 to +96.8, paired over 2 seeds, Student's t)."
    ) in text
    row = _row(paths, "PRISM")
    assert (row["Rel."]["text"], row["open"]["text"]) == ("67.5 ± 10.6", "67.5 ± 10.6")


def test_a_run_that_is_done_again_moves_nothing(runs):
    paths = [
        runs.write("full", [quickstart_result(20, 20)], records="pool"),
        runs.write("a", [quickstart_result(6, 10)], seed=0),
        runs.write("b", [quickstart_result(16, 20)], seed=1),
    ]
    again = runs.write("c", [quickstart_result(6, 10)], seed=0)
    once, twice = _row(paths, "PRISM"), _row([*paths, again], "PRISM")
    for column in ("open", "all", "Rel.", "95 % CI"):
        assert once[column]["text"] == twice[column]["text"]
    assert once["Rel."]["value"] == pytest.approx((0.55 + 0.75 + 0.65) / 3 * 100)

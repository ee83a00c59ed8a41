"""Selectors side by side, from finished run folders: by hand, and as `tables` would say it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.table_runs import quickstart_result

from prism_tune.config.sections import CompareConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.results.grid import GridRow, build_grid
from prism_tune.results.grid_text import render_comparison
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir

SEEDS = range(5)
RANDOM = dict(zip(SEEDS, (50.0, 56.0, 62.0, 47.0, 66.0), strict=True))
PRISM = dict(zip(SEEDS, (53.1, 58.8, 65.2, 49.7, 69.1), strict=True))


@pytest.fixture
def grid_row(runs):
    """A row of finished runs with this accuracy by seed; of four records `kept` ones are kept."""

    def make(
        selector,
        values,
        *,
        budget=0.25,
        kept="ab",
        failures=(),
        metrics=None,
        num_open=0,
        changes=None,
        **options,
    ):
        finished = []
        for seed, value in values.items():
            own = {"metrics": metrics or {"accuracy": value}} | (changes or {})
            result = quickstart_result(num_open, 0, **own)
            name = f"{selector}-seed{seed}"
            run = RunDir(runs.write(name, [result], scorer=selector, seed=seed, **options))
            verdicts = [uid in kept for uid in "abcd"]
            table = {"uid": list("abcd"), "id": list("abcd"), "source": list("xxyy")}
            table |= {"score": [0.1] * 4, "rank": [1] * 4, "reason": ["ranked"] * 4}
            run.selection.mkdir(exist_ok=True)
            pq.write_table(
                pa.table({**table, "selected": verdicts}), run.selection / "scores.parquet"
            )
            finished.append(FinishedRun(run))
        messages = dict.fromkeys(failures, "out of memory")
        num_runs = len(values) + len(messages)
        return GridRow(selector, budget, tuple(finished), messages, num_runs)

    return make


def build(*rows, **changes):
    wanted = {
        "selectors": [row.selector for row in rows],
        "budgets": [0.25],
        "seeds": list(SEEDS),
        "metrics": ["quickstart.accuracy"],
        "baseline": "random",
    }
    return build_grid("trial", CompareConfig.model_validate({**wanted, **changes}), rows)


def test_paired_seeds_are_compared_as_tables_compare_them(grid_row):
    found = build(grid_row("random", RANDOM), grid_row("prism", PRISM))
    text = render_comparison(found, "again")
    assert "|     5 | 59.2 ± 8.1 | +3.0 (+2.7 to +3.2) |" in text
    assert found["rows"][1]["difference"]["test"] == "paired"
    assert "Welch" not in text


def test_a_comparison_that_cannot_be_paired_says_so(grid_row):
    """Random failed under all but seeds 0 and 1, PRISM under these."""
    few, others = ({s: v for s, v in PRISM.items() if (s < 2) == first} for first in (True, False))
    found = build(grid_row("random", few, failures=(2, 3, 4)), grid_row("prism", others))
    text = render_comparison(found, "again")
    assert found["rows"][1]["difference"]["test"] == "welch"
    assert (
        "- Unpaired, Welch's t, for want of two seeds that both have: prism (Budget 25 %)." in text
    )


def test_what_a_selector_could_not_rank_is_said(grid_row):
    text = "12 of 12 image records could not be ranked: sources of one record"
    prism = grid_row("prism", PRISM, manifest={"unranked": {"text": text}})
    found = render_comparison(build(grid_row("random", RANDOM), prism), "again")
    assert f"- UNRANKED prism-seed{{0,1,2,3,4}}: {text}." in found


def test_cost_is_against_the_whole_pool(grid_row):
    """P 50 of 80 at (2 + 100) / 400 of the time: C = 80 / 50 x 0.255."""
    full = grid_row("whole_pool", {0: 80.0}, budget=None, records="pool", tune_seconds=400.0)
    row, whole = build(grid_row("random", {0: 50.0}), full)["rows"]
    assert row["cost"] == pytest.approx(80 / 50 * 102 / 400)
    assert (whole["cost"], whole["select_seconds"], whole["sources"]) == (1.0, 0.0, {})


def test_cost_over_several_metrics_is_that_of_tables(grid_row):
    """40 of 80 and 90 of 90 are Rel. 75, although 130 of 170 are more."""
    metrics = [{"accuracy": 40.0, "accuracy_open": 90.0}, {"accuracy": 80.0, "accuracy_open": 90.0}]
    subset, full = (
        grid_row(name, {0: 0.0}, metrics=values, **options)
        for name, values, options in (
            ("random", metrics[0], {}),
            ("whole_pool", metrics[1], {"budget": None, "records": "pool", "tune_seconds": 400.0}),
        )
    )
    found = build(subset, full, metrics=["quickstart.accuracy", "quickstart.accuracy_open"])
    cost = found["rows"][0]["cost"]
    assert cost == pytest.approx(102 / 400 / 0.75)


def test_counts_that_differ_in_their_last_digit_have_overlaps_of_their_own(grid_row):
    budgets = [1000000, 1000001]
    rows = [grid_row("random", {0: 50.0}, budget=budget) for budget in budgets]
    found = build(*rows, metrics=["quickstart.accuracy"], budgets=budgets)
    assert list(found["overlap"]) == ["1000000", "1000001"]
    text = render_comparison(found, "again")
    assert "## Budget 1,000,000 records" in text
    assert "## Budget 1,000,001 records" in text


def test_subsets_are_compared_seed_by_seed(grid_row):
    first = grid_row("random", {0: 50.0, 1: 50.0}, kept="ab")
    found = build(first, grid_row("prism", {1: 60.0}, kept="bcd"), grid_row("length", {}))
    overlap = found["overlap"]["0.25"]
    assert overlap["random"] == {"random": 1.0, "prism": 0.25, "length": None}
    assert found["rows"][1]["sources"] == pytest.approx({"x": 1 / 3, "y": 2 / 3})
    assert (found["num_finished"], found["num_cells"]) == (3, 3)
    assert found["rows"][2]["performance"] is None


def test_a_metric_that_is_not_there_is_named(grid_row):
    row = grid_row("random", {0: 50.0})
    with pytest.raises(ConfigError, match=r"quickstart\.speed: quickstart has accuracy"):
        build(row, metrics=["quickstart.speed"])
    with pytest.raises(ConfigError, match=r"pope\.f1: no results of pope in .*random-seed0"):
        build(row, metrics=["pope.f1"])


def test_selectors_that_were_not_asked_the_same_are_not_compared(grid_row):
    other = {"profile": "lmms_eval"}
    rows = [grid_row("random", {0: 50.0}), grid_row("prism", {0: 60.0}, changes=other)]
    with pytest.raises(UserError, match="quickstart: the runs differ in profile"):
        build(*rows)


def whole_pool(grid_row, values):
    return grid_row("whole_pool", values, budget=None, records="pool", tune_seconds=400.0)


def test_rel_is_against_the_whole_pool_with_its_interval_over_seeds(grid_row):
    """Rel. 62.5 and 75 of 80: 68.75 +- 12.706 x 8.839 / sqrt(2)."""
    rows = [
        whole_pool(grid_row, {0: 80.0, 1: 80.0}),
        grid_row("random", {0: 50.0, 1: 60.0}),
        grid_row("prism", {0: 54.0, 1: 65.0}),
    ]
    found = build(*rows)
    _, random, prism = found["rows"]
    assert random["relative"]["value"] == pytest.approx(68.75)
    assert random["relative"]["interval"] == pytest.approx((-10.66, 148.16), abs=0.02)
    assert prism["relative_difference"]["value"] == pytest.approx(100 * 4.5 / 80)
    text = " ".join(render_comparison(found, "again").split())
    assert "| Selector | Seeds | P | Rel. (95 %) | Rel. - random (95 %) |" in text
    assert "| whole_pool | 2 | 80.0 ± 0.0 | 100.0 | - |" in text
    assert "68.8 (-10.7 to 148.2)" in text
    assert "+5.6 (-2.3 to +13.6)" in text
    assert "95 % intervals over seeds" in text
    assert "over questions" not in text.split("Does it help?")[0]


def test_with_one_seed_the_intervals_are_over_questions_and_said_to_be(grid_row):
    """20 questions, of which 16, 8 and 10 are answered right."""

    def row(selector, num_right, **options):
        metrics = {"accuracy_open": 5.0 * num_right}
        return grid_row(selector, {0: 0.0}, metrics=metrics, num_open=num_right, **options)

    rows = [row("whole_pool", 16, budget=None, records="pool", tune_seconds=400.0)]
    rows += [row("random", 8), row("prism", 10)]
    found = build(*rows, metrics=["quickstart.accuracy_open"])
    prism = found["rows"][2]
    assert prism["relative"]["over"] == "questions"
    low, high = prism["relative"]["interval"]
    assert low < prism["relative"]["value"] < high
    text = render_comparison(found, "again")
    assert "n/a" not in [cell for line in text.splitlines() if "| prism" in line for cell in line]
    assert "With one seed, 95 % intervals over questions" in text
    (verdict,) = found["verdicts"]
    assert "the noise of tuning is not measured" in verdict
    assert found["detectable"] == []


def test_what_the_seeds_can_detect_is_said(grid_row):
    """Differences of 2 and 4 points: sd 1.414; one degree of freedom: 16.33 x 1.414 / sqrt(2)."""
    found = build(grid_row("random", {0: 50.0, 1: 50.0}), grid_row("prism", {0: 52.0, 1: 54.0}))
    (one,) = found["detectable"]
    assert one == {
        "budget": 0.25,
        "points": pytest.approx(16.33, abs=0.01),
        "of": "P",
        "num_seeds": 2,
    }
    text = render_comparison(found, "again")
    assert "a true difference to random of 16.3 points of P at budget 25 % (2 seeds)" in text


def test_seeds_without_a_spread_judge_nothing(grid_row):
    """PRISM ahead by 10 points under both seeds, kcenter as Random."""
    rows = [
        whole_pool(grid_row, {0: 80.0, 1: 80.0}),
        grid_row("random", {0: 50.0, 1: 52.0}),
        grid_row("prism", {0: 60.0, 1: 62.0}),
        grid_row("kcenter", {0: 50.0, 1: 52.0}),
    ]
    found = build(*rows)
    told = " ".join(render_comparison(found, "again").split())
    assert found["detectable"][0]["points"] is None
    assert "What these seeds can detect: n/a at budget 25 % (2 seeds)" in told
    assert "+12.5 (n/a)" in told
    assert "which seeds cannot judge: prism (Budget 25 %)." in told
    assert "prism against random: +12.5 points of Rel. (the seeds do not differ" in told
    assert "kcenter against random: +0.0 points of Rel., within noise" in told
    only_p = render_comparison(build(*rows[1:3]), "again")
    assert "+10.0 (n/a)" in only_p
    assert "0.0 points of P" not in only_p


def test_a_verdict_names_its_budget_where_there_are_several(grid_row):
    rows = [
        grid_row(selector, values, budget=budget)
        for budget in (0.1, 0.2)
        for selector, values in (("random", {0: 50.0, 1: 51.0}), ("prism", {0: 52.0, 1: 54.0}))
    ]
    rows.append(whole_pool(grid_row, {0: 80.0, 1: 80.0}))
    found = build(*rows, budgets=[0.1, 0.2])
    told = [verdict.partition(" against")[0].split(" beat")[0] for verdict in found["verdicts"]]
    assert told == ["10 %: prism", "20 %: prism"]


def test_a_time_that_was_not_metered_is_not_zero(grid_row):
    """A pool that is taken whole needs no selection; a deleted timings.json says nothing."""
    full, random = whole_pool(grid_row, {0: 80.0}), grid_row("random", {0: 50.0, 1: 60.0})
    for row in (full, random):
        (row.runs[0].root / "timings.json").unlink()
    whole, cut = build(full, random)["rows"]
    assert (whole["select_seconds"], whole["tune_seconds"]) == (0.0, None)
    assert (cut["select_seconds"], cut["tune_seconds"]) == (None, None)


def test_a_model_that_is_not_tuned_took_no_time(grid_row):
    (row,) = build(grid_row("random", {0: 50.0}, tuning="none"))["rows"]
    assert (row["select_seconds"], row["tune_seconds"]) == (0.0, 0.0)


OPEN, SUM = "quickstart.accuracy_open", "quickstart.sum"


@pytest.fixture
def of_questions(grid_row):
    """A row whose runs answer so many of 20 questions right; `sum` is a metric of none of them."""

    def make(selector, *num_right, total=200.0, **options):
        if selector == "whole_pool":
            options |= {"budget": None, "records": "pool", "tune_seconds": 400.0}
        rows = [
            grid_row(
                selector,
                {seed: 0.0},
                metrics={"accuracy_open": 5.0 * num_open, "sum": total},
                num_open=num_open,
                **options,
            )
            for seed, num_open in enumerate(num_right)
        ]
        runs = tuple(run for row in rows for run in row.runs)
        return GridRow(selector, rows[0].budget, runs, {}, len(runs))

    return make


def tell(*rows, metrics):
    return " ".join(render_comparison(build(*rows, metrics=metrics), "again").split())


def test_over_which_metrics_the_intervals_over_questions_are_is_said(of_questions):
    rows = [of_questions("whole_pool", 16), of_questions("random", 8), of_questions("prism", 10)]
    only = "2,000 resamples), of Rel. over `quickstart.accuracy_open` only: they do not hold"
    assert only in tell(*rows, metrics=[OPEN, SUM])
    assert "2,000 resamples): they do not hold" in tell(*rows, metrics=[OPEN])
    constant = [of_questions("random", 8, 9), of_questions("prism", 10, 11)]
    assert (
        "the interval in their place is over questions, of Rel. over `quickstart.accuracy_open` "
        "only." in tell(rows[0], *constant, metrics=[OPEN, SUM])
    )


def test_metrics_of_no_questions_have_no_interval_over_them(of_questions):
    text = tell(of_questions("whole_pool", 16), of_questions("random", 8), metrics=[SUM])
    assert (
        "Without an interval (n/a) with one seed: none of Rel.'s metrics is a mean over questions, "
        "to be resampled." in text
    )
    assert "divide by" not in text


def test_the_whole_pools_own_interval_is_no_reason_for_a_note(of_questions):
    full, random = of_questions("whole_pool", 16), of_questions("random", 8, 10)
    text = tell(full, random, metrics=[OPEN])
    assert "95 % intervals over seeds" in text
    assert "With one seed" not in text
    alone = tell(full, metrics=[OPEN])
    assert "Rel. = 100 x mean over the metrics" in alone
    assert "With one seed" not in alone


def test_a_metric_on_which_the_whole_pool_scores_nothing_is_said_to_be_left_out(of_questions):
    rows = [of_questions("whole_pool", 16, total=0.0), of_questions("random", 8)]
    text = tell(*rows, metrics=[OPEN, SUM])
    assert "| 50.0 (" in text
    assert (
        "- Rel., its differences and C leave out `quickstart.sum`, on which the whole pool does "
        "not score above 0. -" in text
    )
    assert "accuracy_open` only" not in text  # the one metric that is left
    assert "leave out" not in tell(*rows, metrics=[OPEN])


def test_where_questions_judge_as_well_seeds_detect_by_their_own_interval(of_questions):
    rows = [of_questions("whole_pool", 16, 16), of_questions("random", 8, 9)]
    rows.append(of_questions("prism", 10, 12))
    text = tell(*rows, metrics=[OPEN])
    assert "(2 seeds) is found by the seeds' interval four times in five, a smaller one" in text
    assert "(2 seeds) is found four times in five" in tell(*rows[1:], metrics=[OPEN])


def test_no_spread_is_no_certainty(of_questions):
    """All 20 questions are discordant: so is every resample of them."""
    rows = [of_questions("whole_pool", 20), of_questions("random", 0), of_questions("prism", 20)]
    text = tell(*rows, metrics=[OPEN])
    assert "prism against random: +100.0 points of Rel. (fewer than two seeds each" in text
    assert "+100.0 (n/a)" in text
    assert "Without an interval (n/a) where" in text
    assert "or where all resamples come out alike" in text


def test_seeds_that_agree_leave_the_interval_to_the_questions(of_questions):
    full, random = of_questions("whole_pool", 16, 16), of_questions("random", 8, 8)
    found = build(full, random, metrics=[OPEN])
    low, high = found["rows"][1]["relative"]["interval"]
    assert low < 50.0 < high
    text = tell(full, random, metrics=[OPEN])
    assert "With one seed, or several that do not differ, 95 % intervals over questions" in text
    none = tell(full, random, metrics=[SUM])
    assert "Without an interval (n/a) with one seed, or several that do not differ: none" in none


def test_fractions_are_shown_in_percent_as_tables_have_them(grid_row):
    """MMMU's accuracy is a fraction; MME's sums are as they are, though a credit is worth 1."""
    metrics = {"accuracy_expected": 0.354, "accuracy": 0.36}
    one = {"benchmark": "mmmu", "provenance": {"scale": 1}}
    fractions = grid_row("random", {0: 0.0}, metrics=metrics, changes=one)
    found = build(fractions, metrics=["mmmu.accuracy_expected", "mmmu.accuracy"])["rows"][0]
    assert found["metrics"] == pytest.approx(
        {"mmmu.accuracy_expected": 35.4, "mmmu.accuracy": 36.0}
    )
    assert found["performance"]["mean"] == pytest.approx(35.7)
    other = {"benchmark": "mme", "provenance": {"scale": 1}}
    sums = grid_row("prism", {0: 0.0}, metrics={"cognition": 300.0}, changes=other)
    assert build(sums, metrics=["mme.cognition"])["rows"][0]["metrics"] == {"mme.cognition": 300.0}
    made_by = {"scale": 1, "benchmark's plugin": "a.py", "groups": {"recall": ""}}
    plugin = {"provenance": made_by, "benchmark": "mine"}
    metrics = {"score": 0.5, "count": 7.0, "recall": 0.25}
    own = grid_row("length", {0: 0.0}, metrics=metrics, changes=plugin)
    found = build(own, metrics=[f"mine.{metric}" for metric in metrics])["rows"][0]
    assert found["metrics"] == {"mine.score": 50.0, "mine.count": 7.0, "mine.recall": 25.0}


def test_spreadless_seeds_that_are_not_paired_say_nothing_of_what_can_be_detected(grid_row):
    rows = [
        grid_row("random", {0: 50.0, 1: 50.0}),
        grid_row("prism", {0: 52.0, 1: 54.0}),
        grid_row("length", {2: 40.0, 3: 40.0}),
    ]
    (one,) = build(*rows)["detectable"]
    assert (one["points"], one["num_seeds"]) == (pytest.approx(16.33, abs=0.01), 2)
    assert build(rows[0], rows[2])["detectable"] == []


def test_cost_that_is_of_two_devices_has_its_reason(grid_row):
    def metered(device):
        attempt = {"fingerprint": "a", "finished": True, "num_devices": 1, "counts": {}}
        attempt |= {"evidence": None, "device": device, "device_seconds": 8.0, "wall_seconds": 8.0}
        return {"timings": [{**attempt, "stage": stage} for stage in ("selection", "training")]}

    for device, cost in (("cpu", 2.0 * 75.0 / 50.0), ("H100", None)):
        whole = grid_row("whole_pool", {0: 75.0}, budget=None, records="pool", **metered(device))
        found = build(whole, grid_row("random", {0: 50.0}, **metered("cpu")))
        assert found["rows"][1]["cost"] == (cost and pytest.approx(cost))
        text = render_comparison(found, "again")
        assert "; n/a without a cell on the whole pool metered on the same device." in text

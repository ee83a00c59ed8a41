import csv
import io

import pytest
from support.table_runs import quickstart_result, timing

from prism_tune.errors import UserError
from prism_tune.results.build import build_table
from prism_tune.results.cost import break_even_seconds, selection_cost
from prism_tune.results.notes import gather_rows


def _cost(runs, **options) -> dict[str, dict[str, str]]:
    text = build_table("cost", runs, baseline=None, output_format="csv", **options)
    return {row["Run"]: row for row in csv.DictReader(io.StringIO(text))}


def test_selection_cost_by_hand():
    assert selection_cost(1.0, 10, 40, 100) == pytest.approx(0.5)
    assert selection_cost(1.25, 10, 40, 100) == pytest.approx(0.4)


@pytest.mark.parametrize(("random_rel", "share"), [(95.7, 2.36), (98.0, 1.42)])
def test_break_even_is_the_papers_arithmetic(random_rel, share):
    """37.7 % of the records kept: PRISM at 101.7 may cost 2.4 % (1.4 %) of a full tuning."""
    assert break_even_seconds(101.7, 37.7, random_rel, 37.7) == pytest.approx(share, abs=0.01)


def test_measured_full_tuning(four_runs):
    """Rel. against full: PRISM mean(.75, 1, .875) = .875, Random mean(.5, 1, .75) = .75."""
    prism = _cost(four_runs)["prism"]
    assert float(prism["T_select"]) == 2
    assert float(prism["T_tune(full)"]) == 400
    assert float(prism["select / full, %"]) == pytest.approx(0.5)
    assert float(prism["total / full"]) == pytest.approx(102 / 400)
    assert float(prism["P"]) == pytest.approx(0.875)
    assert float(prism["C"]) == pytest.approx(102 / 400 / 0.875)
    assert float(prism["break-even T_select"]) == pytest.approx(0.875 / 0.75 * 100.25 - 100)


def test_without_a_full_run_its_time_is_extrapolated_and_c_is_not_guessed(runs):
    run = runs.write("prism", [quickstart_result(15, 20)])
    text = build_table("cost", [run], baseline=None)
    assert "| 0:06:40 (extrapolated) |" in text
    assert "T_tune(full) of PRISM 25 % (lora): extrapolated: seconds per record x 4,000" in text
    row = _cost([run])["prism"]
    assert (row["P"], row["C"], row["break-even T_select"]) == ("n/a", "n/a", "n/a")


def _metered(seconds, **counts):
    return [timing("selection", 3.0), timing("training", seconds, counts=counts)]


@pytest.mark.parametrize("num_held_out", [0, 2_500])
def test_full_tuning_is_extrapolated_by_tokens(runs, num_held_out):
    """The kept records are short ones: a quarter of the records, a tenth of the tokens.

    Of the pool as much would be held out for validation as of the subset.
    """
    run = runs.write(
        "prism",
        [quickstart_result(15, 20)],
        hf={"num_train_epochs": 2},
        timings=_metered(100.0, tokens=2 * (5_000 - num_held_out)),
        manifest={"num_tokens": {"pool": 50_000, "selected": 5_000}},
    )
    assert float(_cost([run])["prism"]["T_tune(full)"]) == pytest.approx(1000)
    text = build_table("cost", [run], baseline=None)
    assert "extrapolated: seconds per token x 50,000 tokens of the pool" in text


@pytest.mark.parametrize(
    "hf", [{}, {"num_train_epochs": 1}, {"num_train_epochs": None}, {"max_steps": None}]
)
def test_where_no_epochs_are_named_the_pool_is_gone_over_once(runs, hf):
    """As training does: four times as many tokens take four times as long."""
    run = runs.write(
        "prism",
        [quickstart_result(15, 20)],
        hf=hf,
        timings=_metered(100.0, tokens=1_000_000),
        manifest={"num_tokens": {"pool": 4_000_000, "selected": 1_000_000}},
    )
    assert float(_cost([run])["prism"]["T_tune(full)"]) == 400


def test_flops_are_summed_over_attempts_and_averaged_over_seeds(runs):
    def attempts(scale):
        return [
            timing("selection", 3.0, counts={"flops": 1e12}),
            timing("training", 10.0, counts={}, finished=False),
            timing("training", 70.0, counts={"flops": scale * 4e12}),
            timing("training", 70.0, counts={"flops": scale * 2e12}),
        ]

    paths = [
        runs.write(f"p{n}", [quickstart_result(15, 20)], seed=n, timings=attempts(n + 1))
        for n in range(2)
    ]
    row = _cost(paths)["p0, p1"]
    assert float(row["FLOPs select"]) == 1e12
    assert float(row["FLOPs tune"]) == pytest.approx(9e12)


def test_flops_that_were_not_metered_are_not_0(four_runs):
    assert _cost(four_runs)["prism"]["FLOPs tune"] == "n/a"


def test_fixed_steps_cost_the_same_on_the_whole_pool(runs):
    run = runs.write("prism", [quickstart_result(15, 20)], hf={"max_steps": 110})
    assert float(_cost([run])["prism"]["T_tune(full)"]) == 100
    assert "extrapolated: the same max_steps" in build_table("cost", [run], baseline=None)


def test_resumed_attempts_are_summed(runs):
    attempts = [
        timing("selection", 3.0),
        timing("training", 70.0, finished=False),
        timing("training", 50.0),
    ]
    run = runs.write("prism", [quickstart_result(15, 20)], timings=attempts)
    assert float(_cost([run])["prism"]["T_tune(sub)"]) == 120


def test_an_unfinished_stage_has_no_time(runs):
    attempts = [timing("selection", 3.0), timing("training", 70.0, finished=False)]
    run = runs.write("prism", [quickstart_result(15, 20)], timings=attempts)
    assert _cost([run])["prism"]["T_tune(sub)"] == "n/a"
    assert _cost([run])["prism"]["T_tune(full)"] == "n/a"


def test_times_of_different_devices_do_not_compare(runs):
    attempts = [timing("selection", 3.0, device="H100"), timing("training", 70.0)]
    prism = runs.write("prism", [quickstart_result(15, 20)], timings=attempts)
    full = runs.write("full", [quickstart_result(20, 20)], records="pool")
    row = _cost([prism, full])["prism"]
    assert (row["select / full, %"], row["C"]) == ("n/a", "n/a")
    text = build_table("cost", [prism, full], baseline=None)
    assert "PRISM 25 % (lora): metered on H100 and cpu: times do not compare." in text


def test_full_tuning_of_another_kind_does_not_count(runs):
    prism = runs.write("prism", [quickstart_result(15, 20)])
    full = runs.write("full", [quickstart_result(20, 20)], records="pool", tuning="full")
    assert _cost([prism, full])["prism"]["C"] == "n/a"


def test_a_cost_table_needs_a_subset(runs):
    full = runs.write("full", [quickstart_result(20, 20)], records="pool")
    with pytest.raises(UserError, match="none of the given runs was tuned on a subset"):
        build_table("cost", [full], baseline=None)


def test_a_source_of_the_full_time_is_said_of_all_rows_only_where_all_have_it():
    assert gather_rows({"A": "measured on full", "B": "measured on full"}) == {
        "measured on full": "all rows"
    }
    assert gather_rows({"A": "measured on full", "B": "", "C": "measured on full"}) == {
        "measured on full": "A, C"
    }
    assert gather_rows({"A": "measured on full"}) == {"measured on full": "A"}
    assert gather_rows({"A": "", "B": ""}) == {}


def test_a_subset_that_scores_nothing_has_no_c(runs):
    full = runs.write("full", [quickstart_result(20, 20)], records="pool", tune_seconds=400.0)
    row = _cost([runs.write("prism", [quickstart_result(0, 0)]), full])["prism"]
    assert (float(row["P"]), row["C"]) == (0, "n/a")


@pytest.mark.parametrize(
    ("hf", "full_hf"),
    [
        ({"num_train_epochs": 3}, {}),
        ({"max_steps": 50}, {}),
        ({"max_steps": 50}, {"max_steps": 200}),
    ],
)
def test_a_full_tuning_of_another_length_is_no_measured_one(runs, hf, full_hf):
    prism = runs.write("prism", [quickstart_result(15, 20)], hf=hf)
    full = runs.write(
        "full", [quickstart_result(20, 20)], records="pool", tune_seconds=250.0, hf=full_hf
    )
    row = _cost([prism, full])["prism"]
    seconds = 100 if "max_steps" in hf else 400
    assert (float(row["T_tune(full)"]), row["C"]) == (seconds, "n/a")
    text = build_table("cost", [prism, full], baseline=None)
    said = "PRISM 25 % (lora): the run on the whole pool is of other epochs or steps, so C is n/a"
    assert "(extrapolated) |" in text
    assert f"- {said}, and P is against it all the same." in text
    text = build_table("main", [prism, full], baseline=None)
    lacking = "no run of the same model, tuning and epochs (or steps) on the whole pool, evaluated"
    assert f"n/a for PRISM 25 % (lora): {lacking} and metered" in text


@pytest.mark.parametrize(
    ("hf", "full_hf"),
    [
        ({}, {"num_train_epochs": 1}),
        ({"max_steps": 50}, {"max_steps": 50}),
        ({"max_steps": -1}, {}),
    ],
)
def test_a_full_tuning_of_the_same_length_is_measured(runs, hf, full_hf):
    prism = runs.write("prism", [quickstart_result(15, 20)], hf=hf)
    full = runs.write(
        "full", [quickstart_result(20, 20)], records="pool", tune_seconds=250.0, hf=full_hf
    )
    row = _cost([prism, full])["prism"]
    assert float(row["C"]) == pytest.approx(102 / 250 / 0.875)

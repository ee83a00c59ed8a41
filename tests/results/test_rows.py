"""Which rows are compared with which: a selector with the Random run of its own pool."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support.table_runs import quickstart_result

from prism_tune.results.build import build_table


def _with_pool(run, records):
    """As if that run's pool had been another file."""
    for path in run.rglob("stage.json"):
        record = json.loads(path.read_text())
        record["config"]["data"]["records"] = records
        path.write_text(json.dumps(record))
    return run


def test_random_of_another_pool_judges_nothing(runs):
    prism = runs.write("prism", [quickstart_result(16, 16)])
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    full = runs.write("full", [quickstart_result(18, 18)], records="pool")
    _with_pool(random, "other.json")
    text = build_table("main", [full, prism, random], baseline=None)
    assert "- PRISM 25 % (lora): no Random run of the same pool to judge it by." in text
    assert "ahead of Random" not in text
    costs = build_table("cost", [full, prism, random], baseline=None, output_format="csv")
    found = {row["Run"]: row for row in csv.DictReader(io.StringIO(costs))}
    assert found["prism"]["break-even T_select"] == "n/a"


@pytest.mark.parametrize(
    ("fingerprint", "name", "said"),
    [
        ("a", "copy/pool.json", "PRISM 25 % (lora) is ahead of Random 25 % (lora) by 33.3 points"),
        ("b", "pool.json", "PRISM 25 % (lora): no Random run of the same pool to judge it by."),
    ],
)
def test_a_pool_is_known_by_its_records_not_by_its_name(runs, fingerprint, name, said):
    prism = runs.write("p", [quickstart_result(16, 16)], manifest={"pool_fingerprint": "a"})
    random = runs.write(
        "r",
        [quickstart_result(12, 12)],
        scorer="random",
        manifest={"pool_fingerprint": fingerprint},
    )
    assert f"- {said}" in build_table("main", [prism, _with_pool(random, name)], baseline=None)


@pytest.mark.parametrize(
    ("pool", "records", "cost"),
    [("a", "moved/pool.json", "0.29"), ("b", "pool.json", "n/a"), (None, "pool.json", "0.29")],
)
def test_the_whole_pool_behind_a_subset_is_known_by_its_records_too(runs, pool, records, cost):
    """A pool that was extended in place is another, one that was moved is the same."""
    prism = runs.write("prism", [quickstart_result(15, 20)], pool="a")
    full = runs.write(
        "full", [quickstart_result(20, 20)], records="pool", tune_seconds=400.0, pool=pool
    )
    text = build_table(
        "main", [prism, _with_pool(full, records)], baseline=None, output_format="json"
    )
    found = {row["Run"]["text"]: row["C"]["text"] for row in json.loads(text)["rows"]}
    assert found == {"prism": cost, "full": "1.00"}


def test_an_imported_subset_is_no_random_draw(runs):
    """As docs/selectors.md imports ICONS's own: Random stands beside it, and it beside nobody."""
    listed = {"must_keep": "icons_ids.txt", "budget": 7}
    prism = runs.write("prism", [quickstart_result(16, 16)])
    manifest = {"num_reasons": {"must_keep": 7, "below_cut": 13}}
    icons = runs.write(
        "icons", [quickstart_result(12, 12)], scorer="random", selection=listed, manifest=manifest
    )
    text = build_table("main", [prism, icons], baseline=None)
    assert (
        "- PRISM 25 % (lora): no Random run of the same model, pool and tuning to judge it by."
        in text
    )
    assert "Own list 7 records, must keep icons_ids.txt (lora)" in text
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    seven = runs.write("seven", [quickstart_result(9, 9)], scorer="random", selection={"budget": 7})
    text = build_table("main", [prism, icons, random, seven], baseline=None)
    own = "Own list 7 records, must keep icons_ids.txt (lora)"
    assert f"{own} against Random 7 records (lora): +" in text
    assert "PRISM 25 % (lora) against Random 25 % (lora): +" in text
    text = build_table("main", [prism, icons, random], baseline=None)
    assert f"{own}: no Random run of the same pool and budget to judge it by." in text


def test_where_a_list_is_in_every_subset_random_holds_it_too(runs):
    with_list = {"must_keep": "keep.txt"}
    prism = runs.write("prism", [quickstart_result(16, 16)], selection=with_list)
    random = runs.write("r", [quickstart_result(10, 10)], scorer="random", selection=with_list)
    text = build_table("main", [prism, random], baseline=None)
    label = "25 %, must keep keep.txt (lora)"
    assert f"PRISM {label} against Random {label}: +60.0 points" in text
    assert "no Random run" not in text


def test_random_of_another_budget_judges_nothing(runs):
    prism = runs.write("prism", [quickstart_result(16, 16)], selection={"budget": 0.2})
    random = runs.write(
        "random", [quickstart_result(10, 10)], scorer="random", selection={"budget": 0.1}
    )
    full = runs.write("full", [quickstart_result(18, 18)], records="pool")
    text = build_table("main", [full, prism, random], baseline=None)
    said = "- PRISM 20 % (lora): no Random run of the same pool and budget to judge it by.\n"
    assert said in text
    assert "ahead of Random" not in text
    costs = build_table("cost", [full, prism, random], baseline=None, output_format="csv")
    found = {row["Run"]: row for row in csv.DictReader(io.StringIO(costs))}
    assert {row["break-even T_select"] for row in found.values()} == {"n/a"}


def test_a_budget_of_tokens_is_another_than_one_of_images(runs):
    prism = runs.write("prism", [quickstart_result(16, 16)], selection={"budget_of": "tokens"})
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    text = build_table("main", [prism, random], baseline=None)
    said = "of tokens (lora): no Random run of the same pool and budget to judge it by."
    assert said in text


def test_budgets_of_the_sources_are_another_budget(runs):
    own = {"source_budgets": {"a": 0.1, "b": 0.1}}
    prism = runs.write("prism", [quickstart_result(16, 16)], selection=own)
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    text = build_table("main", [prism, random], baseline=None)
    assert "no Random run of the same pool and budget to judge it by." in text


def test_random_of_another_length_judges_nothing(runs):
    prism = runs.write("prism", [quickstart_result(16, 16)], hf={"num_train_epochs": 3})
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    text = build_table("main", [prism, random], baseline=None)
    assert "no Random run of the same epochs or steps to judge it by." in text


def test_rows_and_image_records_are_one_budget(runs):
    """They differ by the text-only records, and labels say of which they are."""
    prism = runs.write("prism", [quickstart_result(16, 16)], selection={"budget_of": "rows"})
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    text = build_table("main", [prism, random], baseline=None)
    assert "PRISM 25 % of rows (lora) against Random 25 % (lora): +60.0" in text


def test_random_of_the_budget_may_be_cut_otherwise(runs):
    """Both labels say so."""
    selection = {"text_only": "drop"}
    prism = runs.write("prism", [quickstart_result(16, 16)], selection=selection)
    random = runs.write("random", [quickstart_result(10, 10)], scorer="random")
    text = build_table("main", [prism, random], baseline=None)
    assert "PRISM 25 %, without text-only (lora) against Random 25 % (lora): +60.0" in text


@pytest.fixture
def two_recipes(runs):
    """Pool, Random and PRISM, each for one epoch and for three."""

    def write(name, num_right, **options):
        scored = [quickstart_result(num_right, num_right)]
        hf = {"num_train_epochs": int(name[-1])}
        return runs.write(name, scored, hf=hf, **options)

    return [
        write("pool1", 20, records="pool", tune_seconds=400.0),
        write("pool3", 20, records="pool", tune_seconds=1200.0),
        write("random1", 10, scorer="random"),
        write("random3", 14, scorer="random", tune_seconds=300.0),
        write("prism1", 12),
        write("prism3", 16, tune_seconds=298.0),
    ]


def test_rows_are_compared_with_those_of_the_same_recipe(two_recipes):
    """At three epochs PRISM has 80 and Random 70 (at one 50); at one epoch they have 60 and 50."""
    text = build_table("main", two_recipes, baseline=None)
    lines = [line for line in text.splitlines() if line.startswith("- PRISM")]
    assert [line[: line.index(" (95 %")] for line in lines] == [
        "- PRISM 25 % (lora) [num_train_epochs=1] is ahead of Random 25 % (lora) "
        "[num_train_epochs=1] by 10.0 points of Rel.",
        "- PRISM 25 % (lora) [num_train_epochs=3] is ahead of Random 25 % (lora) "
        "[num_train_epochs=3] by 10.0 points of Rel.",
    ]


def test_c_is_by_the_whole_pool_of_the_same_recipe(two_recipes):
    """(2 + 298) / 1200 / 0.8 at three epochs."""
    costs = build_table("cost", two_recipes, baseline=None, output_format="csv")
    found = {row["Run"]: row for row in csv.DictReader(io.StringIO(costs))}
    assert float(found["prism1"]["C"]) == pytest.approx(102 / 400 / 0.6)
    assert float(found["prism3"]["C"]) == pytest.approx(0.3125)
    assert float(found["prism3"]["T_tune(full)"]) == 1200
    assert float(found["prism3"]["break-even T_select"]) == pytest.approx(0.8 / 0.7 * 302 - 298)


def test_where_none_is_of_the_same_recipe_another_of_the_same_length_stands(runs):
    """Of two Random rows the one of as many epochs, though its learning rate is another."""
    prism = runs.write("prism", [quickstart_result(16, 16)], hf={"num_train_epochs": 3})
    once = runs.write("once", [quickstart_result(4, 4)], scorer="random")
    hf = {"num_train_epochs": 3, "learning_rate": 0.1}
    other = runs.write("other", [quickstart_result(10, 10)], scorer="random", hf=hf)
    text = build_table("main", [prism, once, other], baseline="other")
    assert "- PRISM 25 % (lora) against Random 25 % (lora) [" in text
    assert "]: +60.0 points of Rel." in text

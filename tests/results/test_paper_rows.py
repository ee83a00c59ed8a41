"""Which of the paper's rows stands beside which of ours."""

from __future__ import annotations

import csv
import io

import pytest
from support.table_runs import llava_results

from prism_tune.results.build import build_table

VICUNA = {"model_name": "Vicuna-7B", "tuning": "full"}
PAPERS = {**VICUNA, "selection": {"budget": 0.3}}


def _rows(table, runs, baseline=None) -> dict[str, dict[str, str]]:
    text = build_table(table, runs, baseline=baseline, output_format="csv")
    return {row["Run"]: row for row in csv.DictReader(io.StringIO(text))}


def _ablation_results(pope: float, mme: float, sqa: float) -> list[dict]:
    return llava_results(pope, mme, sqa)[:2]


@pytest.mark.parametrize(
    ("selection", "printed"),
    [
        ({"layer": 16}, 97.9),
        ({"layer": 32}, 97.2),
        ({"keep": "high"}, 96.3),
        ({"pooling": "last"}, 97.4),
        ({"layer": 2}, 100.0),
    ],
)
def test_a_variant_stands_beside_the_papers_row_of_its_kind(runs, selection, printed):
    manifest = {"evidence": {"features": {"num_model_layers": 32}}}
    results = _ablation_results(90.0, 330.0, 71.0)
    prism = runs.write("prism", results, manifest=manifest, **PAPERS)
    selection = {"budget": 0.3, **selection}
    variant = runs.write("variant", results, manifest=manifest, selection=selection, **VICUNA)
    row = _rows("ablation", [prism, variant])["variant"]
    assert float(row["Rel. printed"]) == printed


def test_what_the_paper_has_no_row_for_stands_beside_none(runs):
    results = _ablation_results(90.0, 330.0, 71.0)
    prism = runs.write("prism", results, **PAPERS)
    selection = {"budget": 0.3, "centering": "none"}
    raw = runs.write("raw", results, selection=selection, **VICUNA)
    assert _rows("ablation", [prism, raw])["raw"]["Rel. printed"] == "n/a"


@pytest.mark.parametrize(
    ("departing", "label"),
    [
        ({"reference": {"model": "some/tuned"}}, "prism (tuned) 30 % (full)"),
        ({"reference": {"warmup": {}}}, "prism (warmed up) 30 % (full)"),
        ({"keep": "high", "pooling": "last"}, "prism (keep high, pooling last) 30 % (full)"),
    ],
)
def test_another_reader_or_two_departures_are_no_row_of_the_papers(runs, departing, label):
    """PRISM of a tuned model is nobody's baseline either."""
    results = llava_results(88.0, 330.0, 77.0)
    run = {**VICUNA, "selection": {"budget": 0.3, **departing}}
    prism = runs.write("prism", results, **run)
    full = runs.write("full", results, records="pool", **VICUNA)
    row = _rows("main", [full, prism])["prism"]
    assert (row["Method"], row["Rel. printed"], row["Δ paper"]) == (label, "n/a", "n/a")
    text = build_table("ablation", [prism, full], baseline=None)
    assert "- Baseline (Rel. = 100): whole pool (full) (full;" in text


def test_rel_of_another_baseline_is_not_subtracted(runs):
    """The paper's Rel. is relative to the whole pool, the ablation's to PRISM."""
    results = _ablation_results(90.0, 330.0, 71.0)
    prism = runs.write("prism", results, **PAPERS)
    random = runs.write("random", results, scorer="random", **PAPERS)
    full = runs.write("full", results, records="pool", **PAPERS)
    high = runs.write("high", results, selection={"budget": 0.3, "keep": "high"}, **VICUNA)

    def beside(table, given, **options):
        row = _rows(table, given, **options)[given[0].name]
        return row["Δ paper"] != "n/a", row["Rel. printed"]

    assert beside("main", [prism, random]) == (False, "101.7")
    assert beside("main", [prism, random, full]) == (True, "101.7")
    assert beside("main", [prism, random, full], baseline="random") == (False, "101.7")
    assert beside("main", [prism, random, full], baseline="full") == (True, "101.7")
    assert beside("ablation", [high, prism, full]) == (True, "96.3")
    assert beside("ablation", [high, full]) == (False, "96.3")


def test_runs_by_lora_stand_beside_rows_by_lora(runs):
    """LLaVA-1.5-7B LoRA is its own 100, LLaVA-1.5-7B is none of these runs."""
    results = llava_results(88.0, 330.0, 77.0)
    lora = runs.write("lora", results, records="pool", model_name="Vicuna-7B")
    whole = runs.write("whole", results, records="pool", **VICUNA)
    random = runs.write(
        "random", results, scorer="random", model_name="Vicuna-7B", selection=RANDOM
    )
    rows = _rows("selectors", [lora, random])
    assert (rows["lora"]["Δ paper"], rows["lora"]["Rel. printed"]) == ("0.0", "100.0")
    assert float(rows["random"]["Δ paper"]) == pytest.approx(100 - 95.8, abs=0.1)
    assert _rows("selectors", [whole])["whole"]["Rel. printed"] == "n/a"
    prism = {"model_name": "Vicuna-7B", "selection": {"budget": 0.3}}
    by_lora = runs.write("prism", results, **prism)
    row = _rows("main", [lora, by_lora])["prism"]
    assert (row["Δ paper"], row["Rel. printed"]) == ("n/a", "n/a")


def test_models_stand_beside_their_own_rows_by_the_name_in_the_config(runs):
    """The paper prints no cells of the other models: the difference is to its printed Rel."""
    rows = [
        runs.write(
            f"{name}-{kind}",
            llava_results(90.0 + bonus, 300.0, 71.0),
            model_name=name,
            tuning="full",
            selection={"budget": 0.3},
            records="pool" if kind == "full" else "subset",
        )
        for name in ("Phi2-3B", "Llama-3-8B")
        for kind, bonus in (("full", 0), ("prism", 9))
    ]
    table = _rows("models", rows)
    ours = 100 * (3 * 1.1 + 2) / 5
    assert float(table["Phi2-3B-prism"]["Rel."]) == pytest.approx(ours)
    assert float(table["Phi2-3B-prism"]["Rel. printed"]) == 100.1
    assert float(table["Phi2-3B-prism"]["Δ paper"]) == pytest.approx(ours - 100.1)
    assert float(table["Llama-3-8B-prism"]["Δ paper"]) == pytest.approx(ours - 100.8)
    assert table["Phi2-3B-prism"]["Method"] == "Phi2-3B: PRISM 30 % (full)"


def test_benchmarks_of_ones_own_have_a_column_that_does_not_count(runs):
    own = {
        "benchmark": "mine", "metrics": {"accuracy": 12.5}, "num_examples": 8, "num_missing": 0,
        "profile": "llava15", "provenance": {"metric": "exact"}, "per_question": {}, "notes": [],
    }  # fmt: skip
    full = runs.write("full", llava_results(80.0, 300.0, 70.0), records="pool")
    prism = runs.write("prism", [*llava_results(88.0, 330.0, 77.0), own])
    text = build_table("main", [full, prism], baseline=None)
    row = _rows("main", [full, prism])["prism"]
    assert (row["mine"], row["Rel."]) == ("12.5", "110.0")
    assert "of your own, beside the set and not counted: mine" in text


@pytest.mark.parametrize(("budget", "printed"), [(0.3, "101.7"), (0.333, "101.7"), (0.2, "n/a")])
def test_a_row_of_another_budget_is_no_counterpart(runs, budget, printed):
    full = runs.write("full", llava_results(80.0, 300.0, 70.0), records="pool", **PAPERS)
    run = {**VICUNA, "selection": {"budget": budget}}
    prism = runs.write("prism", llava_results(88.0, 330.0, 77.0), **run)
    row = _rows("main", [full, prism])["prism"]
    assert row["Rel. printed"] == printed
    assert (row["Δ paper"] == "n/a") == (printed == "n/a")


COINCIDE = {
    "budget": 0.2,
    "scope": "global",
    "budget_of": "rows",
    "text_only": "rank",
    "reference": {"model": "some/tuned-model"},
}
RANDOM = {"budget": 0.2, "budget_of": "rows", "text_only": "rank"}


@pytest.mark.parametrize(
    ("scorer", "selection", "printed"),
    [
        ("coincide", COINCIDE, "97.4"),
        ("coincide", {"budget": 0.2}, "n/a"),
        ("coincide", {**COINCIDE, "options": {"tau": 5.0}}, "n/a"),
        ("random", RANDOM, "95.8"),
        ("random", {**RANDOM, "must_keep": "icons_ids.txt"}, "n/a"),
        ("random", {"budget": 0.2}, "n/a"),  # of image records: with all texts 24.9 % of the rows
    ],
)
def test_a_printed_row_stands_beside_what_was_published_alone(runs, scorer, selection, printed):
    results = llava_results(88.0, 330.0, 77.0)
    full = runs.write("full", results, records="pool", **PAPERS)
    run = runs.write("run", results, scorer=scorer, model_name="Vicuna-7B", selection=selection)
    row = _rows("selectors", [full, run])["run"]
    assert row["Rel. printed"] == printed


def test_the_papers_rows_stand_beside_runs_of_its_model_alone(runs):
    results = llava_results(88.0, 330.0, 77.0)
    ours = runs.write("prism", results, model_name="Qwen2.5-VL-3B")
    left_out = build_table("main", [ours], baseline=None)
    assert "| paper: " not in left_out
    assert (
        "The paper's rows are of Vicuna-7B, these runs (`model_name`) of Qwen2.5-VL-3B" in left_out
    )
    assert "| paper: PRISM" in build_table("main", [ours], baseline=None, printed=True)
    llava = runs.write("llava", results, **PAPERS)
    assert "| paper: PRISM" in build_table("main", [llava], baseline=None)
    off = build_table("main", [llava], baseline=None, printed=False)
    assert "| paper: " not in off
    assert "paper" not in off.lower()


def test_rows_of_other_models_are_left_out_one_by_one(runs):
    result = {
        "benchmark": "gqa", "metrics": {"accuracy": 60.0}, "num_examples": 10, "num_missing": 0,
        "profile": "llava15", "provenance": {}, "per_question": {}, "notes": [],
    }  # fmt: skip
    run = runs.write("prism", [result], model_name="Vicuna-13B")
    text = build_table("selectors", [run], baseline=None)
    labels = [line.split("|")[1].strip() for line in text.splitlines() if "| paper: " in line]
    assert labels == ["LLaVA-1.5-13B", "LLaVA-1.5-13B LoRA"]

import csv
import io
import json
import subprocess
import sys

import orjson
import pytest
from support.table_runs import llava_results, quickstart_result
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import ConfigError, UserError
from prism_tune.results.build import build_table
from prism_tune.run.folder import read_json, write_json


def _main(runs, *, table="main", baseline=None) -> dict[str, dict[str, str]]:
    text = build_table(table, runs, baseline=baseline, output_format="csv")
    return {row["Run"]: row for row in csv.DictReader(io.StringIO(text))}


def test_quickstart_table_as_printed(four_runs):
    lines = build_table("main", four_runs, baseline=None).splitlines()
    columns = [line.split("|")[1:12] for line in lines[2:8] if not line.startswith("|--")]
    cells = [[cell.strip() for cell in line] for line in columns]
    assert cells == [
        ["Method", "Run", "Kept", "open", "yes/no", "all", "open (blind)", "open (shuffled)",
         "Rel.", "95 % CI", "T_select"],
        ["untuned", "untuned", "-", "0.0", "50.0", "25.0", "25.0", "0.0",
         "25.0", "13.4 to 36.3", "-"],
        ["Random 25 % (lora)", "random", "1,000 / 4,000", "50.0", "100.0", "75.0", "25.0", "0.0",
         "75.0", "63.7 to 87.1", "0.2 s"],
        ["PRISM 25 % (lora)", "prism", "1,000 / 4,000", "75.0", "100.0", "87.5", "25.0", "0.0",
         "87.5", "77.5 to 97.1", "2.0 s"],
        ["whole pool (lora)", "full", "4,000 / 4,000", "100.0", "100.0", "100.0", "25.0", "0.0",
         "100.0", "-", "-"],
    ]  # fmt: skip
    assert lines[7].endswith("|        - | 0:06:40 | 1.00 |")
    assert lines[9:12] == [
        "- PRISM 25 % (lora) is ahead of Random 25 % (lora) by 12.5 points of Rel. (95 % interval "
        "over questions +2.9 to +22.5; fewer than two seeds each, so the noise of tuning is not "
        "measured).",
        "- Baseline (Rel. = 100): whole pool (lora) (full; chosen: whole pool, else Random, else "
        "untuned).",
        "- Columns `quickstart` (every run was evaluated on it). Rel. = 100 x mean over open, "
        "yes/no, all of score / baseline's score; controls, never counted: open (blind), "
        "open (shuffled).",
    ]


def test_default_baselines(four_runs):
    prism, full, untuned, random = four_runs
    assert float(_main([prism, full, untuned, random])["full"]["Rel."]) == 100
    assert float(_main([prism, untuned, random])["random"]["Rel."]) == pytest.approx(100)
    assert float(_main([prism, untuned])["untuned"]["Rel."]) == 100
    assert float(_main([prism])["prism"]["Rel."]) == 100


def test_a_named_baseline_by_name_or_folder(four_runs):
    prism = four_runs[0]
    assert float(_main(four_runs, baseline="prism")["prism"]["Rel."]) == pytest.approx(100)
    assert float(_main(four_runs, baseline=f"{prism}/")["prism"]["Rel."]) == pytest.approx(100)
    with pytest.raises(UserError, match=r"--baseline nobody: not one of .*random"):
        build_table("main", four_runs, baseline="nobody")


def test_a_column_where_the_baseline_scores_0_is_skipped_and_named(four_runs):
    prism, _, untuned, _ = four_runs
    text = build_table("main", [prism, untuned], baseline=None)
    assert "- Rel. of PRISM 25 % (lora) skips open (n/a on one side, or 0 in the baseline)." in text
    assert float(_main([prism, untuned])["prism"]["Rel."]) == pytest.approx((200 + 350) / 2)


def test_a_difference_within_the_interval_is_noise(runs):
    prism = runs.write("prism", [quickstart_result(10, 20)])
    random = runs.write("random", [quickstart_result(11, 20)], scorer="random")
    text = build_table("main", [prism, random], baseline=None)
    assert "PRISM 25 % (lora) against Random 25 % (lora): -4.1 points of Rel., within noise" in text


def test_losing_to_random_is_said(runs):
    """With one seed each it is the run that is behind; with several, the selector lost."""
    rows = [
        runs.write(f"{scorer}-{seed}", [quickstart_result(n, 20)], scorer=scorer, seed=seed)
        for scorer, counts in (("prism", (10, 9)), ("random", (18, 18)))
        for seed, n in enumerate(counts)
    ]
    text = build_table("main", rows[::2], baseline=None)
    assert "- PRISM 25 % (lora) is behind Random 25 % (lora) by " in text
    text = build_table("main", rows, baseline=None)
    assert "- PRISM 25 % (lora) lost to Random 25 % (lora) by " in text


def test_seeds_that_agree_to_the_digit_tell_no_more_than_one(runs):
    rows = [
        runs.write(f"{scorer}-{seed}", [quickstart_result(n, 20)], scorer=scorer, seed=seed)
        for scorer, n in (("prism", 10), ("random", 18))
        for seed in range(2)
    ]
    text = build_table("main", rows, baseline=None)
    assert "- PRISM 25 % (lora) is behind Random 25 % (lora) by " in text
    assert "the seeds do not differ, so they cannot judge it)." in text


def test_no_random_run_no_verdict(runs):
    text = build_table("main", [runs.write("p", [quickstart_result(9, 9)])], baseline=None)
    told = "no Random run of the same model, pool and tuning to judge it by"
    assert f"- PRISM 25 % (lora): {told}." in text


def test_seeds_make_one_row_with_mean_and_sd(runs):
    prism = [
        runs.write(f"prism-{s}", [quickstart_result(n, 20)], seed=s)
        for s, n in enumerate((13, 15, 17))
    ]
    random = runs.write("random", [quickstart_result(10, 20)], scorer="random")
    text = build_table("main", [*prism, random], baseline=None)
    line = next(line for line in text.splitlines() if line.startswith("| PRISM"))
    assert [cell.strip() for cell in line.split("|")[2:6]] == [
        "prism-{0,1,2}", "1,000 / 4,000", "75.0 ± 10.0", "100.0 ± 0.0",
    ]  # fmt: skip
    assert (
        "±: standard deviation over the seeds of a row, whose runs differ in nothing else." in text
    )
    # Under the seed that both have: (65 / 50 + 1 + 82.5 / 75) / 3 is 113.3, not 120.
    assert "- PRISM 25 % (lora) against Random 25 % (lora): +13.3 points of Rel." in text
    assert "fewer than two seeds that both have, so the noise of tuning is not measured" in text


def test_spread_over_seeds_can_make_a_difference_noise(runs):
    """Open accuracy 30, 60, 90 against 20, 40, 60: the questions decide, the seeds do not."""
    rows = [
        runs.write(f"{scorer}-{seed}", [quickstart_result(n, 20)], scorer=scorer, seed=seed)
        for scorer, counts in (("prism", (6, 12, 18)), ("random", (4, 8, 12)))
        for seed, n in enumerate(counts)
    ]
    text = build_table("main", rows, baseline=None)
    verdict = next(line for line in text.splitlines() if line.startswith("- PRISM"))
    assert "within noise (95 % interval over questions +" in verdict
    assert "95 % interval over seeds -5.2 to +48.0, paired over 3 seeds, Student's t)" in verdict


def test_five_paired_seeds_beat_random_as_they_do_in_a_comparison(runs):
    """Seed by seed 2.7 to 3.2 points better, with 8 points between the seeds of either."""
    paths = [runs.write_alike("full", 100.0, records="pool")]
    for seed, value in enumerate((50.0, 56.0, 62.0, 47.0, 66.0)):
        paths.append(runs.write_alike(f"random-{seed}", value, scorer="random", seed=seed))
    for seed, value in enumerate((53.1, 58.8, 65.2, 49.7, 69.1)):
        paths.append(runs.write_alike(f"prism-{seed}", value, seed=seed))
    text = build_table("main", paths, baseline=None)
    assert (
        "- PRISM 25 % (lora) beat Random 25 % (lora) by 3.0 points of Rel. (95 % interval over "
        "seeds +2.7 to +3.2, paired over 5 seeds, Student's t)."
    ) in text


def test_runs_of_other_seeds_are_compared_unpaired(runs):
    rows = [
        runs.write(f"{scorer}-{seed}", [quickstart_result(n + seed, 20)], scorer=scorer, seed=seed)
        for scorer, first, n in (("prism", 0, 10), ("random", 2, 18))
        for seed in range(first, first + 2)
    ]
    assert "unpaired, Welch's t)." in build_table("main", rows, baseline=None)


def test_a_pair_is_judged_by_the_seeds_that_both_have(runs):
    """Random has seeds 0 and 1 only; PRISM's seed 2 is far better and does not count."""
    rows = [
        runs.write(f"{scorer}-{seed}", [quickstart_result(n, 20)], scorer=scorer, seed=seed)
        for scorer, counts in (("random", (10, 12)), ("prism", (11, 15, 20)))
        for seed, n in enumerate(counts)
    ]
    rows.append(runs.write("full", [quickstart_result(20, 20)], records="pool"))
    text = build_table("main", rows, baseline=None)
    assert "PRISM 25 % (lora) against Random 25 % (lora): +5.0 points of Rel." in text
    assert "over seeds -26.8 to +36.8, paired over 2 seeds" in text


def test_rows_that_would_read_alike_say_where_they_differ(runs):
    first = runs.write("a", [quickstart_result(9, 9)])
    third = runs.write("b", [quickstart_result(9, 9)], selection={"layer": 3})
    text = build_table("ablation", [first, third], baseline=None)
    assert "| PRISM 25 % (lora) [layer=1] | a " in text
    assert "| PRISM 25 % (lora) [layer=3] | b " in text


def test_of_many_rows_only_the_departures_are_named(runs):
    """Three rows of a name: two depart from the usual, each in one value."""
    usual = runs.write("usual", [quickstart_result(9, 9)])
    deep = runs.write("deep", [quickstart_result(9, 9)], selection={"layer": 3})
    last = runs.write("last", [quickstart_result(9, 9)], selection={"pooling": "last"})
    half = runs.write("half", [quickstart_result(9, 9)], selection={"dtype": "float16"})
    text = build_table("ablation", [usual, deep, last, half], baseline=None)
    for start in (
        "| PRISM 25 % (lora)                 | usual |",
        "| PRISM 25 % (lora) [layer=3]       | deep  |",
        "| PRISM 25 % (lora) [dtype=float16] | half  |",
        "| prism (pooling last) 25 % (lora)  | last  |",
    ):
        assert start in text


def test_runs_that_differ_in_their_number_are_named_as_a_shell_expands_them(runs):
    paths = [runs.write(f"p-seed{n}", [quickstart_result(9, 9)], seed=n) for n in (3, 10)]
    assert "| p-seed{3,10} |" in build_table("main", paths, baseline=None)
    content = json.loads(build_table("main", paths, baseline=None, output_format="json"))
    assert content["rows"][0]["Run"]["names"] == ["p-seed3", "p-seed10"]
    assert set(_main(paths)) == {"p-seed3, p-seed10"}  # CSV has every name
    other = runs.write("q", [quickstart_result(9, 9)], seed=11)
    assert "| p-seed3, p-seed10, q |" in build_table("main", [*paths, other], baseline=None)


@pytest.mark.parametrize("depth", [3, 32])
def test_the_ablations_baseline_is_prism_as_in_the_paper(runs, depth):
    """Not the first PRISM row, nor one of a larger budget, nor a layer that is not shallow."""
    manifest = {"evidence": {"features": {"num_model_layers": depth}}}
    given = [{"layer": depth}, {"scope": "global"}, {"keep": "high"}, {}, {"budget": 0.30}]
    paths = [
        runs.write(f"run{n}", [quickstart_result(9, 9)], manifest=manifest, selection=selection)
        for n, selection in enumerate(given)
    ]
    text = build_table("ablation", paths, baseline=None)
    assert "- Baseline (Rel. = 100): PRISM 30 % (lora) (run4; chosen: PRISM as in the paper" in text
    without = build_table("ablation", paths[:4], baseline=None)
    assert "- Baseline (Rel. = 100): PRISM 25 % (lora) (run3; chosen" in without


def test_what_holds_of_every_row_is_said_once(runs):
    only_open = quickstart_result(9, 9)
    del only_open["metrics"]["accuracy_yes_no"]
    rows = [runs.write(s, [only_open], scorer=s) for s in ("random", "prism", "length")]
    text = build_table("main", rows, baseline=None)
    assert "- Rel. of all rows skips yes/no (n/a on one side, or 0 in the baseline)." in text
    assert text.count("skips") == 1


def test_mixed_profiles_are_refused_naming_the_runs(runs):
    a = runs.write("a", [quickstart_result(9, 9)])
    b = runs.write("b", [quickstart_result(9, 9, profile="lmms_eval")], scorer="random")
    with pytest.raises(UserError, match=r"quickstart: .*profile \(a: llava15; b: lmms_eval\)"):
        build_table("main", [a, b], baseline=None)


def test_differing_settings_and_missing_answers_are_said(runs):
    a = runs.write("a", [quickstart_result(9, 9)])
    changed = quickstart_result(9, 9, provenance={"dtype": "bfloat16"}, num_missing=2)
    b = runs.write("b", [changed], scorer="random")
    text = build_table("main", [a, b], baseline=None)
    assert "quickstart: dtype differs, which can move a few answers: b bfloat16, a float32." in text
    assert "quickstart: answers missing, counted as wrong: b 2." in text


def test_intervals_cover_only_what_the_credits_explain(runs):
    """Ids without a kind: only the accuracy over all questions can be resampled."""
    result = quickstart_result(15, 20)
    renamed = {str(k): credit for k, credit in enumerate(result["per_question"].values())}
    a = runs.write("a", [{**result, "per_question": renamed}])
    b = runs.write("b", [{**result, "per_question": renamed}], scorer="random")
    header = build_table("main", [a, b], baseline=None).splitlines()[2]
    assert "| 95 % CI (all only) |" in header


def test_real_benchmarks_stand_beside_the_papers_rows(runs):
    llava = {"model_name": "Vicuna-7B", "tuning": "full", "selection": {"budget": 0.3}}
    prism = runs.write("prism", llava_results(90.0, 330.0, 71.0), **llava)
    full = runs.write("full", llava_results(100.0, 300.0, 71.0), records="pool", **llava)
    rows = _main([prism, full])
    ours = (90 * 3 + 110 + 100) / 5
    assert float(rows["prism"]["Rel."]) == pytest.approx(ours)
    assert float(rows["prism"]["Δ paper"]) == pytest.approx(ours - 101.9506, abs=1e-4)
    assert rows["prism"]["SQA-I"] == "n/a"
    assert rows["prism"]["MM-Vet"] == "n/a"
    text = build_table("main", [prism, full], baseline=None)
    without = "without one benchmark: scienceqa 95.0, pope 105.0, mme 92.5."
    assert f"- Rel. of PRISM 30 % (full) {without}" in text
    assert "- vizwiz: evaluated in none of the runs, n/a." in text
    assert text.count("| paper: ") == 13


def test_rows_of_different_backends_are_said(runs):
    asked = [quickstart_result(9, 9, provenance={"backend": b}) for b in ("transformers", "openai")]
    paths = [runs.write("a", asked[:1]), runs.write("b", asked[1:], scorer="random")]
    text = build_table("main", paths, baseline=None)
    said = "quickstart: backend differs, which can move a few answers: b openai, a transformers."
    assert f"- {said}" in text


def test_vizwiz_by_the_route_of_published_numbers_is_said(runs):
    """The column is the official rule on the answers; LLaVA's upload is normalised before."""
    result = {
        "benchmark": "vizwiz", "metrics": {"accuracy": 41.0, "accuracy_m4c_first": 43.26},
        "num_examples": 4319, "num_missing": 0, "profile": "llava15", "provenance": {},
        "per_question": {}, "notes": [],
    }  # fmt: skip
    path = runs.write("prism", [*llava_results(90.0, 330.0, 71.0), result])
    assert _main([path])["prism"]["VizWiz"] == "41.0"
    assert (
        "- vizwiz: `accuracy_m4c_first`, by the route of LLaVA's upload, of which published "
        "numbers are: prism 43.3.\n"
    ) in build_table("main", [path], baseline=None)


def test_runs_that_were_asked_different_benchmarks_last_are_one_row(runs):
    paths = [runs.write(f"p{seed}", [quickstart_result(9, 9)], seed=seed) for seed in range(2)]
    stage = paths[1] / "evaluation" / "quickstart" / "stage.json"
    record = json.loads(stage.read_text())
    record["config"]["evaluation"]["benchmarks"] = ["mmlu"]
    stage.write_text(json.dumps(record))
    assert set(_main(paths)) == {"p0, p1"}


def test_each_model_has_its_own_baseline_in_the_models_table(four_runs):
    rows = _main(four_runs[1:3], table="models")
    assert float(rows["full"]["Rel."]) == 100
    only_untuned = _main(four_runs[2:3], table="models")
    assert only_untuned["untuned"]["Rel."] == "n/a"


@pytest.mark.parametrize(("output_format", "suffix"), [("md", "md"), ("latex", "tex")])
def test_the_table_is_kept_in_every_run(four_runs, output_format, suffix):
    text = build_table("main", four_runs, baseline=None, output_format=output_format)
    assert all((run / "tables" / f"main.{suffix}").read_text() == text for run in four_runs)
    kept = [(run / "tables" / "main.json").read_text() for run in four_runs]
    assert set(kept) == {build_table("main", four_runs, baseline=None, output_format="json")}


def test_json_is_readable(four_runs):
    content = orjson.loads(build_table("main", four_runs, baseline=None, output_format="json"))
    assert content["rows"][2]["95 % CI"]["low"] == pytest.approx(77.5, abs=0.1)


def test_unusable_run_folders_name_the_file_and_the_command(runs, tmp_path):
    def complaint(root):
        with pytest.raises(UserError) as caught:
            build_table("main", [root], baseline=None)
        return str(caught.value)

    assert "no such run folder; `prism-tune train CONFIG`" in complaint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: no stage has finished there" in complaint(tmp_path / "empty")
    unevaluated = runs.write("unevaluated", [])
    message = complaint(unevaluated)
    assert "first run `prism-tune evaluate CONFIG`" in message
    unselected = runs.write("unselected", [quickstart_result(9, 9)])
    (unselected / "selection" / "manifest.json").unlink()
    assert "selection/config.yaml --force`" in complaint(unselected)
    (unselected / "selection" / "stage.json").unlink()
    assert "unselected/selection: not finished; first run `prism-tune" in complaint(unselected)
    broken = runs.write("broken", [quickstart_result(9, 9)])
    write_json(broken / "evaluation" / "quickstart" / "results.json", {"metrics": {}})
    assert "quickstart/results.json: expected an object with benchmark" in complaint(broken)
    (broken / "evaluation" / "quickstart" / "results.json").write_text("{")
    assert "not valid JSON" in complaint(broken)
    other = runs.write("other", [{**quickstart_result(9, 9), "benchmark": "mine"}])
    assert "evaluated on mine, which is none of the columns `llava`" in complaint(other)


def test_a_run_counts_once(four_runs):
    with pytest.raises(UserError, match="given twice"):
        build_table("main", [four_runs[0], four_runs[0]], baseline=None)


def test_unknown_tables_are_named():
    with pytest.raises(ConfigError, match="no table 'mian'; there are main, cost, ablation"):
        build_table("mian", [], baseline=None)


def test_command_line_takes_runs_in_either_style(four_runs):
    a, b = map(str, four_runs[:2])
    repeated = CliRunner().invoke(app, ["tables", "main", "--runs", a, "--runs", b])
    listed = CliRunner().invoke(app, ["tables", "main", "--runs", a, b, "--baseline", "full"])
    assert repeated.exit_code == listed.exit_code == 0
    assert repeated.stdout.splitlines()[:6] == listed.stdout.splitlines()[:6]
    assert "| prism |" in listed.stdout


def test_tables_never_import_torch():
    code = "import sys, prism_tune.results.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_selector_could_not_rank_and_what_was_left_out_are_said(runs):
    """Ten sources of one record are a draw: the table must not call that PRISM and no more."""
    text = "12 of 12 image records could not be ranked: sources of one record"
    one = runs.write(
        "prism",
        [quickstart_result(15, 20)],
        manifest={"unranked": {"text": text}, "num_skipped": {"image_missing": 3, "must_drop": 1}},
    )
    write_json(one / "training" / "skipped.json", [{"reason": "over_long"}] * 2)
    other = runs.write("random", [quickstart_result(10, 20)], scorer="random")
    table = build_table("main", [one, other], baseline=None)
    assert f"- UNRANKED prism: {text}." in table
    assert f"- UNRANKED prism: {text}." in build_table("cost", [one, other], baseline=None)
    assert (
        "Left out in prism: selected without 4 records (image_missing 3, must_drop 1); tuned "
        "without 2 records (over_long 2)."
    ) in table


def test_rows_that_were_tuned_in_other_global_batches_are_named(runs):
    """Half a grid on eight GPUs and the rest on one differ by more than the selector."""
    folders = [
        runs.write(name, [quickstart_result(10, 20)], scorer=name)
        for name in ("prism", "random", "loss")
    ]
    for folder, size in zip(folders, (128, 128, 16), strict=True):
        record = read_json(folder / "training/stage.json")
        record["outputs"]["global_batch"] = size
        write_json(folder / "training/stage.json", record)
    said = "- BATCH: not tuned in steps of one size, which moves scores: 128 in random, prism; 16"
    assert f"{said} in loss." in build_table("main", folders, baseline=None)
    assert "BATCH" not in build_table("main", folders[:2], baseline=None)


@pytest.mark.parametrize(
    ("selection", "label"),
    [
        ({"budget_of": "rows"}, "PRISM 25 % of rows (lora)"),
        ({"budget_of": "tokens", "text_only": "drop"}, "PRISM 25 % of tokens, without text-only"),
        ({"text_only": "own_source"}, "PRISM 25 %, text-only as a source (lora)"),
        ({"source_budgets": {"coco": 0.1, "vg": 20}}, "PRISM 25 %, coco 10 %, vg 20 (lora)"),
        ({"must_keep": "lists/keep.json"}, "PRISM 25 %, must keep keep.json (lora)"),
        ({"features_file": "own.npy"}, "prism on own features 25 % (lora)"),
    ],
)
def test_a_label_says_what_the_budget_counts(runs, selection, label):
    path = runs.write("prism", [quickstart_result(15, 20)], selection=selection)
    assert label in build_table("main", [path], baseline=None)


def test_random_stands_beside_what_is_cut_alike(runs):
    paths = [
        runs.write("prism", [quickstart_result(15, 20)], selection={"budget_of": "rows"}),
        runs.write("images", [quickstart_result(1, 2)], scorer="random"),
        runs.write(
            "rows", [quickstart_result(9, 9)], scorer="random", selection={"budget_of": "rows"}
        ),
    ]
    assert "PRISM 25 % of rows (lora) against Random 25 % of rows (lora)" in build_table(
        "main", paths, baseline=None
    )

"""Every cell traces to run, config, commit, data, subset and packages; what is stale is said."""

from __future__ import annotations

import json

import pytest
import yaml
from support.table_runs import llava_results, quickstart_result, timing
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import UserError
from prism_tune.results.build import build_table, explain_table_cell
from prism_tune.run.fingerprints import fingerprint, fingerprint_file
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.provenance import describe_software
from prism_tune.run.stage import Stage


def again(folder, inputs, **outputs):
    """The stage finishes once more, with the config it had."""
    stage = Stage(folder)
    stage.finish(inputs, config=stage.config(), **outputs)


@pytest.fixture
def traced(runs):
    """PRISM and the whole pool, with everything that the stages record."""

    def write(name, num_open, **options):
        provenance = {"dtype": "float32", "data": "data-1", "checkpoint": f"tuned-{name}"}
        result = quickstart_result(num_open, 20, provenance=provenance)
        attempts = [timing("selection", 2.0), timing("training", 60.0, finished=False)]
        attempts.append(timing("training", 40.0))
        root = runs.write(name, [result], timings=attempts, **options)
        run = RunDir(root)
        if options.get("records") != "pool":
            run.subset.write_text("[]")
            digest = fingerprint_file(run.subset)
            manifest = {"num_pool": 4000, "num_selected": 1000, "scorer": "prism"}
            manifest |= {"subset_sha256": digest, "pool_fingerprint": "pool-1"}
            write_json(run.selection / "manifest.json", manifest)
            again(run.selection, {"pool": "pool-1"}, subset_sha256=digest)
            inputs = {"records": digest, "model weights": "m-1"}
        else:
            inputs = {"records": "pool-1", "model weights": "m-1"}
        again(run.training, inputs, num_records=1000)
        trained = Stage(run.training).require("train")["fingerprint"]
        again(run.benchmark("quickstart"), {"checkpoint": trained})
        return root

    return [write("prism", 15), write("full", 20, records="pool")]


def explain(runs, cell, table="main", output_format="md", baseline=None):
    text = explain_table_cell(table, runs, cell, baseline=baseline, output_format=output_format)
    return json.loads(text) if output_format == "json" else yaml.safe_load(text)


def test_a_score_traces_to_everything_behind_it(traced):
    tree = explain(traced, "prism:open")
    run = RunDir(traced[0])
    software = describe_software()
    code = {"git_commit": software["git_commit"], "packages": software["packages"]}
    assert tree["cell"] == {
        "table": "Main table, columns `quickstart`",
        "row": "PRISM 25 % (lora)",
        "column": "open",
        "printed": "75.0",
        "value": 75.0,
    }
    assert tree["from"] == "accuracy_open of quickstart"
    [described] = tree["runs"]
    assert described["folder"] == str(run.root)
    stages = ("evaluation/quickstart", "selection", "training")
    assert described["config"] == {
        "recorded_by": [str(run.root / stage / "stage.json") for stage in stages],
        "fingerprint": fingerprint(Stage(run.training).config().model_dump(mode="json")),
    }
    digest = fingerprint_file(run.subset)
    assert described["selection"] == {
        "pool": "pool.json",
        "pool_fingerprint": "pool-1",
        "subset": str(run.subset),
        "subset_sha256": digest,
        "subset_as_recorded": True,
        **code,
    }
    assert described["training"]["records_fingerprint"] == digest
    assert described["training"]["git_commit"] == software["git_commit"]
    results = described["results"]["quickstart"]
    assert results["file"] == str(run.benchmark("quickstart") / "results.json")
    assert (results["data_fingerprint"], results["checkpoint_fingerprint"]) == (
        "data-1",
        "tuned-prism",
    )
    assert results["packages"] == software["packages"]
    assert described["stale"] == "nothing"
    assert "relative_to" not in tree


def test_a_relative_cell_traces_its_baseline_too(traced):
    tree = explain(traced, "PRISM 25 % (lora):Rel.", output_format="json")
    assert tree["relative_to"]["row"] == "whole pool (lora)"
    [baseline] = tree["relative_to"]["runs"]
    assert baseline["folder"] == str(traced[1])
    assert "selection" not in baseline


def test_a_time_traces_to_its_attempts(traced):
    [described] = explain(traced, "prism:T_tune")["runs"]
    attempts = described["timings"]["training"]
    assert [entry["device_seconds"] for entry in attempts] == [60.0, 40.0]
    cost = explain(traced, "prism:C", table="cost")
    assert cost["runs"][0]["timings"].keys() == {"selection", "training"}
    assert cost["relative_to"]["row"] == "whole pool (lora)"


def seconds_of(described):
    """Stage -> seconds of its attempts, of the one run described."""
    [run] = described
    timings = run.get("timings", {})
    return {stage: [e["device_seconds"] for e in entries] for stage, entries in timings.items()}


@pytest.mark.parametrize(
    ("column", "own"),
    [
        ("T_tune(full)", {}),
        ("select / full, %", {"selection": [2.0]}),
        ("total / full", {"selection": [2.0], "training": [60.0, 40.0]}),
    ],
)
def test_the_time_of_a_full_tuning_traces_to_the_whole_pools_run(traced, column, own):
    tree = explain(traced, f"prism:{column}", table="cost")
    assert tree["from"] == "T_tune(full) measured on full"
    assert seconds_of(tree["runs"]) == own
    assert tree["relative_to"]["row"] == "whole pool (lora)"
    assert seconds_of(tree["relative_to"]["runs"]) == {"training": [60.0, 40.0]}


def test_one_that_is_extrapolated_traces_to_the_subsets_own(traced):
    tree = explain(traced[:1], "prism:T_tune(full)", table="cost")
    assert tree["from"].startswith("T_tune(full) extrapolated: ")
    assert seconds_of(tree["runs"]) == {"training": [60.0, 40.0]}
    assert "relative_to" not in tree


def test_c_is_relative_to_the_whole_pool_whatever_the_baseline(traced):
    tree = explain(traced, "prism:C", baseline="prism")
    assert tree["relative_to"]["row"] == "whole pool (lora)"
    assert seconds_of(tree["relative_to"]["runs"]) == {"training": [60.0, 40.0]}
    assert "relative_to" not in explain(traced, "prism:Rel.", baseline="prism")


def test_the_break_even_traces_to_random_too(four_runs):
    tree = explain(four_runs, "prism:break-even T_select", table="cost")
    assert tree["random"]["row"] == "Random 25 % (lora)"
    assert seconds_of(tree["random"]["runs"]) == {"selection": [0.25], "training": [100.0]}
    assert tree["relative_to"]["row"] == "whole pool (lora)"


PRISM_2025 = "PRISM (arXiv 2502.12119)"


@pytest.mark.parametrize(
    ("table", "cell", "source"),
    [
        ("main", "PRISM:SQA", f"{PRISM_2025}, as printed"),
        (
            "main",
            "PRISM:Rel.",
            f"{PRISM_2025}, Rel. recomputed from its cells, Full fine-tune = 100",
        ),
        ("main", "TIVE:SQA", "TIVE, as printed"),
        ("main", "Random:Rel. printed", f"{PRISM_2025}, as printed"),
        ("main", "Random:Rel.", f"nothing: {PRISM_2025} prints none, or it is not at hand"),
        (
            "selectors",
            "EL2N:Rel.",
            "MAGIC, Rel. recomputed from its cells, LLaVA-1.5-7B LoRA = 100",
        ),
    ],
)
def test_a_printed_cell_says_whose_it_is(table, cell, source):
    assert explain([], cell, table=table)["from"] == source


def test_a_difference_to_the_paper_names_both_sides(runs):
    llava = {"model_name": "Vicuna-7B", "tuning": "full", "selection": {"budget": 0.3}}
    prism = runs.write("prism", llava_results(90.0, 330.0, 71.0), **llava)
    full = runs.write("full", llava_results(100.0, 300.0, 71.0), records="pool", **llava)
    tree = explain([prism, full], "prism:Δ paper")
    assert tree["relative_to"]["row"] == "whole pool (full)"
    assert tree["printed"] == (
        f"PRISM: {PRISM_2025}, Rel. recomputed from its cells, Full fine-tune = 100"
    )


def test_what_paper_adds_can_be_explained(runs):
    """Rows of another model than the run's, by the command line."""
    run = runs.write("qwen", llava_results(90.0, 330.0, 71.0), model_name="Qwen2.5-VL-3B")
    arguments = ["tables", "main", "--runs", str(run), "--explain", "ICONS:Rel."]
    refused = CliRunner().invoke(app, arguments)
    assert "no row 'ICONS'" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, "--paper"])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout)["from"].startswith("ICONS, Rel. recomputed from its cells")


def test_cells_that_are_not_there(traced):
    with pytest.raises(UserError, match="expected ROW:COLUMN, for example"):
        explain(traced, "prism")
    with pytest.raises(UserError, match="no column 'opne'; there are 'Method', 'Run'"):
        explain(traced, "prism:opne")
    with pytest.raises(UserError, match=r"no row 'nobody'; there are 'PRISM 25 % \(lora\)'"):
        explain(traced, "nobody:open")


def test_a_subset_that_was_touched_shows(traced):
    RunDir(traced[0]).subset.write_text("[1]")
    [described] = explain(traced, "prism:open")["runs"]
    assert described["selection"]["subset_as_recorded"] is False


def test_a_selection_repeated_without_training_is_stale(traced):
    run = RunDir(traced[0])
    again(run.selection, {"pool": "pool-2"}, subset_sha256="another")
    text = build_table("main", traced, baseline=None)
    assert (
        "- STALE prism: training: on another subset than selection/ holds; run that stage again."
        in text
    )
    assert "STALE full" not in text
    assert "- STALE prism: training: on another" in build_table("cost", traced, baseline=None)


def test_a_training_repeated_without_evaluation_is_stale(traced):
    again(RunDir(traced[1]).training, {"records": "pool-1", "seed": 9}, num_records=4000)
    text = build_table("main", traced, baseline=None)
    assert "- STALE full: evaluation/quickstart: of another checkpoint than training/ holds" in text


def test_answers_of_a_model_that_is_being_trained_anew_are_stale(traced):
    Stage(RunDir(traced[1]).training).reopen()
    text = build_table("main", traced, baseline=None)
    assert "- STALE full: evaluation/quickstart: of another checkpoint than training/ holds" in text


def test_nothing_is_stale_where_stages_follow_each_other(traced):
    assert "STALE" not in build_table("main", traced, baseline=None)


def test_what_was_not_recorded_is_said(four_runs):
    [described] = explain(four_runs, "prism:open")["runs"]
    assert described["selection"]["pool_fingerprint"] == "not recorded"
    assert described["results"]["quickstart"]["data_fingerprint"] == "not recorded"


def test_command_line(traced):
    arguments = ["tables", "main", "--runs", *map(str, traced), "--explain", "prism:open"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout)["cell"]["printed"] == "75.0"
    assert not (traced[0] / "tables").exists()


def test_a_row_of_several_seeds_is_named_by_any_of_its_runs(runs):
    paths = [runs.write(f"p{n}", [quickstart_result(9, 9)], seed=n) for n in range(2)]
    tree = explain(paths, "p1:open")
    assert [run["folder"] for run in tree["runs"]] == [str(path) for path in paths]

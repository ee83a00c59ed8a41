"""What is said of a folder that is no finished run on a subset."""

from __future__ import annotations

import pytest
from support.table_runs import RunWriter

from prism_tune.report.model_card import write_model_card
from prism_tune.report.section import PageFolder
from prism_tune.report.sections import other_runs, overview
from prism_tune.report.verdict import describe_run
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage


def only_audited(folder, records):
    """A folder with an audit and nothing behind it."""
    root = RunWriter(folder).write("mine", [], records=records, timings=[])
    (root / "training").rename(root / "audit")
    return root


def facts(run):
    return dict(overview.build(run, None).values["facts"])


def test_a_run_that_has_not_been_tuned_on_the_pool_does_not_say_it_was(tmp_path):
    run = FinishedRun(RunDir(only_audited(tmp_path, "pool")))
    assert describe_run(run, None) == [
        "This run is to be tuned on the whole pool, and has not been: there is nothing to judge "
        "yet."
    ]


def test_a_run_on_the_whole_pool_has_no_selector_among_its_facts(tmp_path):
    root = RunWriter(tmp_path).write("full", [], records="pool", timings=[])
    run = FinishedRun(RunDir(root))
    assert describe_run(run, None) == [
        "This run was tuned on the whole pool: nothing was selected."
    ]
    assert facts(run) == {
        "Model": "m",
        "Pool": "pool.json",
        "Tuning": "lora on the pool",
        "Seed": "0",
    }


def test_a_run_on_a_subset_has(tmp_path):
    root = RunWriter(tmp_path).write("prism", [], timings=[], manifest={"num_text_only": 0})
    found = facts(FinishedRun(RunDir(root)))
    assert list(found) == [
        "Model", "Pool", "Selector", "Budget", "Features", "Centring", "Tuning", "Seed",
    ]  # fmt: skip
    assert found["Selector"] == "prism, keeps the low scores"


def test_what_is_stale_or_could_not_be_ranked_is_said_of_every_run(tmp_path):
    """The selection ran again without its training, which the report's own page says first."""
    text = "2 of 40 image records could not be ranked: sources of one record"
    manifest = {"num_text_only": 0, "unranked": {"text": text}}
    options = {"timings": [], "manifest": manifest, "pool": "p"}
    roots = [RunWriter(tmp_path).write(name, [], **options) for name in ("own", "beside")]
    runs = [FinishedRun(RunDir(root)) for root in roots]
    for run in runs:
        Stage(run.run.selection).finish({}, config=run.config, subset_sha256="new")
        Stage(run.run.training).finish({"records": "old"}, config=run.config)
    stale = "training: on another subset than selection/ holds; run that stage again."
    assert describe_run(runs[0], None)[1:3] == [f"STALE: {stale}", f"{text}."]
    section = other_runs.build(runs, None, PageFolder(tmp_path))
    assert section.values["notes"] == [f"STALE beside: {stale}", f"UNRANKED beside: {text}."]


@pytest.mark.parametrize(
    ("scale", "seen", "blind", "told"),
    [
        (1, 0.3471, 0.3104, "0.347 (accuracy), and 0.310"),
        (100, 85.04, 50.0, "85.0 (accuracy), and 50.0"),
    ],
)
def test_what_is_seen_without_images_has_the_digits_of_its_table(
    tmp_path, scale, seen, blind, told
):
    """MMMU's metrics are fractions: 0.3 would be anything from 25 to 35 %."""
    metrics = {"accuracy": seen, "accuracy_blind": blind}
    result = {
        "benchmark": "mmmu", "metrics": metrics, "num_examples": 9, "num_missing": 0,
        "profile": "mmmu", "provenance": {"scale": scale}, "per_question": {}, "notes": [],
    }  # fmt: skip
    root = RunWriter(tmp_path).write("full", [result], records="pool")
    sentence = f"On mmmu it reaches {told} when the images are withheld."
    assert sentence in describe_run(FinishedRun(RunDir(root)), None)
    decimals = {1: "0.3471", 100: "85.04"}[scale]
    assert f"| mmmu | accuracy | {decimals} | 9 |" in write_model_card(RunDir(root))


@pytest.mark.parametrize("records", ["pool", "subset"])
def test_the_folder_of_a_comparison_is_called_that(tmp_path, records):
    root = only_audited(tmp_path, records)
    for name in ("prism-0.2-seed0", "random-0.2-seed0"):
        (root / "cells" / name).mkdir(parents=True)
        (root / "cells" / name / "cell.yaml").touch()
    (root / "cells" / "evidence").mkdir()
    (root / "comparison.html").touch()
    if (root / "selection").exists():
        (root / "selection" / "stage.json").unlink()
    run = FinishedRun(RunDir(root))
    assert describe_run(run, None) == [
        "This is the folder of a comparison of 2 cells, each a run of its own: what was selected, "
        "tuned and evaluated lies in them.",
        "What it found: comparison.html.",
        "Its cells: cells/prism-0.2-seed0, cells/random-0.2-seed0.",
        f"`prism-tune report {root}/cells/NAME` makes the report of a cell.",
    ]
    assert list(facts(run)) == ["Model", "Pool", "Tuning"]


def test_reports_of_cells_are_named(tmp_path):
    root = only_audited(tmp_path, "pool")
    (root / "cells" / "prism-0.2-seed0" / "report").mkdir(parents=True)
    (root / "cells" / "prism-0.2-seed0" / "cell.yaml").touch()
    (root / "cells" / "prism-0.2-seed0" / "report" / "index.html").touch()
    assert describe_run(FinishedRun(RunDir(root)), None)[1:] == [
        "It has no table yet.",
        "Its cells: cells/prism-0.2-seed0.",
        "Reports of cells: cells/prism-0.2-seed0/report.",
    ]

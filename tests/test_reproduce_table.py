"""scripts/reproduce_table.sh: set-up, the plan, then the grid."""

from __future__ import annotations

import pytest
from support.script_sandbox import Sandbox


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


def verbs(sandbox):
    return [call.removeprefix("-m prism_tune ") for call in sandbox.calls if "pip" not in call]


def test_a_dry_run_prints_the_plan_and_does_nothing(sandbox):
    rows = {"SEEDS": "0 1", "ROWS": "*_prism *_random"}
    shown = sandbox.run("reproduce_table.sh", "quickstart", "--dry-run", **rows)
    assert shown.returncode == 0, shown.stderr
    assert verbs(sandbox) == []
    for run in ("random-seed0", "random-seed1", "prism-seed0", "prism-seed1"):
        assert f"| quickstart_{run} | select, train, evaluate |" in " ".join(shown.stdout.split())
    assert "4 of 4 runs are left" in shown.stdout


def test_a_table_is_its_grid(sandbox):
    done = sandbox.run("reproduce_table.sh", "main", SEEDS="0 1 2", ROWS="prism* random*")
    assert done.returncode == 0, done.stderr
    assert "### Plan: table_main" in done.stdout
    assert verbs(sandbox) == ["compare main compare.seeds=[0,1,2] --rows prism* random*"]
    sandbox.run("reproduce_table.sh", "quickstart")
    assert verbs(sandbox)[1:] == ["compare quickstart compare.seeds=[0] --rows *"]


def test_keys_go_to_the_grid(sandbox):
    done = sandbox.run("reproduce_table.sh", "quickstart", "training.hf.max_steps=1")
    assert done.returncode == 0, done.stderr
    assert verbs(sandbox) == [
        "compare quickstart compare.seeds=[0] training.hf.max_steps=1 --rows *"
    ]


def test_language_benchmarks_are_set_up(sandbox):
    sandbox.run("reproduce_table.sh", "language")
    assert sandbox.calls[0].endswith("[quickstart,eval]")


def test_a_grid_with_failures_ends_so(sandbox):
    assert sandbox.run("reproduce_table.sh", "quickstart", FAIL_AT=" compare ").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        ([], {}, "bash scripts/reproduce_table.sh TABLE [key=value ...] [--dry-run]"),
        (["mian"], {}, "no table 'mian'; there are ablation, language, main"),
        (["main"], {"SEEDS": "one"}, "compare.seeds"),
        (["main"], {"ROWS": "nobody"}, "no row is called nobody"),
        (["main", "ablation"], {}, "error: one table at a time, not main and ablation"),
        (["main", "ablation"], {}, "bash scripts/reproduce_table.sh TABLE [key=value ...]"),
        (["seed=1"], {}, "bash scripts/reproduce_table.sh TABLE [key=value ...]"),
        (
            ["main", "--what"],
            {},
            "bash scripts/reproduce_table.sh TABLE [key=value ...] [--dry-run]",
        ),
    ],
)
def test_refusals(sandbox, arguments, environment, complaint):
    refused = sandbox.run("reproduce_table.sh", *arguments, **environment)
    assert refused.returncode == 2
    assert complaint in " ".join(refused.stderr.split())
    assert verbs(sandbox) == []


def test_it_explains_itself(sandbox):
    shown = sandbox.run("reproduce_table.sh", "--help")
    assert shown.returncode == 0
    assert "SEEDS    every row is run under each" in shown.stdout
    assert "set -euo" not in shown.stdout

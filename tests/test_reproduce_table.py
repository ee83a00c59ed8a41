"""scripts/reproduce_table.sh: plan first, then every run once; failures tried again and named."""

from __future__ import annotations

import os

import pytest
from support.script_sandbox import Sandbox

from prism_tune.config.load import load_config, render_config
from prism_tune.run.folder import RunDir, write_atomic
from prism_tune.run.stage import Stage

TABLES = "quickstart_tables/quickstart"
ONLY = {"ROWS": "*_prism *_random"}


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


def reproduce(sandbox, *arguments, **environment):
    return sandbox.run("reproduce_table.sh", *arguments, **{"LAUNCH": "local", **environment})


def verbs(sandbox):
    calls = [call.removeprefix("-m prism_tune ") for call in sandbox.calls if "pip" not in call]
    return [call.replace(f"configs/experiments/{TABLES}", "Q") for call in calls]


def stages(name, seed=0, verbs=("select", "train", "evaluate")):
    return [f"{verb} Q_{name}.yaml name=quickstart_{name}-seed{seed} seed={seed}" for verb in verbs]


def finish(sandbox, name, seed=0, stages=("selection", "training", "evaluation/quickstart")):
    """What a finished run leaves behind."""
    preset = sandbox.root / f"configs/experiments/{TABLES}_{name}.yaml"
    config = load_config(preset, [f"name=quickstart_{name}-seed{seed}", f"seed={seed}"])
    run = RunDir(sandbox.root / "runs" / config.name)
    write_atomic(run.config, render_config(config))
    for stage in stages:
        Stage(run.root / stage).finish({})


def test_a_dry_run_prints_the_plan_and_does_nothing(sandbox):
    shown = reproduce(sandbox, "quickstart", "--dry-run", SEEDS="0 1", **ONLY)
    assert shown.returncode == 0, shown.stderr
    assert verbs(sandbox) == []
    for run in ("random-seed0", "random-seed1", "prism-seed0", "prism-seed1"):
        assert f"| quickstart_{run} | select, train, evaluate |" in " ".join(shown.stdout.split())
    assert "4 of 4 runs are left: about" in shown.stdout


def test_a_table_from_nothing(sandbox):
    done = reproduce(sandbox, "quickstart", SEEDS="0 1", **ONLY)
    assert done.returncode == 0, done.stderr
    rows = [
        f"--runs runs/quickstart_{name}-seed{seed}"
        for name in ("random", "prism")
        for seed in (0, 1)
    ]
    assert verbs(sandbox) == [
        "prepare Q_random.yaml",
        "audit Q_random.yaml name=quickstart_random-seed0 seed=0",
        *stages("random"),
        *stages("random", 1),
        *stages("prism"),
        *stages("prism", 1),
        f"tables main {' '.join(rows)}",
        f"tables ablation {' '.join(rows[2:])}",
        f"tables cost {' '.join(rows)}",
    ]
    assert "took:" in done.stdout
    assert done.stdout.endswith("Done: every run of the table has finished.\n")


def test_finished_runs_and_stages_are_skipped(sandbox):
    finish(sandbox, "random")
    finish(sandbox, "prism", stages=("selection",))
    done = reproduce(sandbox, "quickstart", **ONLY)
    assert done.returncode == 0, done.stderr
    assert verbs(sandbox)[2:4] == stages("prism", verbs=("train", "evaluate"))
    assert verbs(sandbox)[4].startswith("tables main --runs runs/quickstart_random-seed0 ")
    assert "| finished" in done.stdout


def test_a_run_of_another_config_is_not_taken_for_finished(sandbox):
    finish(sandbox, "random")
    path = sandbox.root / f"configs/experiments/{TABLES}_random.yaml"
    path.write_text(path.read_text() + "  budget: 0.1\n")
    reproduce(sandbox, "quickstart", ROWS="*_random")
    assert verbs(sandbox)[2:5] == stages("random")


def test_a_stage_that_fails_once_is_tried_again(sandbox):
    done = reproduce(sandbox, "quickstart", FAIL_ONCE_AT=" train ", **ONLY)
    assert done.returncode == 0, done.stderr
    select, train, evaluate = stages("random")
    assert verbs(sandbox)[2:6] == [select, train, train, evaluate]
    assert "failed; once more" in done.stdout


def test_a_run_that_fails_twice_is_given_up_named_and_left_out_of_the_tables(sandbox):
    done = reproduce(
        sandbox, "quickstart", FAIL_AT="train configs/experiments/" + TABLES + "_random", **ONLY
    )
    assert done.returncode == 1
    select, train, _ = stages("random")
    prism = "--runs runs/quickstart_prism-seed0"
    assert verbs(sandbox)[2:] == [
        select,
        train,
        train,
        *stages("prism"),
        *(f"tables {kind} {prism}" for kind in ("main", "ablation", "cost")),
    ]
    assert "Not finished:\nruns/quickstart_random-seed0\n" in done.stderr


def test_a_pool_that_does_not_pass_the_audit_stops_the_job(sandbox):
    done = reproduce(sandbox, "quickstart", FAIL_AT=" audit ", **ONLY)
    assert done.returncode == 1
    assert verbs(sandbox)[-1].startswith("audit ")


def test_an_interrupted_job_stops_at_once(sandbox):
    """Ctrl-C reaches the stage, which ends with a code of its own, and the script."""
    torchrun = sandbox.venv / "bin/torchrun"
    torchrun.write_text(f'#!/bin/bash\necho "$*" >>"{sandbox.log}"\nkill -INT $PPID\nexit 1\n')
    torchrun.chmod(0o755)
    done = reproduce(sandbox, "quickstart", LAUNCH="torchrun", NPROC="2", ROWS="*_prism")
    assert done.returncode == 130
    assert len(verbs(sandbox)) == 3  # prepare, audit, and the first stage once


def test_several_processes(sandbox):
    torchrun = sandbox.venv / "bin/torchrun"
    torchrun.write_text(f'#!/bin/bash\necho "torchrun $*" >>"{sandbox.log}"\n')
    torchrun.chmod(0o755)
    done = reproduce(sandbox, "quickstart", LAUNCH="", NPROC="2", ROWS="*_prism")
    assert done.returncode == 0, done.stderr
    launched = "torchrun --standalone --nproc_per_node=2 -m prism_tune"
    assert verbs(sandbox)[2:5] == [f"{launched} {call}" for call in stages("prism")]


def test_inside_a_slurm_job(sandbox):
    """`srun` and `scontrol` are stand-ins; what SLURM sets is set by hand."""
    sandbox.place_command("srun", f'echo "srun $*" >>"{sandbox.log}"')
    path = sandbox.place_command("scontrol", "echo gpu07; echo gpu08")
    done = sandbox.run(
        "slurm/reproduce_table.sbatch",
        "quickstart",
        PATH=f"{path}:{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=str(sandbox.root),
        SLURM_JOB_NODELIST="gpu[07-08]",
        SLURM_JOB_ID="41",
        SLURM_NNODES="2",
        SLURM_GPUS_ON_NODE="8",
        ROWS="*_prism",
    )
    assert done.returncode == 0, done.stderr
    torchrun = (
        f"srun --kill-on-bad-exit=1 {sandbox.venv}/bin/torchrun --nnodes=2 --nproc_per_node=8 "
        "--rdzv_id=41 --rdzv_backend=c10d --rdzv_endpoint=gpu07:20041 -m prism_tune"
    )
    assert verbs(sandbox)[0].startswith("srun --nodes=1 --ntasks=1 ")
    assert verbs(sandbox)[2:5] == [f"{torchrun} {call}" for call in stages("prism")]
    lost = sandbox.run("slurm/reproduce_table.sbatch", "main", SLURM_SUBMIT_DIR="/tmp")
    assert lost.returncode == 2
    assert "submit from the repository" in lost.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        ([], {}, "bash scripts/reproduce_table.sh TABLE [--dry-run]"),
        (["mian"], {}, "no table 'mian'; there are main, main_lora, ablation"),
        (["main"], {"SEEDS": "one"}, "--seeds: expected numbers, found 'one'"),
        (["main"], {"ROWS": "nobody"}, "no row is called nobody"),
        (["main"], {"LAUNCH": "slurm"}, "LAUNCH=slurm works inside a job"),
        (["main"], {"LAUNCH": "pbs"}, "LAUNCH=pbs: expected local, torchrun or slurm"),
        (["main", "--what"], {}, "bash scripts/reproduce_table.sh TABLE [--dry-run]"),
    ],
)
def test_refusals(sandbox, arguments, environment, complaint):
    refused = reproduce(sandbox, *arguments, **environment)
    assert refused.returncode == 2
    assert complaint in " ".join(refused.stderr.split())
    assert verbs(sandbox) == []


def test_it_explains_itself(sandbox):
    shown = reproduce(sandbox, "--help")
    assert shown.returncode == 0
    assert "SEEDS    every row is run under each" in shown.stdout
    assert "set -euo" not in shown.stdout

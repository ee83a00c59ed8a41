"""`prism-tune run`: which verbs, in which order, and what happens where one fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from prism_tune.cli.grid import check_given
from prism_tune.cli.run import plan_grid, plan_steps, run
from prism_tune.compare.launch import Launcher
from prism_tune.config.load import load_config
from prism_tune.run.folder import RunDir

ROOT = Path(__file__).parents[2]
QUICKSTART = "configs/experiments/quickstart.yaml"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def verbs(*given):
    config = load_config(given[0], given[1:])
    if config.compare is None:
        steps = plan_steps(config, given)
    else:
        steps = plan_grid(config, RunDir(Path(config.output_dir) / config.name), given)[1]
    calls = [" ".join(step.arguments) for step in steps]
    unnamed = " ".join(part for part in given if not part.startswith("name="))
    return [call.replace(unnamed, "CONFIG") for call in calls]


def test_the_embedded_default_is_a_grid_and_the_report_of_our_selector():
    cells = "runs/quickstart/cells"
    beside = ("whole_pool-seed0", "random-0.2-seed0", "prism-0.2-seed0")
    compared = " ".join(f"--compare {cells}/{name}" for name in beside)
    assert verbs(QUICKSTART) == [
        "prepare CONFIG",
        "compare CONFIG",
        f"report {cells}/kernel_repulsion-0.2-seed0 {compared}",
    ]


def test_of_several_seeds_and_budgets_the_first_is_reported():
    given = ("compare.seeds=[3,4]", "compare.budgets=[0.1,0.2]", "compare.whole_pool=false")
    called = verbs(QUICKSTART, *given, "compare.selectors=[random,prism]", "data.prepare=null")
    cells = "runs/quickstart/cells"
    assert called == [
        "compare CONFIG",
        f"report {cells}/prism-0.1-seed3 --compare {cells}/random-0.1-seed3",
    ]


def test_a_config_without_compare_is_one_row():
    assert verbs(QUICKSTART, "compare=null") == [
        "prepare CONFIG",
        "audit CONFIG name=quickstart",
        "evaluate CONFIG name=quickstart-untuned training.tuning=none",
        "select CONFIG name=quickstart",
        "train CONFIG name=quickstart",
        "evaluate CONFIG name=quickstart",
        "tables main --runs runs/quickstart-untuned --runs runs/quickstart",
        "report runs/quickstart --compare runs/quickstart-untuned",
    ]


def test_with_a_random_subset_and_overrides():
    assert verbs(
        QUICKSTART, "compare=null", "compare_random=true", "name=trial", "output_dir=out"
    ) == [
        "prepare CONFIG",
        "audit CONFIG name=trial",
        "evaluate CONFIG name=trial-untuned training.tuning=none",
        *(
            f"{verb} CONFIG name=trial-random selection.scorer=random selection.options=null"
            for verb in ("select", "train", "evaluate")
        ),
        *(f"{verb} CONFIG name=trial" for verb in ("select", "train", "evaluate")),
        "tables main --runs out/trial-untuned --runs out/trial-random --baseline trial-random "
        "--runs out/trial",
        "report out/trial --compare out/trial-untuned --compare out/trial-random",
    ]


@pytest.mark.parametrize("name", ["2024", "no", "1e5", "null", "2024-01-01"])
def test_a_name_that_yaml_reads_otherwise_is_a_name(name, tmp_path):
    path = str(tmp_path / "mine.yaml")
    Path(path).write_text(f"base: preset:quickstart\nname: '{name}'\ncompare: null\n")
    steps = plan_steps(load_config(path), (path,))
    verbs = {"audit", "select", "train", "evaluate"}
    given = [step.arguments[2:] for step in steps if step.arguments[0] in verbs]
    names = [load_config(path, overrides).name for overrides in given]
    assert names == [name, f"{name}-untuned", name, name, name]


def test_on_the_whole_pool_nothing_is_selected():
    called = verbs(QUICKSTART, "compare=null", "training.records=pool", "data.prepare=null")
    assert called[:4] == [
        "audit CONFIG name=quickstart",
        "evaluate CONFIG name=quickstart-untuned training.tuning=none",
        "train CONFIG name=quickstart",
        "evaluate CONFIG name=quickstart",
    ]


def test_an_alignment_is_trained_and_reported():
    path = "configs/experiments/phi2_3b_align.yaml"
    assert [call.split()[0] for call in verbs(path)] == ["audit", "train", "report"]


class Recorder:
    """Stands for a launcher; one verb fails."""

    def __init__(self, fails=None, code=1):
        self.called, self.fails, self.code = [], fails, code

    def prepare(self, num_at_once):
        assert num_at_once == 1

    def command(self, arguments):
        return Launcher("local", 1, sys.exit, ()).command(arguments)

    def check(self, main, arguments):
        self.checked = [main.__name__, *arguments]
        return self.code if self.fails == "check" else 0

    def run(self, arguments):
        self.called.append(arguments[0])
        return self.code if arguments[0] == self.fails else 0


@pytest.mark.parametrize(("code", "exit_code"), [(1, 1), (2, 2), (-9, 1)])
def test_a_failing_stage_stops_the_job_and_says_how_to_go_on(code, exit_code, monkeypatch, capsys):
    launcher = Recorder("train", code)
    monkeypatch.setattr("prism_tune.cli.run.find_launcher", lambda launch, nproc: launcher)
    with pytest.raises(typer.Exit) as stopped:
        run(Path(QUICKSTART), ["compare=null"])
    assert stopped.value.exit_code == exit_code
    assert launcher.called == ["prepare", "audit", "evaluate", "select", "train"]
    said = capsys.readouterr()
    assert f"Step 5 (Tune: quickstart) did not finish (exit code {code})" in said.err
    assert "Once that is mended, the same command goes on from here." in said.err
    assert "Report:" not in said.out


def test_what_the_training_would_refuse_is_refused_before_the_first_stage(monkeypatch, capsys):
    launcher = Recorder("check", 2)
    monkeypatch.setattr("prism_tune.cli.run.find_launcher", lambda launch, nproc: launcher)
    with pytest.raises(typer.Exit) as stopped:
        run(Path(QUICKSTART), ["compare=null", "training.hf.learnin_rate=1"])
    assert stopped.value.exit_code == 2
    assert launcher.called == []
    assert launcher.checked == [
        *("check_given", QUICKSTART, "compare=null", "training.hf.learnin_rate=1")
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.hf.learnin_rate=1", "did you mean `learning_rate`"),
        ("training.hf.max_steps=abc", "training.hf.max_steps = 'abc'"),
        ("training.lora.rr=8", "LoraConfig has no `rr`"),
        ("training.deepspeed=nope.json", "nope.json: no such file"),
        ("training.freeze=[language_model]", "LoRA adapts the language model, which is frozen"),
        ("selection.scorer=prisma", "unknown scorer 'prisma'"),
    ],
)
def test_what_is_checked_before_the_first_stage(override, told, capsys):
    with pytest.raises(SystemExit) as ended:
        check_given([QUICKSTART, "compare=null", override])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_sound_config_and_an_untuned_one_pass():
    for overrides in ([], ["training.tuning=none", "training.hf.learnin_rate=1"]):
        with pytest.raises(SystemExit) as ended:
            check_given([QUICKSTART, "compare=null", *overrides])
        assert ended.value.code == 0


def test_the_job_is_told_and_ends_with_the_report(monkeypatch, capsys):
    monkeypatch.setattr("prism_tune.cli.run.find_launcher", lambda launch, nproc: Recorder())
    run(Path(QUICKSTART), ["compare=null", "name=trial"])
    told = capsys.readouterr().out
    assert "=== 4. Select: trial\n    why:  the records that the scorer 'prism' keeps" in told
    assert (
        f"    run:  prism-tune train {QUICKSTART} compare=null name=trial\n    took: 0 s"
    ) in told
    assert told.endswith("Report:     runs/trial/report/index.html\nRun folder: runs/trial\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["configs/experiments/absent.yaml"], "absent.yaml: no such config file"),
        ([QUICKSTART, "seeed=1"], "did you mean `seed`?"),
        ([QUICKSTART, "--launch", "pbs"], "'local', 'torchrun', 'slurm'"),
        ([QUICKSTART, "--launch", "slurm"], "works inside a job"),
    ],
)
def test_a_bad_call_is_refused_before_any_work(arguments, complaint):
    command = [sys.executable, "-m", "prism_tune", "run", *arguments]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert complaint in " ".join(refused.stderr.split())
    assert "===" not in refused.stdout

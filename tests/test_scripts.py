"""The shell scripts: set-up that repairs itself, clear refusals, and the order of the main job."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from support.script_sandbox import ROOT, Sandbox

SCRIPTS = [*sorted((ROOT / "scripts").rglob("*.*s*h")), ROOT / ".ci/run"]


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


@pytest.fixture
def only_basics(sandbox):
    """A PATH with what every machine has, and no Python."""
    basics = ("awk", "basename", "cat", "cksum", "dirname", "grep", "head", "ls", "sort", "tail")
    for name in basics:
        sandbox.place_command(name, f'exec {shutil.which(name)} "$@"')
    return sandbox.commands


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_set_up_installs_once_and_then_has_nothing_to_do(sandbox):
    first = sandbox.run("setup.sh", "dev,eval")
    assert first.returncode == 0, first.stderr
    assert [call.rpartition("-e ")[2] for call in sandbox.calls] == [f"{sandbox.root}[dev,eval]"]
    for extras in ("dev,eval", "eval", "quickstart"):  # dev has the quickstart's packages
        again = sandbox.run("setup.sh", extras)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(sandbox.calls) == 1


def test_set_up_installs_again_what_is_new_or_changed(sandbox):
    sandbox.run("setup.sh", "quickstart")
    sandbox.run("setup.sh", "eval")
    assert len(sandbox.calls) == 2
    sandbox.run("setup.sh", "quickstart")
    sandbox.run("setup.sh", "quickstart,eval")
    assert len(sandbox.calls) == 2
    (sandbox.root / "setup.py").write_text("# other requirements")
    sandbox.run("setup.sh", "eval")
    sandbox.run("setup.sh", "eval", PRISM_TUNE_TORCH="torch==2.9.1")
    assert len(sandbox.calls) == 4
    assert "torch==2.9.1 -e " in sandbox.calls[-1]


def test_a_torch_that_was_asked_for_once_holds_until_another_is(sandbox):
    """The next script is called without it, and may be on a node that reaches no index."""
    build = "torch @ file:///builds/torch-2.9.1+cu130.whl"
    sandbox.run("setup.sh", PRISM_TUNE_TORCH=build)
    for environment in ({}, {"PRISM_TUNE_TORCH": build}):
        again = sandbox.run("setup.sh", **environment)
        assert (again.returncode, again.stderr) == (0, "")
    assert len(sandbox.calls) == 1
    sandbox.run("setup.sh", "eval")
    assert f"{build} -e " in sandbox.calls[-1]
    sandbox.run("setup.sh", PRISM_TUNE_TORCH="torch==2.9.1")
    assert "torch==2.9.1 -e " in sandbox.calls[-1]
    assert len(sandbox.calls) == 3


@pytest.mark.parametrize(("laid_out", "says_what_comes"), [("0", False), ("1", True)])
def test_without_a_gpu_a_torch_that_pip_has_as_a_file_goes_first(
    sandbox, laid_out, says_what_comes
):
    """The newest of an index, which pip would take, comes with CUDA's libraries."""
    sandbox.place_command("nvidia-smi", "exit 1")
    environment = {"HAS_TORCH_EXIT_CODE": "1", "LAID_OUT_EXIT_CODE": laid_out}
    done = sandbox.run("setup.sh", **environment)
    assert done.returncode == 0, done.stderr
    first, second = sandbox.calls
    assert first.endswith("--no-index --no-deps torch")
    assert second.endswith(f"-e {sandbox.root}[quickstart]")
    assert ("pip brings the" in done.stderr) is says_what_comes


@pytest.mark.parametrize(
    "environment",
    [
        {"HAS_TORCH_EXIT_CODE": "0"},
        {"HAS_TORCH_EXIT_CODE": "1", "PRISM_TUNE_TORCH": "torch==2.9.1"},
    ],
)
def test_a_torch_that_is_there_or_asked_for_is_left_alone(sandbox, environment):
    sandbox.place_command("nvidia-smi", "exit 1")
    sandbox.run("setup.sh", **environment)
    assert len(sandbox.calls) == 1


def test_with_a_gpu_torch_comes_from_the_index_and_takes_more_room(sandbox):
    sandbox.place_command("nvidia-smi", "exit 0")
    sandbox.say_free(11)
    refused = sandbox.run("setup.sh", HAS_TORCH_EXIT_CODE="1")
    assert "12 GB needed" in refused.stderr
    sandbox.say_free(12)
    sandbox.run("setup.sh", HAS_TORCH_EXIT_CODE="1")
    assert len(sandbox.calls) == 1


def test_a_wheel_is_installed_in_place_of_the_checkout(sandbox):
    sandbox.run("setup.sh", "quickstart")
    sandbox.run("setup.sh", "quickstart", PRISM_TUNE_WHEEL="dist/prism_tune-1-py3-none-any.whl")
    assert sandbox.calls[-1].endswith(" dist/prism_tune-1-py3-none-any.whl[quickstart]")


def test_an_installation_that_failed_is_not_taken_for_finished(sandbox):
    failed = sandbox.run("setup.sh", PIP_EXIT_CODE="1")
    assert failed.returncode == 1
    assert "The next run continues it." in failed.stderr
    assert sandbox.run("setup.sh").returncode == 0
    assert len(sandbox.calls) == 2


def test_packages_of_a_killed_installation_are_installed_again(sandbox):
    whole, half = (sandbox.site / f"{name}-1.0.dist-info" for name in ("whole", "half"))
    for package in (whole, half):
        package.mkdir()
        (package / "METADATA").touch()
    (whole / "INSTALLER").write_text("pip")
    sandbox.run("setup.sh")
    assert half.exists()  # an environment that the script did not make is the user's own
    (sandbox.venv / ".prism_tune_setup").unlink()
    (sandbox.venv / ".prism_tune_created").touch()
    mended = sandbox.run("setup.sh")
    assert "half-1.0.dist-info was not completely installed" in mended.stderr
    assert (whole.exists(), half.exists()) == (True, False)


def test_without_python_set_up_says_what_it_looked_for(sandbox, only_basics):
    shutil.rmtree(sandbox.venv)
    refused = sandbox.run("setup.sh", PATH=str(only_basics))
    assert refused.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13" in refused.stderr
    assert "no Python at all (looked for python3.13 " in refused.stderr
    assert not sandbox.venv.exists()


def test_with_an_old_python_set_up_says_what_it_found(sandbox, only_basics):
    shutil.rmtree(sandbox.venv)
    sandbox.place_command("python3", '[ "$1" != --version ] && exit 1; echo Python 3.8.10')
    refused = sandbox.run("setup.sh", PATH=str(only_basics))
    assert refused.returncode == 1
    assert "Found: python3 (Python 3.8.10);" in refused.stderr


def test_with_a_full_disk_set_up_says_how_much_is_needed(sandbox):
    sandbox.say_free(3)
    refused = sandbox.run("setup.sh")
    assert refused.returncode == 1
    assert "not enough disk: 3 GB free in " in refused.stderr
    assert "6 GB needed" in refused.stderr
    assert sandbox.calls == []


def test_a_folder_that_is_no_environment_is_left_alone(sandbox, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("chapter one")
    refused = sandbox.run("setup.sh", PRISM_TUNE_VENV=str(precious))
    assert refused.returncode == 1
    assert "is not a virtual environment; it is left as it is" in refused.stderr
    assert (precious / "thesis.tex").read_text() == "chapter one"


def verbs(sandbox: Sandbox) -> list[str]:
    """The calls of `prism_tune`, without the parts that every call has."""
    return [call.removeprefix("-m prism_tune ") for call in sandbox.calls if "pip" not in call]


def test_the_main_job_from_the_embedded_default(sandbox):
    done = sandbox.run("select_and_finetune.sh")
    assert done.returncode == 0, done.stderr
    assert "pip install" in sandbox.calls[0]
    assert verbs(sandbox) == ["run configs/experiments/quickstart.yaml"]
    assert "=== Set up\n    why:" in done.stdout


def test_the_main_job_with_overrides(sandbox):
    sandbox.run("select_and_finetune.sh", "compare_random=true", "name=trial")
    assert verbs(sandbox) == [
        "run configs/experiments/quickstart.yaml compare_random=true name=trial"
    ]


def test_the_main_job_on_somebodys_own_config_from_their_own_folder(sandbox, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    config = "{name: mine, model: {path: m}, data: {records: p.json}, evaluation: {benchmarks: %s}}"
    (folder / "mine.yaml").write_text(config % "[pope]")
    done = sandbox.run("select_and_finetune.sh", "mine.yaml", "seed=1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert verbs(sandbox) == [f"run {folder}/mine.yaml seed=1"]
    (folder / "mine.yaml").write_text(config % "[pope, mmlu]")
    sandbox.run("select_and_finetune.sh", "mine.yaml", cwd=folder)
    assert any(call.endswith("[quickstart,eval]") for call in sandbox.calls)


def test_the_main_job_on_a_config_whose_path_has_an_equals_sign(sandbox, tmp_path):
    config = tmp_path / "lr=1" / "my.yaml"
    config.parent.mkdir()
    config.write_text(
        "{name: mine, model: {path: m}, data: {records: p.json}, evaluation: {benchmarks: [pope]}}"
    )
    done = sandbox.run("select_and_finetune.sh", "lr=1/my.yaml", "seed=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert verbs(sandbox) == [f"run {config} seed=1"]


def test_a_failing_job_passes_its_exit_code_on(sandbox):
    assert sandbox.run("select_and_finetune.sh", FAIL_AT=" run ").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["configs/experiments/absent.yaml"], "absent.yaml: no such config file"),
        (["seeed=1"], "did you mean `seed`?"),
        (["selection.budget=1.5"], "expected a fraction in (0, 1] or a positive count"),
    ],
)
def test_the_main_job_refuses_a_bad_config_before_any_work(sandbox, arguments, complaint):
    refused = sandbox.run("select_and_finetune.sh", *arguments)
    assert refused.returncode == 2
    assert complaint in refused.stderr
    assert verbs(sandbox) == []


def test_the_main_job_explains_itself(sandbox):
    shown = sandbox.run("select_and_finetune.sh", "--help")
    assert shown.returncode == 0
    assert "bash scripts/select_and_finetune.sh [CONFIG] [key=value ...]" in shown.stdout
    assert "set -euo" not in shown.stdout
    assert sandbox.calls == []


@pytest.mark.parametrize(
    ("job", "argument", "verb"),
    [
        ("select_and_finetune", "configs/experiments/quickstart.yaml", "run"),
        ("reproduce_table", "main", "compare"),
    ],
)
def test_the_slurm_jobs_are_the_same_scripts(sandbox, job, argument, verb):
    inside = {"SLURM_SUBMIT_DIR": str(sandbox.root), "SLURM_CPUS_PER_GPU": "6"}
    inside["SLURM_GPUS_ON_NODE"] = "4"
    done = sandbox.run(f"slurm/{job}.sbatch", argument, **inside)
    assert done.returncode == 0, done.stderr
    assert verbs(sandbox)[-1].startswith(f"{verb} {argument}")
    assert sandbox.environment_of_last_call() >= {
        *("LAUNCH=slurm", "OMP_NUM_THREADS=6", "SRUN_CPUS_PER_TASK=24")
    }
    lost = sandbox.run(f"slurm/{job}.sbatch", argument, SLURM_SUBMIT_DIR="/tmp")
    assert lost.returncode == 2
    assert "submit from the repository" in lost.stderr


ASKED = """
cd "{scripts}/.."
scontrol() {{ echo "scontrol $*"; }}
SLURM_JOB_ID=41
. scripts/slurm/job.sh
kill() {{
  SECONDS=$((SECONDS + {worked}))
  builtin kill "$@"; local code=$?; sleep {late}; return $code
}}
(until [ -e works ]; do sleep 0.02; done; builtin kill -{signal} $$) &
run_until_time_is_up bash -c 'trap "exit {code}" TERM; >works; while :; do sleep 0.02; done'
"""


@pytest.mark.parametrize("late", [0, 0.3])  # the command has ended before the shell looks again
@pytest.mark.parametrize(
    ("signal", "code", "worked", "is_queued_again"),
    [
        ("USR1", 143, 60, True),
        ("TERM", 143, 60, False),
        ("USR1", 1, 60, False),
        ("USR1", 143, 0, False),
    ],
)
def test_a_job_whose_time_is_up_is_queued_again(
    sandbox, late, signal, code, worked, is_queued_again
):
    """SLURM queues a preempted job again by itself; one that has failed, or has not worked for a
    minute, would be queued for ever."""
    values = {"signal": signal, "code": code, "late": late, "worked": worked}
    command = ASKED.format(scripts=sandbox.root / "scripts", **values)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("scontrol requeue 41" in done.stdout) is is_queued_again

"""The command line: verbs, exit codes, one clear message, and help that loads nothing heavy."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_tune import __version__
from prism_tune.cli.app import app
from prism_tune.cli.options import loading
from prism_tune.errors import ConfigError
from prism_tune.models.assembly.assemble import Recipe
from prism_tune.processes import check_launch, is_main
from prism_tune.run.ranks import meet

VERBS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)
CONFIG = "{name: trial, model: {path: m}, data: {records: pool.json}}"
HELP_OF_EVERY_VERB = """
import sys
from typer.testing import CliRunner
from prism_tune.cli.app import app
for verb in sys.argv[1:]:
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0, (verb, result.output)
    assert "Usage:" in result.output, (verb, result.output)
print(*sys.modules)
"""


def prism_tune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prism_tune", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "trial.yaml").write_text(CONFIG)
    return tmp_path


def test_the_verbs_of_the_documentation_are_there():
    documented = {"prepare", "select", "train", "evaluate", "preview", "tables", "show", "doctor"}
    assert documented <= set(VERBS)


def test_a_path_at_home_is_read_where_no_shell_has_expanded_it(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    options = ("--plugin=~/own.py", "show", "~/trial.yaml", "--key=name")
    told = prism_tune(*options, cwd=folder)
    assert f"plugins: {folder}/own.py: no such Python file" in told.stderr
    shutil.copy(Path(__file__).parents[2] / "docs" / "plugins" / "my_scorer.py", folder / "own.py")
    assert prism_tune(*options, cwd=folder).stdout == "trial\n"


def test_help_of_every_verb_loads_nothing_heavy(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-c", HELP_OF_EVERY_VERB, *VERBS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(shown.stdout.split())
    assert loaded & {"torch", "transformers", "deepspeed", "datasets", "numpy", "pyarrow"} == set()
    own = {name for name in loaded if name.partition(".")[0] == "prism_tune"}
    words = (
        "config",
        "config.sections",
        "chat",
        "chat.builtin_templates",
        "errors",
        "results",
        "results.render",
    )
    words += ("compare", "compare.launch", "compare.workers", "compare.children")  # how they start
    words += ("run", "run.worker_processes", "run.partial")  # how many of them, one at a time
    words += ("interrupts", "processes", "config.secrets", "config.values")
    allowed = {f"prism_tune.{name}" for name in words}
    assert {name for name in own if not name.startswith("prism_tune.cli")} <= {
        "prism_tune",
        *allowed,
    }


def test_the_version_is_that_of_the_package(tmp_path):
    shown = prism_tune("--version", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, f"prism_tune {__version__}\n")


def test_the_options_of_a_verb_of_many_options_reach_it(monkeypatch, tmp_path):
    """`assemble` takes them as one value; a test fails here when one is lost on the way."""
    given = {}
    monkeypatch.setattr(
        "prism_tune.models.assembly.assemble_checkpoint.assemble_checkpoint",
        lambda *parts, **more: given.update(parts=parts, **more),
    )
    parts = ["--vision-tower", "v", "--language-model", "l", "--to", str(tmp_path / "new")]
    options = ["--image-size", "56", "--feature-layer", "-1", "--template", "phi"]
    done = CliRunner().invoke(app, ["assemble", *parts, *options, "--fold-output-bias"])
    assert done.exit_code == 0, done.output
    recipe = Recipe(feature_layer=-1, image_size=56)
    assert given == {
        "parts": ("v", "l", tmp_path / "new", recipe),
        "chat_format": "phi",
        "fold_bias": True,
    }


def test_done_is_0(folder):
    done = prism_tune("show", "trial.yaml", "seed=3", "--key", "name,seed", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "trial\n3\n", "")


def test_what_show_prints_is_a_config(folder):
    shown = prism_tune("show", "trial.yaml", "selection.budget=0.1", cwd=folder)
    (folder / "again.yaml").write_text(shown.stdout)
    again = prism_tune("show", "again.yaml", cwd=folder)
    assert again.stdout == shown.stdout
    assert "budget: 0.1" in shown.stdout


def test_failed_is_1_with_one_message_and_no_traceback(folder):
    failed = prism_tune("tables", "main", "--runs", "nowhere", cwd=folder)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: nowhere: no such run folder")
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "absent.yaml"], "error: absent.yaml: no such config file"),
        (["show", "trial.yaml", "sede=1"], "did you mean `seed`?"),
        (["show", "trial.yaml", "seed"], "expected key=value"),
        (["show", "trial.yaml", "--key", "nothing"], "error: no key `nothing`"),
        (["show"], "Missing argument 'CONFIG'"),
        (["shwo", "trial.yaml"], "No such command 'shwo'"),
        (["select", "trial.yaml", "--frce"], "No such option: --frce"),
        (["export", "trial", "--to", "x", "--dtype", "int8"], "'int8' is not one of 'auto',"),
        (["tables", "main", "--format", "html"], "'html' is not one of 'md', 'latex',"),
    ],
)
def test_usage_and_config_errors_are_2(folder, arguments, complaint):
    refused = prism_tune(*arguments, cwd=folder)
    assert refused.returncode == 2
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "x"}, "RANK = 'x' in the environment: expected a number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two' in the environment: expected a number"),
        ({"SLURM_PROCID": "-1"}, "SLURM_PROCID = '-1' in the environment: expected a number"),
        ({"RANK": "1"}, "RANK = 1 in the environment, and WORLD_SIZE = 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0' in the environment: expected a number"),
        ({"WORLD_SIZE": "2"}, "no MASTER_ADDR and MASTER_PORT beside it"),
    ],
    ids=str,
)
def test_what_a_launcher_has_left_behind_is_named(monkeypatch, variables, says):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        _ = check_launch() or meet()
    assert is_main()  # whoever says it


def test_a_closed_stream_is_nobodys_file(folder):
    command = ["sh", "-c", '"$0" -m prism_tune data check trial.yaml >&- 2>&-', sys.executable]
    closed = subprocess.run(command, cwd=folder, check=False)
    assert closed.returncode == 1  # no pool is there


def test_garbage_is_collected_again_once_the_libraries_are_loaded():
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()  # the modules of this process are not a command's

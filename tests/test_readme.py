"""What README.md and docs/ tell people to type exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.load import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = {command.name or command.callback.__name__ for command in app.registered_commands}
GROUPS = {group.name for group in app.registered_groups}
VERBS |= GROUPS


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]


COMMANDS = [(page.name, line) for page in PAGES for line in shell_lines(page)]


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_shell_lines_are_shell(page, line):
    done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_verbs_and_options_exist(page, line):
    found = re.search(r"(?:prism-tune|-m prism_tune) ([a-z]+)(.*)", line)
    if found is None:
        return
    verb, rest = found.groups()
    assert verb in VERBS
    asked = [verb, "--help"] if verb not in GROUPS else [verb, rest.split()[0], "--help"]
    text = CliRunner().invoke(app, asked, env={"COLUMNS": "200"}).output
    for option in re.findall(r"(?<=\s)--[a-z][a-z-]+", rest.split("#")[0]):
        assert option in text


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_files_named_in_commands_exist(page, line):
    for path in re.findall(r"(?:scripts|configs|benchmarks|docs)/[\w./-]+", line.split("#")[0]):
        assert (ROOT / path).exists(), path


def test_the_yaml_examples_of_the_readme_load(tmp_path):
    examples = re.findall(r"```yaml\n(.*?)```", PAGES[0].read_text(), flags=re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "example.yaml"
        path.write_text(example)
        load_config(path)

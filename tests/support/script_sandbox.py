"""A copy of the repository's scripts, and a stand-in for its virtual environment's Python.

The stand-in answers `pip install` without installing and run and compare without working, notes
both, and passes everything else to the Python that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/usr/bin/env bash
case "$*" in
  "-m pip install "*--no-index*) echo "$*" >>"{log}"; exit "${{LAID_OUT_EXIT_CODE:-0}}" ;;
  *'find_spec("torch")'*) exit "${{HAS_TORCH_EXIT_CODE:-0}}" ;;
  "-m pip install "*) echo "$*" >>"{log}"; exit "${{PIP_EXIT_CODE:-0}}" ;;
  *sysconfig*) echo "{site}" ;;
  *" run "* | *" compare "*)
    echo "$*" >>"{log}"
    env >"{log}.environment"
    [[ "$*" != *"${{FAIL_AT:-nothing fails}}"* ]] || exit 1 ;;
  *) exec "{python}" "$@" ;;
esac
"""


class Sandbox:
    """A copy of the repository's scripts with a stand-in environment beside it."""

    def __init__(self, root: Path) -> None:
        if os.statvfs(root).f_flag & os.ST_NOEXEC:
            pytest.fail(f"{root}: no program runs there (noexec); set TMPDIR to another folder")
        self.root = root / "repository"
        self.venv = root / "venv"
        self.site = root / "site"
        self.log = root / "log"
        (self.root / "configs").mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / "configs", self.root / "configs", dirs_exist_ok=True)
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        self.site.mkdir()
        self.say_free(64)
        self.place_command("nvidia-smi", "exit 1")  # no GPU, whatever the machine has
        self.place_python(self.venv / "bin/python")

    def place_python(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN.format(log=self.log, site=self.site, python=sys.executable))
        path.chmod(0o755)

    @property
    def commands(self) -> Path:
        """The folder of stand-ins for commands, which goes before PATH."""
        return self.root.parent / "path"

    def place_command(self, name: str, body: str) -> None:
        self.commands.mkdir(exist_ok=True)
        (self.commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (self.commands / name).chmod(0o755)

    def say_free(self, gigabytes: int) -> None:
        """Of the disk, to the scripts; that of the machine that tests may be full."""
        free_kb = gigabytes * 2**20
        self.place_command("df", f"printf 'Filesystem\\n/dev/x 9 9 {free_kb} 9%% /\\n'")

    def run(self, script: str, *arguments: str, cwd: Path | None = None, **environment: str):
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("PRISM_TUNE_") and key != "OMP_NUM_THREADS"
        }
        variables = {"PRISM_TUNE_VENV": str(self.venv), "PYTHONPATH": str(ROOT), **environment}
        variables["PATH"] = f"{self.commands}:{environment.get('PATH', os.environ['PATH'])}"
        return subprocess.run(
            ["/bin/bash", str(self.root / "scripts" / script), *arguments],
            env=inherited | variables,
            cwd=cwd or self.root.parent,
            capture_output=True,
            text=True,
            check=False,
            # As at a terminal: tests in a shell's background inherit an interrupt that is ignored,
            # and bash cannot trap such a one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def environment_of_last_call(self) -> set[str]:
        return set(Path(f"{self.log}.environment").read_text().splitlines())

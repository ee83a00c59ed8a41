"""A few random kills of verbs that write, the same ones each time; `make torture` has them all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("support") / "torture.py"


@pytest.mark.slow
def test_the_same_command_ends_in_what_an_undisturbed_one_leaves():
    cases = ["select", "train", "export", "subset export"]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--kills", "6", "--cases", ",".join(cases)],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert ended.stdout.endswith("6 of 6 kills, 0 faults\n")

"""Two nodes on this machine: `scripts/two_nodes.sh`, and the namespaces that it must not leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "two_nodes.sh"


def run_on_two_nodes(*arguments: str, num_processes: int = 1, launcher: str = "torchrun") -> None:
    """`prism-tune` with these arguments, in so many processes on each; it has to succeed.

    Nothing of the network that the script has made may remain; other tests may have theirs.
    """
    environment = {"PRISM_TUNE_VENV": sys.prefix, "NPROC": str(num_processes), "LAUNCHER": launcher}
    with subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        _, said = script.communicate()
    if "Operation not permitted" in said or "sudo: " in said:
        why = said.strip()[-300:]
        pytest.fail(f"two nodes need root with CAP_SYS_ADMIN (CONTRIBUTING.md): {why}")
    assert script.returncode == 0, said[-3000:]
    folder = Path("/run/netns")  # where `ip netns` keeps those that have a name
    assert not list(folder.glob(f"prism_tune_{script.pid}_*"))

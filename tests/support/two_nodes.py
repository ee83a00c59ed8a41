"""Two nodes on this machine: `scripts/two_nodes.sh`, and the namespaces that it must not leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "two_nodes.sh"


def list_namespaces() -> set[Path]:
    """The network namespaces of this machine that have a name."""
    folder = Path("/run/netns")  # where `ip netns` keeps them
    return set(folder.iterdir()) if folder.exists() else set()


def run_on_two_nodes(*arguments: str, num_processes: int = 1, launcher: str = "torchrun") -> None:
    """`prism-tune` with these arguments, in so many processes on each; it has to succeed."""
    environment = {"PRISM_TUNE_VENV": sys.prefix, "NPROC": str(num_processes), "LAUNCHER": launcher}
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

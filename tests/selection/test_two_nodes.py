"""`torchrun --nnodes=2` over a network: two namespaces of this machine joined by one cable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prism_tune.timings import read_timings

SCRIPT = Path(__file__).parents[2] / "scripts" / "two_nodes.sh"


def list_namespaces():
    folder = Path("/run/netns")  # where `ip netns` keeps them
    return set(folder.iterdir()) if folder.exists() else set()


def test_two_nodes_select_what_one_process_selects(workplace):
    alone = workplace.select()
    before = list_namespaces()
    done = subprocess.run(
        ["bash", str(SCRIPT), "select", str(workplace.config_file), "name=two"],
        env={**os.environ, "PRISM_TUNE_VENV": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together = workplace.read(workplace.run_dir(name="two"))
    assert together.manifest["subset_sha256"] == alone.manifest["subset_sha256"]
    assert [e["num_devices"] for e in read_timings(together.run)] == [2]
    log = together.run.log.read_text()
    assert "[rank 0]" in log
    assert "[rank 1]" in log
    assert list_namespaces() <= before


def test_without_a_config_it_explains_itself():
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bash scripts/two_nodes.sh VERB CONFIG [key=value ...]" in done.stdout

"""TRL, LLaMA-Factory and ms-swift read our exports with their own loaders, in their environments.

These are gigabytes: the test runs where PRISM_TUNE_PEERS says they may be built or are.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif("PRISM_TUNE_PEERS" not in os.environ, reason="PRISM_TUNE_PEERS is not set")
@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ("trl", "6 rows, 6 images in a batch of all, 3 steps of SFTTrainer"),
        ("llamafactory", "6 rows tokenised, 6 images found"),
        ("ms_swift", "6 rows, 6 images opened"),
    ],
)
def test_a_peer_takes_what_is_written_for_it(peer, said):
    command = ["bash", str(ROOT / "scripts" / "check_peers.sh"), peer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert said in done.stdout

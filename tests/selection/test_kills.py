"""kill -9 in the middle of extraction: real processes, the identical subset."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
from safetensors.numpy import load_file
from support.ranks import Ranks
from support.tiny import draw_pool

from prism_tune.cli.app import main
from prism_tune.selection.evidence import store as feature_store

# Imports once, then forks a process for every attempt: starting Python anew would take minutes.
KILL_TEN_TIMES = """
import json, os, random, signal, sys, time
from pathlib import Path
from prism_tune.selection.evidence import store as feature_store
from prism_tune.selection.select import select
from prism_tune.cli.app import main

feature_store.UNITS_PER_SHARD = 2
config, evidence = sys.argv[1], Path(sys.argv[2])
random.seed(20)

def start(*overrides):
    pid = os.fork()
    if pid:
        return pid
    sys.argv = ["prism-tune", "select", config, *overrides]
    main()

def num_shards():
    return len(list(evidence.glob("features/*/shard-*")))

def kill_somewhere(pid):
    goal = num_shards() + random.randint(0, 3)
    while num_shards() < goal:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "ended by itself"
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return num_shards()

found = [kill_somewhere(start()) for _ in range(10)]
for overrides in ([], [f"output_dir={sys.argv[3]}"]):
    assert os.waitstatus_to_exitcode(os.waitpid(start(*overrides), 0)[1]) == 0
print(json.dumps(found))
"""


def digest_files(paths):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def read_rows(paths):
    return {p.name: load_file(p)["rows"] for p in paths}


def test_ten_kills_end_in_the_identical_subset(workplace):
    workplace.use_pool(draw_pool(workplace.root / "large", num_images=80))
    run, whole = workplace.run_dir(), workplace.run_dir(**workplace.elsewhere())
    folders = [str(workplace.root / "runs/evidence"), str(workplace.root / "elsewhere")]
    script = [sys.executable, "-c", KILL_TEN_TIMES, str(workplace.config_file), *folders]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    num_shards = json.loads(done.stdout.splitlines()[-1])
    assert len(num_shards) == 10
    assert num_shards == sorted(num_shards)
    assert 3 < num_shards[-1] < 40  # never from the start again, and never done
    rows, expected = (read_rows(workplace.shards(output_dir=d)) for d in ("runs", "elsewhere"))
    assert len(rows) == 40
    assert rows.keys() == expected.keys()
    assert all(rows[name].tobytes() == expected[name].tobytes() for name in rows)
    killed, untouched = workplace.read(run), workplace.read(whole)
    assert killed.manifest["subset_sha256"] == untouched.manifest["subset_sha256"]
    assert killed.scores == untouched.scores
    assert list((workplace.root / "runs/evidence").rglob(".partial-*")) == []


def in_shards_of_two():
    """The command line."""
    feature_store.UNITS_PER_SHARD = 2
    main()


def test_a_dead_rank_loses_only_its_unfinished_shard(workplace, monkeypatch):
    """Rank 1 of two is killed, and then the other; a rerun by one process keeps what is there."""
    workplace.use_pool(draw_pool(workplace.root / "large", num_images=80))
    run = workplace.run_dir()
    select, output = ["select", str(workplace.config_file)], workplace.root / "output.txt"
    ranks = Ranks(select, output, num_processes=2, program=in_shards_of_two)
    deadline = time.monotonic() + 300
    while len(workplace.shards()) < 4:
        assert time.monotonic() < deadline, ranks.printed()
    ranks.kill(1)
    assert -signal.SIGKILL in ranks.wait()
    left = digest_files(workplace.shards())  # a file's header differs from process to process
    assert 4 <= len(left) < 40
    assert not (run.selection / "stage.json").exists()

    monkeypatch.setattr(feature_store, "UNITS_PER_SHARD", 2)
    rerun, whole = workplace.select(), workplace.select(**workplace.elsewhere())
    assert rerun.manifest["evidence"]["features"]["num_computed"] == 80 - 2 * len(left)
    assert left.items() <= digest_files(workplace.shards()).items()
    rows, expected = (read_rows(workplace.shards(output_dir=d)) for d in ("runs", "elsewhere"))
    assert rows.keys() == expected.keys()
    for name in rows:  # torch adds up in another order where a process has more threads
        np.testing.assert_allclose(rows[name], expected[name], rtol=1e-4, atol=1e-5)
    assert rerun.manifest["subset_sha256"] == whole.manifest["subset_sha256"]

"""Where the kernel has fewer calls than Linux (macOS): processes end all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from prism_tune.compare.children import accompanied
from prism_tune.interrupts import Interrupted

WORKER = """
import os, signal, time
del signal.sigwaitinfo
from prism_tune.interrupts import become_worker
become_worker(os.getppid())
print("works", flush=True)
time.sleep(60)
"""


def test_a_worker_that_is_asked_to_end_ends():
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "works\n"
    worker.terminate()
    assert worker.wait(20) == 128 + signal.SIGTERM


def test_a_child_is_asked_to_end_where_the_command_is(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = subprocess.Popen(["sleep", "60"])
    try:
        with accompanied(child.pid, lambda: False):
            raise Interrupted(signal.SIGINT)
    except Interrupted:
        assert child.wait(20) == -signal.SIGTERM

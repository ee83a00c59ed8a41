"""A request to end is never lost: also where Python ignores what a handler raises."""

from __future__ import annotations

import subprocess
import sys

import pytest

IN_A_FINALISER = """
import os, signal, sys, time
from prism_tune.cli.options import end_with_errors
from prism_tune.interrupts import raise_interrupts

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

def work():
    raise_interrupts()
    Closing()
    time.sleep(20)
    print("worked on")

end_with_errors(work)
"""


@pytest.mark.slow
def test_a_request_within_a_finaliser(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FINALISER], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (143, "")
    assert "SIGTERM: ends here" in done.stderr
    assert "Traceback" not in done.stderr

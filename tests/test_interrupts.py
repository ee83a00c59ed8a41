"""A request to end is never lost: also where Python ignores what a handler raises."""

from __future__ import annotations

import os
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


ONCE_ALL_IS_DONE = """
import atexit, os, signal, sys, tempfile, time
from prism_tune.cli.options import end_with_errors
from prism_tune.interrupts import raise_interrupts

def late():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)

raise_interrupts()
atexit.register(late)
sys.folder = tempfile.TemporaryDirectory()
end_with_errors(lambda: print("done", flush=True))
"""

WHILE_AN_ERROR_IS_SAID = """
import os, signal, time
from prism_tune.cli.options import end_with_errors
from prism_tune.errors import UserError
from prism_tune.interrupts import raise_interrupts

class Late(UserError):
    def __str__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)

def work():
    raise Late("x")

raise_interrupts()
end_with_errors(work)
"""


AS_IT_BEGINS = """
import os, signal, sys, threading
from prism_tune.cli import app

def asked(*given):
    os.kill(os.getpid(), signal.SIGTERM)

app.follow_launcher = asked
sys.argv = ["prism-tune", "presets"]
app.main()
"""


ITS_TERMINAL_IS_GONE = """
import io, os, signal, sys, time
from prism_tune.cli.options import end_with_errors
from prism_tune.interrupts import raise_interrupts

class Gone(io.RawIOBase):
    def writable(self):
        return True

    def write(self, content):
        raise OSError(5, "Input/output error")

sys.stderr = io.TextIOWrapper(Gone(), write_through=True)
raise_interrupts()
end_with_errors(lambda: (os.kill(os.getpid(), signal.SIGHUP), time.sleep(20)))
"""


BEFORE_A_WORKER_HAS_BEGUN = """
import multiprocessing, os, signal, time
from prism_tune.cli.options import end_with_errors
from prism_tune.interrupts import raise_interrupts

os.register_at_fork(after_in_child=lambda: time.sleep(1))  # a busy machine

def work():
    raise_interrupts()
    worker = multiprocessing.Process(target=time.sleep, args=(1000,), daemon=True)
    worker.start()
    os.kill(os.getpid(), signal.SIGTERM)
    worker.join()

end_with_errors(work)
"""


A_WORKER_IS_ENDED_BEFORE_IT_HAS_BEGUN = """
import multiprocessing, os, time
from prism_tune.interrupts import raise_interrupts

os.register_at_fork(after_in_child=lambda: time.sleep(1))
raise_interrupts()
worker = multiprocessing.Process(target=time.sleep, args=(1000,), daemon=True)
worker.start()
worker.terminate()
worker.join()
print(worker.exitcode)
"""


WHILE_A_WORKER_MAKES_SOCKETS = """
import itertools, multiprocessing, os, signal, time
from multiprocessing import util
from prism_tune.cli.options import end_with_errors
from prism_tune.interrupts import raise_interrupts

def make(folder, parent):
    for number in itertools.count():
        try:
            open(f"{folder}/{number}", "w").close()
        except OSError:
            os._exit(0)
        time.sleep(0.001)  # faster than they can be removed, none would end before the grace
        if number == 100:
            os.kill(parent, signal.SIGTERM)

def work():
    raise_interrupts()
    given = (util.get_temp_dir(), os.getpid())
    workers = [multiprocessing.Process(target=make, args=given, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

end_with_errors(work)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "code", "printed", "says"),
    [
        (IN_A_FINALISER, 143, "", "SIGTERM: ends here"),
        (ONCE_ALL_IS_DONE, -15, "done\n", ""),
        (WHILE_AN_ERROR_IS_SAID, 143, "", "SIGTERM: ends here"),
        (AS_IT_BEGINS, 143, "", "SIGTERM: ends here"),
        (ITS_TERMINAL_IS_GONE, 129, "", ""),
        (WHILE_A_WORKER_MAKES_SOCKETS, 143, "", "SIGTERM: ends here"),
        (BEFORE_A_WORKER_HAS_BEGUN, 143, "", "SIGTERM: ends here"),
        (A_WORKER_IS_ENDED_BEFORE_IT_HAS_BEGUN, 0, "143\n", ""),
    ],
    ids=[
        "within a finaliser",
        "once all is done",
        "while an error is said",
        "as it begins",
        "terminal",
        "while a worker makes sockets",
        "before a worker has begun",
        "of a worker that has not begun",
    ],
)
def test_a_request(script, code, printed, says, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,  # as long as a worker lives on
    )
    assert list(tmp_path.iterdir()) == []
    assert (done.returncode, done.stdout) == (code, printed)
    assert says in done.stderr
    assert "Traceback" not in done.stderr

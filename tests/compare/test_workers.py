"""A verb in a forked process: exit codes, output, environment, and what the server must not do."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from prism_tune import __version__
from prism_tune.compare import workers
from prism_tune.compare.workers import run_forked, share_out


def act(arguments):
    """Stands for the command line."""
    (what,) = arguments
    sys.stdout.write(f"{what}\n")
    if what == "crash":
        os._exit(9)
    if what == "defect":
        raise ZeroDivisionError("a defect")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "leave":
        os.environ["LEFT"] = "behind"
    if what == "look":
        sys.stdout.write(f"{os.environ.get('LEFT')} {os.environ.get('OMP_NUM_THREADS')}\n")
    if what == "libraries":
        import torch

        threads = threading.active_count()
        sys.stdout.write(f"{'torch' in sys.modules} {torch.cuda.is_initialized()} {threads}\n")
        sys.stdout.write(f"{float((torch.ones(600, 600) @ torch.ones(600, 600)).sum()):.0f}\n")
    sys.exit(0)


pytestmark = pytest.mark.usefixtures("server")


@pytest.mark.parametrize(
    ("what", "code"), [("fine", 0), ("crash", 9), ("defect", 1), ("killed", -9)]
)
def test_the_exit_code_says_how_it_ended(what, code, tmp_path, capfd):
    output = tmp_path / "cells/a/output.txt"
    assert run_forked(act, [what], {}, output) == code
    lines = output.read_text().splitlines()
    assert lines[0] == what
    assert ("ZeroDivisionError: a defect" in lines[-1]) == (what == "defect")
    assert capfd.readouterr() == ("", "")  # all of it went to the file


def test_output_is_appended(tmp_path):
    for what in ("fine", "fine"):
        run_forked(act, [what], {}, tmp_path / "output.txt")
    assert (tmp_path / "output.txt").read_text() == "fine\nfine\n"


def act_without_locks(output):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "no locks here")

    fcntl.flock = refuse
    workers._serve(act, ["fine"], {}, output)


@pytest.mark.slow
def test_on_a_file_system_without_locks_it_runs(tmp_path):
    processes = multiprocessing.get_context("fork")
    process = processes.Process(target=act_without_locks, args=(tmp_path / "output.txt",))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_a_verb_leaves_behind_no_other_sees(tmp_path):
    run_forked(act, ["leave"], {}, None)
    run_forked(act, ["look"], {"OMP_NUM_THREADS": "3"}, tmp_path / "output.txt")
    assert (tmp_path / "output.txt").read_text() == "look\nNone 3\n"


def test_libraries_are_there_without_threads_or_cuda_and_compute(tmp_path):
    assert run_forked(act, ["libraries"], {}, tmp_path / "output.txt") == 0
    said = (tmp_path / "output.txt").read_text().splitlines()
    assert said == ["libraries", "True False 2", str(600**3)]  # one looks for the command


@pytest.mark.slow
def test_where_a_library_has_started_cuda_a_verb_is_a_new_program(tmp_path):
    output = tmp_path / "cell" / "output.txt"
    (tmp_path / "starts_cuda.py").write_text(
        "import torch, prism_tune.cli.run\n"
        "torch.cuda._is_in_bad_fork = lambda: True\n"
        "prism_tune.cli.run.runpy = None\n"  # a fork of this fails
    )
    code = f"""
import sys
from pathlib import Path
from prism_tune.cli.run import run_arguments
from prism_tune import __version__
from prism_tune.compare.workers import run_forked, start_server
start_server(["starts_cuda", "prism_tune.cli.app"], {{}})
for arguments in (["--version"], ["train", "nowhere.yaml"]):
    sys.stdout.write(f"{{run_forked(run_arguments, arguments, {{}}, Path({str(output)!r}))}} ")
"""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=found)
    assert done.stdout == "0 2 "
    assert output.read_text().startswith(f"prism_tune {__version__}\n")
    assert "nowhere.yaml" in output.read_text()


def test_threads_and_devices_are_dealt_out_and_a_single_process_sees_all(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    dealt = [share_out(number, 3) for number in range(3)]
    assert [own["CUDA_VISIBLE_DEVICES"] for own in dealt] == ["2", "5", "2"]
    assert {own["OMP_NUM_THREADS"] for own in dealt} == {"2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert "OMP_NUM_THREADS" not in share_out(0, 3)  # the user's own counts
    assert share_out(0, 1) == {}


def test_a_system_that_does_not_say_what_may_be_used_has_all_its_cores(monkeypatch):
    """macOS: the grid ended in an AttributeError."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert share_out(0, 2)["OMP_NUM_THREADS"] == "4"


AT_WORK = """
import multiprocessing, sys, time

def main(arguments):
    from prism_tune.interrupts import raise_interrupts
    raise_interrupts()
    print(multiprocessing.get_start_method(), flush=True)
    time.sleep(15)

if __name__ == "__main__":
    from at_work import main
    from prism_tune.compare.workers import run_forked, start_server
    start_server(sys.argv[1:], {})
    run_forked(main, [], {}, None)
"""


ASKED_TO_END = """
import os, signal, tempfile
from prism_tune.cli.options import end_with_errors
from prism_tune.compare.workers import run_forked, start_server
from prism_tune.interrupts import raise_interrupts

def work():
    raise_interrupts()
    start_server([], {})
    of_a_library = tempfile.TemporaryDirectory()
    os.kill(os.getpid(), signal.SIGTERM)

end_with_errors(work)
"""


@pytest.mark.slow
def test_what_it_has_in_tmp_goes_with_a_command_that_is_asked_to_end(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", ASKED_TO_END]
    assert subprocess.run(command, env=environment, check=False).returncode == 143
    assert list(tmp_path.iterdir()) == []


LONG_PATH = """
from prism_tune.compare.workers import run_forked, start_server
start_server([], {})
raise SystemExit(run_forked(exec, "raise SystemExit(7)", {}, None))
"""


@pytest.mark.slow
def test_a_tmpdir_whose_path_is_too_long_for_a_socket_is_no_hindrance(long_tmpdir):
    command = [sys.executable, "-c", LONG_PATH]
    assert subprocess.run(command, env=long_tmpdir, check=False).returncode == 7


FINISHED = """
from prism_tune.compare.workers import run_forked, start_server
verb = '''
import tempfile
from prism_tune.interrupts import raise_interrupts
raise_interrupts()
tempfile.of_a_library = tempfile.TemporaryDirectory()
raise SystemExit(0)
'''
start_server([], {})
raise SystemExit(run_forked(exec, verb, {}, None))
"""


@pytest.mark.slow
def test_what_a_verb_has_in_tmp_goes_when_it_has_finished(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", FINISHED]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("preload", [[], ["starts_cuda"]])
def test_a_verb_and_its_workers_end_with_a_command_that_is_killed(preload, tmp_path):
    """Alone, by SIGKILL; workers of a verb are forked, so that they follow it."""
    (tmp_path / "at_work.py").write_text(AT_WORK)
    (tmp_path / "starts_cuda.py").write_text(
        "import torch\ntorch.cuda._is_in_bad_fork = lambda: True"
    )
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    code = [sys.executable, "-m", "at_work", *preload]
    with subprocess.Popen(code, stdout=-1, stderr=-1, env=found) as command:
        assert command.stdout.readline() == b"fork\n"
        command.kill()
        killed = time.monotonic()
        command.stdout.read()  # until nobody has it open any more
    assert time.monotonic() - killed < 8

"""A verb in a process of its own, forked from one in which the libraries are already loaded.

`prism-tune VERB ...` is run as it would be from a shell, but without its seconds of imports. What
one verb leaves in its process (DeepSpeed's groups, environment, memory, a crash) no other sees. The
server that forks has started no thread of torch and has not touched a GPU.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import NoReturn

from prism_tune.compare.children import accompanied
from prism_tune.interrupts import follow_parent, remove_temporary_folders
from prism_tune.run.partial import take_lock
from prism_tune.run.worker_processes import count_cores, place_sockets

Main = Callable[[Sequence[str]], NoReturn]
"""Runs the command line with these arguments; at the top of a module, so that it can be sent."""

_FORKED = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Whether there is a GPU must be asked without starting CUDA, which does not survive a fork."""

_ANEW = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from prism_tune.compare.workers import act_anew; act_anew(*sys.argv[2:])"
)


def start_server(preload: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start loading these modules, unless that has been done.

    Args:
        preload: names of modules.
        environment: beside this process's own; threads are counted from it when libraries load.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    place_sockets()
    resource_tracker.ensure_running()  # which would let the signal in again
    before, blocked = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update({**_FORKED, **environment})
    try:
        forkserver.ensure_running()  # a keyboard's interrupt finds no traceback in its imports
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.environ.clear()
        os.environ.update(before)


def run_forked(
    main: Main, arguments: Sequence[str], environment: Mapping[str, str], output: Path | None
) -> int:
    """Run the command line in a forked process, and wait for it.

    Args:
        main: the command line.
        arguments: verb, config, overrides.
        environment: changes to it.
        output: file to append what is printed to, of its libraries too; None: this process's own.

    Returns:
        The exit code; negative where a signal ended it.
    """
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_serve, args=(main, arguments, dict(environment), output))
    process.start()
    assert process.pid is not None
    with accompanied(process.pid, lambda: process.exitcode is not None):
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def share_out(number: int, num_processes: int) -> dict[str, str]:
    """What process `number` of so many has to see differently; nothing for a single one.

    On a CPU each gets its share of the threads; where CUDA_VISIBLE_DEVICES names several devices
    they are dealt out.
    """
    if num_processes == 1:
        return {}
    own = {}
    if "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(1, count_cores() // num_processes))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(devices) > 1:
        own["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return own


def act_anew(sentinel: str, module: str, name: str, *arguments: str) -> None:
    """Run a command line in a new program that stands in for a forked one.

    Args:
        sentinel: file descriptor that becomes readable when the command that waits has gone.
        module: where the command line's function is.
        name: the function.
        arguments: of the command line.
    """
    _end_with(int(sentinel))
    getattr(importlib.import_module(module), name)(arguments)


def _end_with(sentinel: int) -> None:
    """Be asked to end once the command that waits for this verb is gone, also by SIGKILL."""

    def look() -> None:
        connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


def _serve(
    main: Main, arguments: Sequence[str], environment: dict[str, str], output: Path | None
) -> None:
    follow_parent()  # the server, which is there as long as one of its verbs is
    command = multiprocessing.parent_process()
    assert command is not None
    _end_with(command.sentinel)
    os.environ.update(environment)
    if output is None:
        _act(main, arguments, command.sentinel)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, TextIOWrapper)
        stream.reconfigure(line_buffering=True)  # what a crash would take with it says why
    with output.with_name(".lock").open("w") as lock:
        take_lock(lock.fileno(), wait=True)  # a verb of a killed grid may still be at work here
        os.set_inheritable(lock.fileno(), True)
        _act(main, arguments, command.sentinel)


def _act(main: Main, arguments: Sequence[str], sentinel: int) -> NoReturn:
    """Run the command line; as a new program where a library has started CUDA before the fork.

    Some ask the GPU what it can when they are imported, as bitsandbytes does; a fork of that could
    not use the GPU. The new program keeps the number, the streams and the lock of this one, and
    looks for the command as well.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda._is_in_bad_fork():
        try:
            main(arguments)
        finally:  # the server's fork ends without Python's own clean-up
            remove_temporary_folders()
    os.set_inheritable(sentinel, True)
    named = [json.dumps(sys.path), str(sentinel), main.__module__, main.__name__]
    os.execv(sys.executable, [sys.executable, "-c", _ANEW, *named, *arguments])

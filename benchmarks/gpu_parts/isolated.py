"""A call in a forked process of its own: what it returns, or why it did not.

The caller has imported what is slow to import and has not touched the GPU, so that each call begins
with an empty one, and none can take the others down.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

_FORK = multiprocessing.get_context("fork")


def run_isolated(
    call: Callable[..., dict[str, Any]],
    options: dict[str, Any],
    *,
    seconds: float,
    log: Path,
    on_cpu: bool = False,
) -> dict[str, Any]:
    """The outcome: `status` and either `result` or `error`; and the seconds that it took.

    Args:
        call: with `options`; what it returns goes through JSON.
        options: its keyword arguments.
        seconds: after which it is killed.
        log: a file for what it and its own processes write.
        on_cpu: hide the GPUs.
    """
    answer = log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    begin = time.perf_counter()
    process = _FORK.Process(target=_work, args=(call, options, answer, log, on_cpu), daemon=False)
    process.start()
    process.join(seconds)
    took = {"seconds": round(time.perf_counter() - begin, 1)}
    is_late = process.exitcode is None
    _end_group(process)
    if is_late:
        return {"status": "timed out", "error": f"killed after {seconds:.0f} s", **took}
    if not answer.exists():
        error = f"ended with exit code {process.exitcode}, without a word"
        return {"status": "failed", "error": error, **took}
    return {**orjson.loads(answer.read_bytes()), **took}


def _work(
    call: Callable[..., dict[str, Any]],
    options: dict[str, Any],
    answer: Path,
    log: Path,
    on_cpu: bool,
) -> None:
    os.setsid()  # dataloader workers and compilers end with it
    if on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    try:
        outcome = {"status": "done", "result": call(**options)}
    except BaseException as error:  # noqa: BLE001 - whatever it is, the other parts go on
        traceback.print_exc()
        outcome = {"status": _name(error), "error": f"{type(error).__name__}: {error}"[:600]}
    answer.write_bytes(orjson.dumps(outcome, option=orjson.OPT_SERIALIZE_NUMPY))
    os._exit(0)  # without the libraries' farewells, which can hang


def _name(error: BaseException) -> str:
    """One of "out of memory", "missing" (a library, or what the method says of one), "failed"."""
    text = f"{type(error).__name__}: {error}".lower()
    if "outofmemory" in text or "out of memory" in text:
        return "out of memory"
    is_missing = isinstance(error, ImportError) or "pip install" in text or "torchvision" in text
    return "missing" if is_missing else "failed"


def _end_group(process: Any) -> None:
    """End it and what it has left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import torch


def run_isolated(
    call: Callable[..., dict[str, Any]],
    options: dict[str, Any],
    *,
    seconds: float,
    log: Path,
    on_cpu: bool = False,
    fresh: bool = False,
) -> dict[str, Any]:
    """The outcome: `status` and either `result` or `error`; and the seconds that it took.

    Args:
        call: with `options`; what it returns goes through JSON.
        options: its keyword arguments.
        seconds: after which it is killed.
        log: a file for what it and its own processes write.
        on_cpu: hide the GPUs.
        fresh: import everything again there; so also where this process has touched the GPU.
    """
    answer = log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    begin = time.perf_counter()
    way = "spawn" if fresh or torch.cuda.is_initialized() else "fork"
    process = multiprocessing.get_context(way).Process(
        target=_work, args=(call, options, answer, log)
    )
    with _hidden_gpus() if on_cpu else contextlib.nullcontext():
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


@contextlib.contextmanager
def _hidden_gpus() -> Iterator[None]:
    """For the processes started within."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _work(
    call: Callable[..., dict[str, Any]],
    options: dict[str, Any],
    answer: Path,
    log: Path,
) -> None:
    os.setsid()  # dataloader workers and compilers end with it
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

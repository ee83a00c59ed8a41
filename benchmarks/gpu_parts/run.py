"""Runs the parts one after the other, each in a process of its own, into one JSON file.

    bash benchmarks/gpu.sh --help

Parts that have a result are skipped, so that the same command goes on where it was stopped. A part
that fails, runs out of memory or time, or lacks a library says so in the file and ends no other.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import orjson

# Forked parts must find the GPU untouched: asked this way, torch looks without touching it.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import torch
from gpu_parts.isolated import run_isolated
from gpu_parts.plan import Part, plan_parts
from gpu_parts.table import render

FINISHED = ("done", "missing")


def main() -> None:
    """Parse the command line, run what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prism_tune_gpu")
    parser.add_argument("--seconds", type=float, default=3600, help="for all parts")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="parts whose name has it"
    )
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--toy", action="store_true", help="tiny shapes: does it run? any machine")
    parser.add_argument("--list", action="store_true", help="names of the parts, and no more")
    parser.add_argument("--keep", action="store_true", help="models and pools, in the work folder")
    arguments = parser.parse_args()
    parts = plan_parts(toy=arguments.toy)
    if arguments.list:
        print("\n".join(part.name for part in parts))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PRISM_TUNE_CACHE"] = str(arguments.work / "cache")
    _run_all(parts, arguments)
    print(render(read_outcomes(arguments.out)))
    if not arguments.keep:
        shutil.rmtree(arguments.work)


def read_outcomes(path: Path) -> dict[str, dict[str, Any]]:
    """What the file has so far, by part."""
    return orjson.loads(path.read_bytes()) if path.exists() else {}


def choose(parts: list[Part], only: list[str]) -> list[Part]:
    """The parts asked for, and those that they need."""
    if not only:
        return parts
    names = {part.name for part in parts if any(text in part.name for text in only)}
    names |= {need for part in parts if part.name in names for need in part.needs}
    return [part for part in parts if part.name in names]


def _run_all(parts: list[Part], arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    outcomes = read_outcomes(arguments.out)
    parts = choose(parts, arguments.only)
    # It touches the GPU when it is imported, by peft among others.
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    runs = {part.name: part.load() for part in parts}  # imported once, here
    if torch.cuda.is_initialized():
        print("something imported has touched the GPU: each part imports everything again")
    for part in parts:
        left = arguments.seconds - (time.perf_counter() - began)
        drawn = arguments.work / "drawn" / part.name
        is_drawing = part.call.startswith("parts:draw")
        is_finished = outcomes.get(part.name, {}).get("status") in FINISHED
        if drawn.exists() if is_drawing else is_finished and not arguments.again:
            continue
        outcome = _run_one(part, runs[part.name], outcomes, arguments.work, left)
        outcomes[part.name] = outcome
        if is_drawing and outcome["status"] == "done":
            drawn.parent.mkdir(exist_ok=True)
            drawn.touch()
        temporary = arguments.out.with_suffix(".part")
        temporary.write_bytes(orjson.dumps(outcomes, option=orjson.OPT_INDENT_2))
        temporary.rename(arguments.out)
        said = outcome.get("error", "")
        print(
            f"{time.perf_counter() - began:6.0f} s  {part.name}: {outcome['status']} {said}",
            flush=True,
        )


def _run_one(
    part: Part, call: Any, outcomes: dict[str, dict[str, Any]], work: Path, left: float
) -> dict[str, Any]:
    lacking = [name for name in part.needs if outcomes.get(name, {}).get("status") != "done"]
    if lacking:
        return {"status": "not run", "error": f"needs {', '.join(lacking)}"}
    if part.library is not None and PathFinder.find_spec(part.library) is None:
        return {"status": "missing", "error": f"{part.library} is not installed"}
    if left < 10:
        return {"status": "not run", "error": "no time left"}
    logs = work / "logs"
    logs.mkdir(exist_ok=True)
    log = logs / f"{''.join(c if c.isalnum() else '_' for c in part.name)}.log"
    options = {"work": work, **part.options}
    fresh = part.library in ("bitsandbytes", "liger_kernel")  # they look for a GPU at import
    return run_isolated(call, options, seconds=min(part.seconds, left), log=log, fresh=fresh)


if __name__ == "__main__":
    main()

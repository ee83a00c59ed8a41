"""Training speed: our batches beside random ones, TRL, LLaMA-Factory and ms-swift, 500 records.

    bash scripts/check_peers.sh                     # once: installs the peers, each for itself
    python benchmarks/training.py --peers build/peers
    python benchmarks/training.py --models mid-size --updates 4 --rounds 1   # a quick look

Every side starts from the same weights, in a process of its own, takes one update to warm up, then
as many as asked; the rounds go over all sides, so that what else the machine does hits all. Rows of
equal update size: `packed` gets as many tokens as a batch of records has on average. Tokens are the
real ones. On a machine that others use too, tokens per second of CPU time say more
than those per second. The embedded default needs `prism-tune prepare
configs/experiments/quickstart.yaml`.

Then the losses: transformers' trainer and the peers' on the very batches of ours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from drawn_models import save_llava
from training_mix import write_pool
from training_sides import (
    MAX_LENGTH,
    Workload,
    build_side,
    build_transformers,
    count_padded_tokens,
    save_batches,
)
from training_watch import Measured, Stopwatch

EMBEDDED = "configs/experiments/quickstart.yaml"
OURS = ("random", "modality_length", "packed")
PEERS = ("trl", "llamafactory", "ms_swift")
BASELINE = "random"
_HERE = Path(__file__).parent


def fork(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What it returns in a process of its own, so that this one stays small and without threads."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(call, arguments, options)


def measure(build: Callable[..., Any], *arguments: Any) -> Measured:
    """Train in a forked process."""
    return Measured(**fork(_train, build, arguments))


def _train(build: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(*arguments, Path(folder))
        watch = Stopwatch(trainer)
        trainer.train()
    return asdict(watch.result)


def measure_peer(
    peer: str, peers: Path, workload: Workload, *, batches: Path | None = None
) -> Measured | str:
    """Train by a peer's own entry point in its own environment; what it said where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.json"
        out = Path(folder) / "out.json"
        adapter = batches and workload.tuning == "lora" and batches / "adapter.pt"
        given = {
            "model": str(workload.model),
            "exports": str(workload.pool.parent / "exports"),
            "images": str(workload.pool.parent / "images"),
            "updates": workload.updates,
            "batch_size": workload.batch_size,
            "tuning": workload.tuning,
            "dtype": workload.dtype,
            "max_length": MAX_LENGTH,
            "threads": torch.get_num_threads(),
            "batches": str(batches / "batches.pt") if batches else None,
            "adapter": str(adapter) if adapter else None,
            "out": str(out),
        }
        task.write_text(json.dumps(given))
        python = peers.absolute() / peer / "bin" / "python"
        command = [str(python), "-W", "ignore", str(_HERE / "training_peers.py"), peer, str(task)]
        homes = {"HF_HOME": f"{folder}/hf", "MODELSCOPE_CACHE": f"{folder}/modelscope"}
        environment = {**os.environ, **homes, "PYTHONPATH": str(_HERE)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not out.exists():
            return (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-1]
        return Measured(**json.loads(out.read_text()))


def main() -> None:
    """Parse the command line, run every side on every model, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["mid-size", "embedded"]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--sides", nargs="+", choices=OURS + PEERS, default=list(OURS + PEERS))
    parser.add_argument("--peers", type=Path, default=Path("build/peers"))
    parser.add_argument("--updates", type=int, default=4, help="timed ones, of each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--curve-updates", type=int, default=4)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--work", type=Path, help="kept: model, pool and exports")
    arguments = parser.parse_args()
    with _work_folder(arguments.work) as folder:
        pool = folder / "pool" / "pool.json"
        if not pool.exists():
            fork(_write_pool, pool.parent, arguments.records)
        for name in arguments.models:
            workload = Workload(
                model=_model(name, folder),
                pool=pool,
                updates=arguments.updates + 1,
                batch_size=arguments.batch_size,
                tuning="full" if name == "mid-size" else "lora",
                dtype="float32" if name == "mid-size" else "bfloat16",
                template="vicuna_v1" if name == "mid-size" else "chatml",
            )
            print(
                f"\n{name}: {workload.tuning}, {workload.dtype}, batches of {workload.batch_size}"
            )
            print_padding(fork(count_padded_tokens, workload))
            if arguments.rounds:
                print_speeds(workload, arguments)
            if arguments.curve_updates:
                print_curves(workload.for_updates(arguments.curve_updates), arguments)


@contextmanager
def _work_folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write_pool(folder: Path, num_records: int) -> None:
    """The records, and as each peer reads them."""
    from prism_tune.config.sections import DataConfig
    from prism_tune.data.records import open_pool
    from prism_tune.selection.export.layouts import LAYOUTS, export_pool

    data = {"records": str(write_pool(folder, num_records)), "image_dir": str(folder / "images")}
    pool = open_pool(DataConfig.model_validate(data))
    for peer in PEERS:
        export_pool(pool, peer, folder / "exports" / peer / f"mine{LAYOUTS[peer].suffix}")


def _model(name: str, folder: Path) -> Path:
    if name == "embedded":
        from prism_tune.config.load import load_config

        return Path(load_config(EMBEDDED).model.path).absolute()
    size = {"num_layers": 6, "width": 384, "vision_layers": 3, "image_pixels": 168}
    model = folder / "model"
    return model if model.exists() else fork(save_llava, model, **size)


def print_padding(padded_tokens: dict[str, int]) -> None:
    """Exact, over a whole epoch: what the model computes, padding included, beside the records."""
    real = padded_tokens.pop("real")
    print("\n| batches | tokens computed in an epoch | padding | fewer than random |")
    print("|---|---:|---:|---:|")
    for batching, padded in padded_tokens.items():
        fewer = padded_tokens[BASELINE] / padded
        print(f"| {batching} | {padded} | {1 - real / padded:.0%} | {fewer:.2f}x |")


def print_speeds(workload: Workload, arguments: argparse.Namespace) -> None:
    """A row for each side over all rounds; in brackets, how many times the first."""
    rows: dict[str, Measured | str] = {}
    for _ in range(arguments.rounds):
        for side in arguments.sides:
            before = rows.get(side)
            if isinstance(before, str):
                continue
            if side in PEERS:
                found = measure_peer(side, arguments.peers, workload)
            else:
                found = measure(build_side, side, workload)
            print(f"{side}: {found}", file=sys.stderr, flush=True)
            rows[side] = found if before is None or isinstance(found, str) else before.add(found)
    threads, timed = torch.get_num_threads(), arguments.rounds * (workload.updates - 1)
    print(f"\nMeasured over {timed} updates in {arguments.rounds} rounds, {threads} threads\n")
    columns = "records", "tokens", "padding", "seconds", "tokens/s", "tokens/CPU s", "peak MiB"
    print(f"| batches | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * len(columns)}")
    measured = {side: row for side, row in rows.items() if isinstance(row, Measured)}
    first = next(iter(measured.values()))
    for side, row in measured.items():
        pairs = zip(row.speeds(), first.speeds(), strict=True)
        speeds = " | ".join(f"{speed:.0f} ({speed / base:.2f}x)" for speed, base in pairs)
        padding = row.padding / (row.padding + row.tokens)
        print(
            f"| {side} | {row.records} | {row.tokens} | {padding:.0%} | {row.seconds:.1f} "
            f"| {speeds} | {row.peak_mib:.0f} |"
        )
    for side, row in rows.items():
        if isinstance(row, str):
            print(f"{side} did not run: {row}")


def print_curves(workload: Workload, arguments: argparse.Namespace) -> None:
    """The losses of ours, and how far the others' are from them on the same batches."""
    ours = measure(build_side, "random", workload).losses
    print(f"\nlosses on the same batches, ours: {', '.join(f'{loss:.6f}' for loss in ours)}")
    with tempfile.TemporaryDirectory() as folder:
        fork(save_batches, workload, Path(folder) / "run", Path(folder))
        for name in ("transformers", *(side for side in arguments.sides if side in PEERS)):
            if name == "transformers":
                found: Measured | str = measure(build_transformers, workload)
            else:
                found = measure_peer(name, arguments.peers, workload, batches=Path(folder))
            if isinstance(found, str):
                print(f"{name}: {found}")
                continue
            pairs = list(zip(found.losses, ours, strict=True))
            largest = max(abs(a - b) / b for a, b in pairs)
            print(
                f"{name}: largest relative difference {largest:.1e}, at the first update ", end=""
            )
            print(f"{abs(pairs[0][0] - pairs[0][1]) / pairs[0][1]:.1e}")


if __name__ == "__main__":
    main()

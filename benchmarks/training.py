"""Training speed: our batches beside random ones and TRL's SFTTrainer, on the same 500 records.

    python benchmarks/training.py                                # both models, some 10 minutes
    python benchmarks/training.py --models mid-size --updates 4  # a quick look

Needs `pip install -e '.[bench]'` (TRL) and, for the embedded default, `prism-tune prepare
configs/experiments/quickstart.yaml`. Every side starts from the same weights, in a process of its
own that has only imported so far, takes one update to warm up, then as many as asked. Rows of equal
update size: `packed` gets as many tokens as a batch of records has on average.
Tokens are real ones, padding not counted. On a machine that others use too, tokens per second of
CPU time say more than those per second. Goals: 1.3 times random batching, never slower than TRL.

Then the losses: TRL's and transformers' trainers on the very batches of ours.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from drawn_models import save_llava
from training_mix import write_pool
from training_sides import Workload, build_side, build_with_our_batches, count_padded_tokens
from transformers import TrainerCallback

EMBEDDED = "configs/experiments/quickstart.yaml"
SIDES = ("random", "modality_length", "packed", "TRL SFTTrainer")
BASELINE = "random"


@dataclass
class Measured:
    """One side: everything after the first update; the losses of all."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    records: int = 0
    padding: int = 0
    peak_mib: float = 0.0
    losses: list[float] = field(default_factory=list)

    def speeds(self) -> tuple[float, float]:
        """Tokens per second, and per second of CPU time."""
        return self.tokens / self.seconds, self.tokens / self.cpu_seconds


class Stopwatch(TrainerCallback):
    """Counts batches as they go into the loss, and the time from the first update to the last."""

    def __init__(self, trainer: Any) -> None:
        self.result = Measured()
        self._trainer = trainer
        self._compute_loss = trainer.compute_loss
        trainer.compute_loss = self._count
        trainer.add_callback(self)

    def _count(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        if self._trainer.state.global_step > 0:
            mask = inputs["attention_mask"]
            begins = inputs["position_ids"] == 0 if "position_ids" in inputs else mask[:, :1]
            self.result.tokens += int(mask.sum())
            self.result.padding += int((mask == 0).sum())
            self.result.records += int(begins.sum())
        return self._compute_loss(model, inputs, *rest, **options)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start after the first update; the last reading stays."""
        if state.global_step == 1:
            self._start = time.perf_counter(), time.process_time()
        self.result.seconds = time.perf_counter() - self._start[0]
        self.result.cpu_seconds = time.process_time() - self._start[1]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the losses."""
        if logs and "loss" in logs:
            self.result.losses.append(float(logs["loss"]))


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
    watch.result.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return asdict(watch.result)


def main() -> None:
    """Parse the command line, run every side on every model, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["mid-size", "embedded"]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--curve-updates", type=int, default=4)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = write_pool(Path(folder) / "pool", arguments.records)
        for name in arguments.models:
            workload = Workload(
                model=_model(name, Path(folder)),
                pool=pool,
                updates=arguments.updates + 1,
                batch_size=arguments.batch_size,
                tuning="full" if name == "mid-size" else "lora",
                dtype="float32" if name == "mid-size" else "bfloat16",
            )
            print(
                f"\n{name}: {workload.tuning}, {workload.dtype}, batches of {workload.batch_size}"
            )
            print_padding(fork(count_padded_tokens, workload))
            print_speeds(workload, arguments.sides)
            print_curves(workload.for_updates(arguments.curve_updates))


def _model(name: str, folder: Path) -> Path:
    if name == "embedded":
        from prism_tune.config.load import load_config

        return Path(load_config(EMBEDDED).model.path)
    size = {"num_layers": 6, "width": 384, "vision_layers": 3, "image_pixels": 168}
    return fork(save_llava, folder / "model", **size)


def print_padding(padded_tokens: dict[str, int]) -> None:
    """Exact, over a whole epoch: what the model computes, padding included, beside the records."""
    real = padded_tokens.pop("real")
    print("\n| batches | tokens computed in an epoch | padding | fewer than random |")
    print("|---|---:|---:|---:|")
    for batching, padded in padded_tokens.items():
        fewer = padded_tokens[BASELINE] / padded
        print(f"| {batching} | {padded} | {1 - real / padded:.0%} | {fewer:.2f}x |")


def print_speeds(workload: Workload, sides: list[str]) -> None:
    """A row for each side as it is measured; in brackets, how many times the first."""
    threads = torch.get_num_threads()
    print(f"\nMeasured over {workload.updates - 1} updates, {threads} threads\n")
    columns = "records", "tokens", "padding", "seconds", "tokens/s", "tokens/CPU s", "peak MiB"
    print(f"| batches | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * len(columns)}", flush=True)
    first = None
    for side in sides:
        row = measure(build_side, side, workload)
        first = row if first is None else first
        pairs = zip(row.speeds(), first.speeds(), strict=True)
        speeds = " | ".join(f"{speed:.0f} ({speed / base:.2f}x)" for speed, base in pairs)
        padding = row.padding / (row.padding + row.tokens)
        print(
            f"| {side} | {row.records} | {row.tokens} | {padding:.0%} | {row.seconds:.1f} "
            f"| {speeds} | {row.peak_mib:.0f} |",
            flush=True,
        )


def print_curves(workload: Workload) -> None:
    """The losses of ours, and how far the others' are from them on the same batches."""
    ours = measure(build_side, "random", workload).losses
    print(f"\nlosses on the same batches, ours: {', '.join(f'{loss:.6f}' for loss in ours)}")
    for name in ("transformers", "TRL"):
        losses = measure(build_with_our_batches, name, workload).losses
        pairs = zip(losses, ours, strict=True)
        print(f"{name}: largest relative difference {max(abs(a - b) / b for a, b in pairs):.1e}")


if __name__ == "__main__":
    main()

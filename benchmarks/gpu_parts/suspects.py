"""What makes a packed step slow: its phases, and the same rows with one suspect after another gone.

The first steps are the training's own, on new rows. Then their rows go through forward and backward
again, each way with one change more than the last (`_ways`), so that a difference is the change's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_parts.kernels import profiled
from gpu_parts.training import configure
from torch import nn
from transformers import AttentionInterface

from prism_tune.models.packing import attend_per_record
from prism_tune.models.tuning import tuned_parts
from prism_tune.run.folder import RunDir
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

_OWN_STEPS = 5


class _DoneError(Exception):
    """Everything has been measured; the training need not end."""


def run(work: Path, *, model: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Train for a few steps and take the last ones apart.

    Args:
        work: the work folder.
        model: of `shapes.draw_model`.
        name: of the run.
        options: as of `training.run`; packed rows.

    Returns:
        Seconds of each phase of each own step; for each way of `_ways` seconds of forward and of
        backward, tokens per second and the loss of the last row; a profile of one step.
    """
    found: dict[str, Any] = {"own steps": []}
    config = configure(work, name, model, 50, options)
    with _taken_apart(found):
        try:
            train(config, RunDir(work / "runs" / name), force=True)
        except _DoneError:
            return found
    raise AssertionError("the training ended before its steps were taken apart")


@contextmanager
def _taken_apart(found: dict[str, Any]) -> Iterator[None]:
    """The trainer's first steps are timed, then the ways are tried in place of the next."""
    step = TuningTrainer.training_step
    rows: list[tuple[Any, ...]] = []
    clock = _Clock()

    def timed(self: Any, model: Any, inputs: Any, num_items: Any = None) -> Any:
        if not rows:
            _watch(self, clock)
        if rows:
            clock.mark("optimizer and log")
            tokens = rows[-1][0]["input_ids"].numel()
            found["own steps"].append({"tokens": tokens, **clock.take()})
        clock.mark("data")
        if len(rows) == _OWN_STEPS:
            with profiled(found.setdefault("profile, new row", {})):
                step(self, model, inputs, num_items)
            _try_ways(lambda row: step(self, model, *row), rows, self, clock, found)
            raise _DoneError
        rows.append((inputs, num_items))
        clock.mark("data")
        loss = step(self, model, inputs, num_items)
        clock.mark("backward")
        return loss

    TuningTrainer.training_step = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        TuningTrainer.training_step = step  # type: ignore[method-assign]


class _Clock:
    """Seconds between marks, by the name of the second; the device is waited for."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._seconds[name] = round(self._seconds.get(name, 0.0) + now - self._last, 4)
        self._last = now

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return taken


def _watch(trainer: Any, clock: _Clock) -> None:
    """Mark where the loss is there, and where the optimiser begins and ends."""
    compute_loss, step = trainer.compute_loss, trainer.optimizer.step

    def watched(*arguments: Any, **options: Any) -> Any:
        loss = compute_loss(*arguments, **options)
        clock.mark("forward")
        return loss

    def watched_step(*arguments: Any, **options: Any) -> Any:
        clock.mark("clipping")
        result = step(*arguments, **options)
        clock.mark("optimizer")
        return result

    trainer.compute_loss = watched
    trainer.optimizer.step = watched_step


def _try_ways(
    step: Callable[[tuple[Any, ...]], Any],
    rows: list[tuple[Any, ...]],
    trainer: Any,
    clock: _Clock,
    found: dict[str, Any],
) -> None:
    """Every row under every way, without the optimiser."""
    tuned = trainer.model
    rows = rows[-3:]
    found["records of a row"] = [int((row["position_ids"] == 0).sum()) for row, _ in rows]
    found["vision tower gets gradients"] = _has_vision_gradients(tuned, step, rows[0])
    tokens = sum(row["input_ids"].numel() for row, _ in rows)
    ways: dict[str, Any] = {}
    for name, change in _ways(tuned):
        try:
            change()
            clock.take()
            losses, spans = [], []
            for row in rows:
                tuned.zero_grad()
                clock.mark("between")
                losses.append(float(step(row)))
                clock.mark("backward")
                spans.append(clock.take())
        except (ImportError, RuntimeError, TypeError, AttributeError) as error:
            ways[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
            continue
        seconds = sum(span["forward"] + span["backward"] for span in spans)
        ways[name] = {
            "tokens_per_s": round(tokens / seconds, 1),
            "forward": [span["forward"] for span in spans],
            "backward": [span["backward"] for span in spans],
            "median_row": round(statistics.median(s["forward"] + s["backward"] for s in spans), 3),
            "loss": losses[-1],
        }
    found["ways"] = ways


def _ways(tuned: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each is done on top of those before it."""
    decoder = tuned_parts(tuned).language_model

    def use_varlen() -> None:
        AttentionInterface.register("sdpa_per_record", _attend_varlen)

    yield "the same rows again", lambda: None
    yield "one attention call for all records", use_varlen
    yield "and no dropout", lambda: _set_dropout(tuned)
    yield "and liger's norm, rotary, SwiGLU", lambda: _use_liger(decoder)


def _has_vision_gradients(tuned: Any, step: Callable[..., Any], row: tuple[Any, ...]) -> bool:
    tower: Any = tuned_parts(tuned).vision_tower
    seen: list[bool] = []

    def look(module: nn.Module, given: Any, output: Any) -> None:
        seen.append(bool(getattr(output, "last_hidden_state", output[0]).requires_grad))

    handle = tower.register_forward_hook(look)
    step(row)
    handle.remove()
    return any(seen)


def _attend_varlen(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    record_lengths: tuple[int, ...],
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As `attend_per_record`, by one kernel over all records."""
    if not query.is_cuda:
        return attend_per_record(
            module,
            query,
            key,
            value,
            attention_mask,
            record_lengths=record_lengths,
            scaling=scaling,
            **options,
        )
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *record_lengths]).cumsum(0).int().to(query.device, non_blocking=True)
    longest = max(record_lengths)
    rows = [tensor[0].transpose(0, 1).bfloat16() for tensor in (query, key, value)]
    window = {"window_size": (-1, 0)} if _takes_window() else {"is_causal": True}
    return varlen_attn(*rows, ends, ends, longest, longest, scale=scaling, **window)[None], None


def _takes_window() -> bool:
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    return "window_size" in inspect.signature(varlen_attn).parameters


def _set_dropout(tuned: nn.Module) -> None:
    for name, module in tuned.named_modules():
        if "lora_dropout" in name and isinstance(module, nn.Dropout):
            module.p = 0.0


def _use_liger(decoder: nn.Module) -> None:
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(
        rope=True,
        rms_norm=True,
        swiglu=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        model=decoder,
    )

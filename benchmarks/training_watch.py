"""What is measured of a trainer, ours or a peer's; needs transformers and nothing of prism_tune."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback


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

    def add(self, other: Measured) -> Measured:
        """Both rounds together; the greater peak, the losses of this one."""
        sums = ("seconds", "cpu_seconds", "tokens", "records", "padding")
        summed = {name: getattr(self, name) + getattr(other, name) for name in sums}
        peak = max(self.peak_mib, other.peak_mib)
        return Measured(**summed, peak_mib=peak, losses=self.losses or other.losses)

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
        self.result.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the losses, as they are logged."""
        if logs and "loss" in logs:
            self.result.losses.append(float(logs["loss"]))

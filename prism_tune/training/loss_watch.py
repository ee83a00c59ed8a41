"""Watching the logged losses: what cannot go on is stopped, what stands still is said."""

from __future__ import annotations

import logging
import math

from prism_tune.errors import UserError

logger = logging.getLogger(__name__)

_CONSTANT_LOSSES = 20


class LossWatch:
    """Of one training, from its first logged loss on."""

    def __init__(self) -> None:
        self._recent: list[float] = []

    def add(self, step: int, loss: float) -> None:
        """Look at the loss of a step.

        Raises:
            UserError: it is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise UserError(
                f"step {step}: the loss is {loss}; lower the learning rate, or "
                "use bf16 in place of fp16; finished checkpoints are kept"
            )
        self._recent = [*self._recent, loss][-_CONSTANT_LOSSES:]
        if len(self._recent) == _CONSTANT_LOSSES and len(set(self._recent)) == 1:
            logger.warning(
                "step %d: the loss has been exactly %s for %d log lines: nothing is learnt",
                step,
                loss,
                _CONSTANT_LOSSES,
            )
            self._recent = []

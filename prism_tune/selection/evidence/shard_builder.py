"""One shard's rows: encoded units in, rows in the order of the shard's keys out.

Batches are consecutive units of one shard, so that they do not depend on how many processes work
or on what was finished before a kill.

Shape legend: U rows of the shard, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import BatchRunner

Counts = dict[str, float]


class ShardBuilder:
    """Collects units into batches, runs them, and keeps their features on the device.

    Args:
        runner: runs the batches.
        advance: told how many units were done.

    Attributes:
        failed: key -> (reason, detail) of units without feature.
        counts: images, tokens and estimated flops of this shard.
    """

    def __init__(self, runner: BatchRunner, advance: Callable[[int], None]) -> None:
        self._runner = runner
        self._advance = advance
        self._batch: list[Encoded] = []
        self._pooled: list[dict[int, torch.Tensor]] = []
        self._has_row: list[bool] = []
        self.failed: dict[str, tuple[str, str]] = {}
        self.counts: Counts = {"images": 0, "tokens": 0, "flops": 0.0}

    def add(self, key: str, unit: Encoded) -> None:
        """Take the next unit of the shard."""
        self._has_row.append(unit.fault is None)
        if unit.fault is not None:
            self.failed[key] = unit.fault
            self._advance(1)
            return
        if self._batch and not self._runner.fits([*self._batch, unit]):
            self._run_batch()
        self._batch.append(unit)

    def finish(self) -> dict[int, NDArray[np.float32]]:
        """Run what is left; the rows (U, D) of each layer, NaN for units without feature."""
        if self._batch:
            self._run_batch()
        return {layer: self._rows(layer) for layer in self._runner.layers}

    def _run_batch(self) -> None:
        batch, self._batch = self._batch, []
        self._pooled.append(self._runner.pool(batch))
        self.counts["images"] += sum(unit.num_images for unit in batch)
        self.counts["tokens"] += sum(len(unit.pooled_L) for unit in batch)
        self.counts["flops"] += self._runner.estimate_flops(batch)
        self._advance(len(batch))

    def _rows(self, layer: int) -> NDArray[np.float32]:
        rows_UD = np.full((len(self._has_row), self._runner.width), np.nan, dtype=np.float32)
        if self._pooled:
            values = torch.cat([pooled[layer] for pooled in self._pooled])
            rows_UD[np.array(self._has_row)] = values.cpu().numpy()
        return rows_UD

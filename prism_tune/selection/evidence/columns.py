"""Some columns of a feature matrix as a matrix of its own, read block by block.

Shape legend: U feature rows, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import RowBlocks


@dataclass(frozen=True)
class Columns:
    """Columns `start` to `stop` of `rows_UD` (a `RowBlocks` like it)."""

    rows_UD: RowBlocks
    start: int
    stop: int

    @classmethod
    def halves(cls, rows_UD: RowBlocks) -> tuple[Columns, Columns]:
        """Of "pair" features: the images' columns, and the questions'."""
        width = rows_UD.shape[1]
        return cls(rows_UD, 0, width // 2), cls(rows_UD, width // 2, width)

    @property
    def shape(self) -> tuple[int, ...]:
        """(U, the number of columns)."""
        return (self.rows_UD.shape[0], self.stop - self.start)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the rows."""
        return self.rows_UD.dtype

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """A block of rows."""
        return self.rows_UD[rows][:, self.start : self.stop]

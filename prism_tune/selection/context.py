"""What a scorer is given.

Shape legend: M records to be scored (image records without the skipped ones), U feature rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.config import Config
from prism_tune.data.records import Pool
from prism_tune.selection.row_blocks import RowBlocks


@dataclass(frozen=True)
class ScoringContext:
    """The records to be scored, and their features where the scorer needs them.

    `groups_M` labels the records to be scored and cut together; None for `scope: global`.
    `row_M` is each record's row of `features_UD`.
    """

    config: Config
    pool: Pool
    records_M: NDArray[np.int64]
    groups_M: NDArray[Any] | None
    features_UD: RowBlocks | None = None
    row_M: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ScoredRecords:
    """One float64 score per record to be scored, and what the manifest should say beside."""

    values_M: NDArray[np.float64]
    diagnostics: dict[str, Any]


@dataclass(frozen=True)
class Scorer:
    """A selection method. `selection.keep: low` keeps the lowest scores.

    `features`: what it needs whatever `selection.features` says; None where that decides.
    `check` refuses a config whose options do not fit, before anything is computed.
    """

    score: Callable[[ScoringContext], ScoredRecords]
    needs_features: bool
    features: Literal["pair"] | None = None
    check: Callable[[Config], object] | None = None

    def complete(self, config: Config) -> Config:
        """The config with the features that the method needs.

        Raises:
            ConfigError: options that do not fit the method.
        """
        if self.check is not None:
            self.check(config)
        if self.features is None:
            return config
        selection = config.selection.model_copy(update={"features": self.features})
        return config.model_copy(update={"selection": selection})

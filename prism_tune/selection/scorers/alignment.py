"""Alignment: how much an instruction's shallow feature is like its image's.

Reading of the abstract of https://arxiv.org/abs/2502.12119 (version 1), "intrinsic modality
alignment between visual encodings and language instructions", ranked task by task (`scope:
per_source`). The paper gives no formula; this one is ours.
Equation: A_i = Pearson(V_i, T_i) over the D values of the two, V the pooled image tokens and T the
pooled question tokens of the hidden state at layer k. Keep the lowest, unless `selection.keep`
says otherwise.
Cost: k decoder layers and the vision tower once per *record* (it needs the question), and two
features of every record on disk.

Shape legend: U feature rows, B rows of a block, D feature width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.features.row_blocks import RowBlocks, default_block_rows, map_spans
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, change_selection
from prism_tune.selection.unranked import Unranked


def adapt(config: Config) -> Config:
    """The config with the two features of every record apart.

    Raises:
        ConfigError: there is one feature a record, of one's own.
    """
    if config.selection.features_file is not None:
        raise ConfigError(
            "selection.features_file: alignment compares two features of each record, which a "
            "matrix of one's own does not tell apart; choose another selection.scorer"
        )
    return change_selection(config, features="pair")


def score(context: ScoringContext) -> ScoredRecords:
    """Correlation of every record; NaN where there is none: no question, a constant feature."""
    features_UD, row_M = context.rows()
    values_M = correlate_pairs(features_UD)[row_M]
    undefined_M = ~np.isfinite(values_M)
    unseen_M = ~find_seen(features_UD)[row_M]
    counts = {"num_without_correlation": int(undefined_M.sum())}
    unranked: Unranked = {"feature_not_finite": unseen_M, "no_correlation": undefined_M & ~unseen_M}
    return ScoredRecords(values_M, counts, unranked)


def find_seen(features_UD: RowBlocks) -> NDArray[np.bool_]:
    """Which rows have a finite image half, (U,); without words the other half alone is not."""
    num_rows, width = features_UD.shape
    block = default_block_rows(width, features_UD.dtype)
    starts = range(0, num_rows, block)
    blocks = (features_UD[slice(start, start + block)][:, : width // 2] for start in starts)
    return np.concatenate([np.isfinite(rows_BD).all(axis=1) for rows_BD in blocks])


def correlate_pairs(features_UD: RowBlocks) -> NDArray[np.float64]:
    """Pearson correlation of the two halves of every row, in float64; NaN where undefined.

    Raises:
        UserError: rows of an odd width, which have no halves.
    """
    num_rows, width = features_UD.shape
    if width % 2:
        raise UserError(f"alignment: expected two features side by side, got {width} columns")
    block_rows = default_block_rows(width, np.dtype(np.float64))

    def visit(blocks: list[tuple[int, int]]) -> NDArray[np.float64]:
        return np.concatenate([_correlate(features_UD[a:b]) for a, b in blocks])

    return np.concatenate(list(map_spans(visit, num_rows, block_rows)))


def _correlate(rows_BD: NDArray[np.floating]) -> NDArray[np.float64]:
    halves = np.split(np.asarray(rows_BD, dtype=np.float64), 2, axis=1)
    with np.errstate(invalid="ignore"):  # infinite features: no number, as it should be
        visual, text = (half - half.mean(axis=1, keepdims=True) for half in halves)
        norms_B = np.linalg.norm(visual, axis=1) * np.linalg.norm(text, axis=1)
        dots_B = np.einsum("bd,bd->b", visual, text)
    return np.divide(dots_B, norms_B, out=np.full(len(dots_B), np.nan), where=norms_B > 0)

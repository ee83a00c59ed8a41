"""rds_plus: the records most like some query, in turns of the queries, after RDS+. Ours: its tasks.

Reference: Ivison et al., "Large-Scale Data Selection for Instruction Tuning",
https://arxiv.org/abs/2503.01807; code: hamishivi/automated-instruction-selection.
Equation: e_i = the mean of the record's last hidden states, weighted by their places
(`weighted_states.py`), of the model before tuning. Each query q ranks all records by cos(e_i, e_q);
in each round each query takes the next of its list, one that is taken already counting as its turn.
So a record goes in the round min_q rank_q(i), which is its score, from 0. Keep the lowest.
Ours: the queries are records held out of each source, 64 each (a tenth at most), as in
`icons_heldout` (RDS+ has a few examples of each benchmark); inside a round a hash decides
(official: the order of the queries); with `scope: per_source` ranks are those inside the source.
Cost: forward (the whole model, once per distinct record), then O(N Q d) and sorting N numbers for
each of the Q queries, one at a time.

Shape legend: M records, U rows of the store, Q queries, B rows of a block, D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count, Section
from prism_tune.errors import UserError
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.selection.evidence.states.weighted_states import WEIGHTED_STATES
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.gradients.heldout import hold_out
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, code_sources
from prism_tune.selection.subset import hash_uids
from prism_tune.selection.unranked import Unranked

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BLOCK_ROWS = 4096
_QUERIES = 64  # whose cosines with all records are in memory at a time
_DECIMALS = 12  # what equal vectors may differ by


class RdsOptions(Section):
    """`selection.options` of rds_plus: how many records of a source are queries."""

    num_heldout: Count = Field(default=64, description="a positive number")


def score(context: ScoringContext) -> ScoredRecords:
    """The round in which every record is taken; NaN for queries and records without a vector.

    Raises:
        UserError: no source is large enough to hold records out.
    """
    rows_UD, row_M = context.more_rows[WEIGHTED_STATES.name]
    known_U = np.concatenate([units_BD.any(axis=1) for _, units_BD in read_units(rows_UD)])
    known_M = known_U[row_M]
    names, codes_M = code_sources(context)
    number = read_options(context.config, RdsOptions).num_heldout
    heldout_M = hold_out(context, codes_M, known_M, number)
    if not heldout_M.any():
        raise UserError(
            "rds_plus: no source has 10 records that could be read, of which one could be held out "
            "as a query; data.source and data.source_names make larger ones"
        )
    left = np.flatnonzero(known_M & ~heldout_M)
    left = left[np.argsort(hash_uids(context.uids)[left], kind="stable")]  # of equal ranks
    groups_M = np.zeros(len(row_M)) if context.groups_M is None else context.groups_M
    values_M = np.full(len(row_M), np.nan)
    values_M[left] = count_rounds(rows_UD, row_M[left], row_M[heldout_M], groups_M[left])
    sizes_G = np.bincount(codes_M[heldout_M], minlength=len(names))
    counted = {name: size for name, size in zip(names, sizes_G.tolist(), strict=True) if size}
    unranked: Unranked = {"held_out": heldout_M, "no_score": ~known_M}
    return ScoredRecords(values_M, {"num_heldout": counted}, unranked)


def count_rounds(
    rows_UD: RowBlocks, row_M: IntArray, row_Q: IntArray, groups_M: NDArray[Any]
) -> FloatArray:
    """The smallest of each record's ranks among those of its group, over the queries, (M,).

    Args:
        rows_UD: the vectors.
        row_M: of each record; of equal ones the first is ranked first.
        row_Q: of each query.
        groups_M: what is ranked together.
    """
    queries_QD = np.concatenate(
        [
            units_BD[np.isin(np.arange(at.start, at.stop), row_Q)]
            for at, units_BD in read_units(rows_UD)
        ]
    )
    groups = [np.flatnonzero(groups_M == group) for group in np.unique(groups_M)]
    rounds_M = np.full(len(row_M), np.inf)
    for start in range(0, len(queries_QD), _QUERIES):
        some_QD = queries_QD[start : start + _QUERIES]
        cosines = [units_BD @ some_QD.T for _, units_BD in read_units(rows_UD)]
        for cosine_U in np.concatenate(cosines).round(_DECIMALS).T:
            for members in groups:
                best = members[np.argsort(-cosine_U[row_M[members]], kind="stable")]
                rounds_M[best] = np.minimum(rounds_M[best], np.arange(len(best)))
    return rounds_M


def read_units(rows_UD: RowBlocks) -> Iterator[tuple[slice, FloatArray]]:
    """The vectors at length 1, a block at a time; one without length (0, not finite) is all 0."""
    num_rows = rows_UD.shape[0]
    for start in range(0, num_rows, _BLOCK_ROWS):
        at = slice(start, min(start + _BLOCK_ROWS, num_rows))
        block_BD = np.asarray(rows_UD[at], dtype=np.float64)
        lengths_B = np.linalg.norm(block_BD, axis=1, keepdims=True)
        sound_B = np.isfinite(lengths_B) & (lengths_B > 0)
        yield at, np.divide(block_BD, lengths_B, out=np.zeros_like(block_BD), where=sound_B)

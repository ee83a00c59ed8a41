"""Tasks without outside data: a few records of each source, taken out of the pool.

Their mean unit gradient stands for the source as a task. Benchmark questions are never read.

Shape legend: M records, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config, Count
from prism_tune.errors import UserError
from prism_tune.selection.evidence.gradients.sketches import SketchOptions, gradient_sketches
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.gradients.units import read_gradients
from prism_tune.selection.scorers.scorer import ScoringContext, code_sources
from prism_tune.selection.subset import hash_uids

_MOST = 10  # a tenth of a source at most


class HeldOutOptions(SketchOptions):
    """`selection.options` of methods with tasks: how many records of a source are one."""

    num_heldout: Count = Field(default=64, description="a positive number")


@dataclass(frozen=True)
class Influences:
    """What each record does for each task, (M, T): its unit gradient times the task's.

    NaN for records that are held out (`is_heldout_M`) or have no gradient (`is_unknown_M`).
    """

    values_MT: NDArray[np.float64]
    is_heldout_M: NDArray[np.bool_]
    is_unknown_M: NDArray[np.bool_]
    tasks: dict[str, int]


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The gradients of the modules that the options name."""
    return (gradient_sketches(read_options(config, HeldOutOptions)),)


def measure_influences(context: ScoringContext) -> Influences:
    """Of every record on every source's held-out records.

    Raises:
        UserError: no source is large enough to hold records out.
    """
    options = read_options(context.config, HeldOutOptions)
    gradients = read_gradients(context)
    names, codes_M = code_sources(context)
    known_M = np.isfinite(gradients.norm_M)
    heldout_M = hold_out(context, codes_M, known_M, options.num_heldout)
    sizes_G = np.bincount(codes_M[heldout_M], minlength=len(names))
    if not sizes_G.any():
        raise UserError(
            f"{context.config.selection.scorer}: no source has {_MOST} records that could be "
            "read, of which one could be held out as a task; data.source and data.source_names "
            "make larger ones"
        )
    means_GS = gradients.mean_of_groups(np.where(heldout_M, codes_M, -1), len(names))
    tasks = np.flatnonzero(sizes_G)
    values_MT = gradients.multiply(means_GS[tasks])
    values_MT[heldout_M | ~known_M] = np.nan
    counted = {names[task]: int(sizes_G[task]) for task in tasks.tolist()}
    return Influences(values_MT, heldout_M, ~known_M, counted)


def hold_out(
    context: ScoringContext,
    codes_M: NDArray[np.int64],
    known_M: NDArray[np.bool_],
    num_heldout: int,
) -> NDArray[np.bool_]:
    """The records of the smallest hashes of uid and seed in each source, a tenth at most."""
    hashes_M = hash_uids(context.uids, context.config.seed)
    heldout_M = np.zeros(len(codes_M), dtype=bool)
    for code in range(int(codes_M.max()) + 1):
        own = np.flatnonzero((codes_M == code) & known_M)
        number = min(num_heldout, len(own) // _MOST)
        heldout_M[own[np.argsort(hashes_M[own], kind="stable")][:number]] = True
    return heldout_M

"""TIVE: more of the sources whose records still move the model, drawn by how typical they are.

Paper: Liu et al., "Less is More: High-value Data Selection for Visual Instruction Tuning",
https://arxiv.org/abs/2403.09559; code: RUCAIBox/TIVE.
Equation: g_i is the gradient of record i's mean answer loss with respect to the LoRA matrices of
self-attention, after a warm-up on 8 % of the records (equally many per source, r 128, alpha 256).
A source's quota is proportional to the mean of |g_i|; inside it records are drawn without
replacement by softmax(lambda v_i), v_i = mean_j cos(g_i, g_j) over the source. lambda is 0.001 in
the official code, where it *multiplies* a cosine: weights differ by less than 0.1 %, so inside a
source its default is a random draw.
Score: a record's place in the draw of its source, from 0, plus one half, over the source's mean
|g|. The lowest of the whole pool are kept, which is apportionment by these means (Webster's): exact
totals, nested budgets, and what a source cannot fill goes to the others.
Ours: sketches of the gradients in place of a Rademacher projection of all LoRA matrices
(`evidence/gradients/sketches.py`; norms are exact); Webster's quotas; a source whose quota exceeds
its size is not repeated; TextCaps is not left out; text-only records are ranked with
`text_only: rank`, else as that key says. `selection.scope` has no meaning here: the quotas are the
method's.
Cost: a warm-up, then forward and backward (the whole model, once per distinct record); O(N S).

Shape legend: M records, G sources.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config
from prism_tune.features.row_pairs import split_by
from prism_tune.selection.evidence.gradients.sketches import (
    Modules,
    SketchOptions,
    gradient_sketches,
)
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.clusters.quotas import floor_weights, place_by_weight
from prism_tune.selection.scorers.gradients.units import read_gradients
from prism_tune.selection.scorers.scorer import (
    ScoredRecords,
    ScoringContext,
    change_selection,
    code_sources,
)
from prism_tune.selection.subset import hash_uids

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class TiveOptions(SketchOptions):
    """`selection.options` of tive; `sharpness` is the paper's lambda."""

    modules: Modules = "attention"
    sharpness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.001


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The gradients of the modules that the options name."""
    return (gradient_sketches(read_options(config, TiveOptions)),)


def adapt(config: Config) -> Config:
    """Quotas are cut over the whole pool."""
    return change_selection(config, scope="global")


def score(context: ScoringContext) -> ScoredRecords:
    """The place in the draw of the source, over the source's mean norm; the lowest are kept."""
    options = read_options(context.config, TiveOptions)
    gradients = read_gradients(context)
    names, codes_M = code_sources(context)
    known_M = np.isfinite(gradients.norm_M)
    known = np.flatnonzero(known_M)
    codes = codes_M[known]
    mean_GS = gradients.mean_of_groups(np.where(known_M, codes_M, -1), len(names))
    products_MG = gradients.multiply(mean_GS)
    uids = [context.uids[n] for n in known.tolist()]
    noise = draw_gumbel(uids, context.config.seed)
    keys = options.sharpness * products_MG[known, codes] + noise
    mean_G = mean_norms(gradients.norm_M[known], codes, len(names))
    values_M = np.full(len(codes_M), np.nan)
    orders = order_by_source(keys, codes, len(names))
    values_M[known] = place_by_weight(len(keys), orders, floor_weights(mean_G))
    means = dict(zip(names, mean_G.tolist(), strict=True))
    return ScoredRecords(values_M, {"mean_gradient_norms": means}, {"no_score": ~known_M})


def mean_norms(norms: FloatArray, codes: IntArray, num_groups: int) -> FloatArray:
    """Of each source, (G,)."""
    counts_G = np.bincount(codes, minlength=num_groups)
    return np.bincount(codes, norms, minlength=num_groups) / np.maximum(counts_G, 1)


def order_by_source(keys: FloatArray, codes: IntArray, num_groups: int) -> list[IntArray]:
    """The places of the keys of each source, the highest first."""
    return split_by(codes, np.argsort(-keys, kind="stable"), num_groups=num_groups)


def draw_gumbel(uids: list[str], seed: int) -> FloatArray:
    """Noise that makes the highest of x + noise a draw by softmax(x), without replacement."""
    uniform = (np.right_shift(hash_uids(uids, seed), 11).astype(np.float64) + 0.5) / 2.0**53
    return -np.log(-np.log(uniform))

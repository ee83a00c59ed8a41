"""self_filter_static: hard by a linear map of the record's embedding, and unlike what was taken.

Reference: Chen et al., "Your Vision-Language Model Itself Is a Strong Filter: Towards High-Quality
Instruction Tuning with Data Selection", https://arxiv.org/abs/2402.12501; code:
RayRuiboChen/Self-Filter. There the map is trained with the model, three epochs of full tuning.
Equation: x_i = [image; text] in a CLIP, each at length 1. Records are dealt into batches of 16; the
map w (no bias) minimises the mean over batches of sum_i softmax(w.x)_i nll_i, so that what is hard
gets a low output: difficulty d_i = -w.x_i. The hardest record is taken, its 10 nearest remaining
records by the cosine of x lose max(d, 0) cos^2, and so on.
Ours, hence the name: the map is fitted to losses of one model that does not change
(`selection.reference` says which) and not while it learns; batches by a hash of uid and seed (the
paper: a device's), of at most 65,536 records; a ridge of 0.01 |w|^2 with losses in their standard
deviation, by L-BFGS from 0; a difficulty below 0 takes nothing from its neighbours (officially it
*adds* to them); the nearest remaining are looked for among the 40 nearest of all, by the first
`num_components` principal components; inside each source with `scope: per_source`. GPT's grades and
ImageReward, the paper's other features, are not to be had offline.
Cost: forward (the whole model, shared with `perplexity`, and the encoder); then the search for
neighbours, O(N^2 K) in faiss: quadratic in the source (or the pool), over K components; picking
O(N k log N). Memory: 12 kB a record in CLIP ViT-L/14 (7.7 GB of 665K).

Shape legend: M records, B those of a group, D width of x, K components, Q neighbours.
"""

from __future__ import annotations

import heapq

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config, Count
from prism_tune.features.neighbours import find_nearest
from prism_tune.selection.evidence.embeddings.image_text import EncoderOptions
from prism_tune.selection.evidence.embeddings.joint import NAME, joint_embeddings
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.pick_order import rank_picks
from prism_tune.selection.scorers.readable import none_readable
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.subset import hash_uids

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]

_BATCH = 16
_MOST_FITTED = 65_536
_RIDGE = 0.01
_ITERATIONS = 100
_CANDIDATES = 4  # times as many neighbours as can lose
_BLOCK_ROWS = 4096


class SelfFilterOptions(EncoderOptions):
    """`selection.options` of self_filter_static: the encoder, and who loses by a pick."""

    num_neighbors: Count = 10
    num_components: Count | None = Field(default=64, description="a positive number, or null")


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The losses, and the embeddings."""
    options = read_options(config, SelfFilterOptions)
    encoder = EncoderOptions(model=options.model, revision=options.revision, text=options.text)
    return (ANSWER_LOSSES, joint_embeddings(encoder))


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every picked record, from 0, inside its group; the rest share the next one."""
    options = read_options(context.config, SelfFilterOptions)
    rows_UD, row_M = context.more_rows[NAME]
    values_UD: Float32Array = rows_UD[slice(0, rows_UD.shape[0])]
    nll_M = context.measured["nll"]
    known_M = np.isfinite(nll_M)
    if not known_M.any():
        raise none_readable(context)
    hashes_M = hash_uids(context.uids, context.config.seed)
    known = np.flatnonzero(known_M)
    fitted = known[np.argsort(hashes_M[known], kind="stable")][:_MOST_FITTED]
    weights_D = fit_map(values_UD[row_M[fitted]], nll_M[fitted]).astype(np.float32)
    with np.errstate(invalid="ignore"):  # rows of another pool's records may not be finite
        output_U = values_UD @ weights_D
    difficulty_M = np.where(known_M, -output_U[row_M].astype(np.float64), -np.inf)
    groups_M = np.zeros(len(nll_M)) if context.groups_M is None else context.groups_M
    _, codes_M, sizes_G = np.unique(groups_M, return_inverse=True, return_counts=True)
    picks, places_M = [], hash_uids(context.uids)
    for code, wanted in enumerate(context.most_taken(sizes_G).tolist()):
        own = known[codes_M[known] == code]
        at = own[np.argsort(places_M[own], kind="stable")]
        taken = pick_hardest(values_UD[row_M[at]], difficulty_M[at], wanted, options)
        picks.append(at[taken])
    spread = float(np.std(difficulty_M[known]))
    diagnostics = {"num_fitted": len(fitted), "difficulty_deviation": spread}
    return rank_picks(len(nll_M), picks, diagnostics, {"no_score": ~known_M})


def fit_map(values_FD: Float32Array, nll_F: FloatArray) -> FloatArray:
    """The map whose softmax in batches of 16 leans to records of low loss, (D,).

    Args:
        values_FD: in the order in which batches are dealt; an incomplete last one is left out.
        nll_F: of the same.
    """
    size = min(_BATCH, len(nll_F))
    num = len(nll_F) // size * size
    deviation = float(nll_F[:num].std()) or 1.0
    losses = torch.from_numpy((nll_F[:num] - nll_F[:num].mean()) / deviation).float()
    rows = torch.from_numpy(np.ascontiguousarray(values_FD[:num], dtype=np.float32))
    weights = torch.zeros(values_FD.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        shares = torch.softmax((rows @ weights).view(-1, size), dim=1)
        loss = (shares * losses.view(-1, size)).sum(dim=1).mean()
        loss = loss + _RIDGE * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach().numpy().astype(np.float64)


def pick_hardest(
    values_BD: Float32Array, difficulty_B: FloatArray, num_picks: int, options: SelfFilterOptions
) -> IntArray:
    """The hardest again and again, each at the cost of its nearest remaining neighbours.

    Args:
        values_BD: rows of the group's records.
        difficulty_B: of each; of equal ones the first is taken.
        num_picks: at most so many.
        options: how many neighbours lose, and how they are looked for.
    """
    if not len(difficulty_B):
        return np.zeros(0, dtype=np.int64)
    reduced_BK = project(values_BD, options.num_components)
    wanted = min(_CANDIDATES * options.num_neighbors, len(values_BD) - 1)
    near_BQ = find_nearest(reduced_BK, wanted).tolist()
    lengths_B1 = np.maximum(np.linalg.norm(values_BD, axis=1, keepdims=True), 1e-12)
    left = difficulty_B.tolist()
    queue = [(-value, row) for row, value in enumerate(left)]
    heapq.heapify(queue)
    taken = bytearray(len(left))
    picks: list[int] = []
    while queue and len(picks) < num_picks:
        key, row = heapq.heappop(queue)
        if taken[row] or -key != left[row]:
            continue  # outdated: it has lost since
        taken[row] = True
        picks.append(row)
        if left[row] <= 0:
            continue
        losing = [other for other in near_BQ[row] if not taken[other]][: options.num_neighbors]
        cosines = (values_BD[losing] / lengths_B1[losing]) @ (values_BD[row] / lengths_B1[row])
        for other, cosine in zip(losing, cosines.tolist(), strict=True):
            left[other] -= left[row] * cosine**2
            heapq.heappush(queue, (-left[other], other))
    return np.array(picks, dtype=np.int64)


def project(values_BD: Float32Array, num_components: int | None) -> FloatArray:
    """Rows at length 1 on their first principal components, (B, K); all of them with null."""
    lengths = np.maximum(np.linalg.norm(values_BD, axis=1, keepdims=True), 1e-12)
    if num_components is None or num_components >= min(values_BD.shape):
        return (values_BD / lengths).astype(np.float64)
    mean_D = (values_BD / lengths).mean(axis=0, dtype=np.float64)
    width = values_BD.shape[1]
    scatter_DD = np.zeros((width, width))
    starts = range(0, len(values_BD), _BLOCK_ROWS)
    blocks = [slice(start, start + _BLOCK_ROWS) for start in starts]
    for at in blocks:
        centred = values_BD[at] / lengths[at] - mean_D
        scatter_DD += centred.T @ centred
    directions_DK = np.linalg.eigh(scatter_DD)[1][:, -num_components:]
    return np.concatenate([(values_BD[at] / lengths[at] - mean_D) @ directions_DK for at in blocks])

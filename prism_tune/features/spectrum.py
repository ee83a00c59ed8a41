"""How narrow the cone of the features is: diagnostics beside the scores.

Features go in; mean pairwise cosines (exact, over all pairs) and the variance share of the top
principal directions (over a sample of rows where there are many) come out.

Shape legend: N records, U feature rows, R sampled rows, D feature width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.redundancy import mean_cosine
from prism_tune.features.row_blocks import RowBlocks, even_places

TOP_DIRECTIONS = (1, 10)
_MAX_ROWS = 2048


def measure_anisotropy(
    features_UD: RowBlocks,
    *,
    inverse_N: NDArray[Any] | None = None,
    max_rows: int = _MAX_ROWS,
) -> dict[str, float | int]:
    """Mean pairwise cosine before and after corpus centring, and the spectrum's head.

    Args:
        features_UD: one row per distinct feature; a store may have rows of no record besides.
        inverse_N: the row of each record; None: record n has row n.
        max_rows: the spectrum is taken over so many, evenly spaced, of the rows that records have.

    Returns:
        `mean_cosine_raw` and `mean_cosine_centred` over all pairs of records,
        `variance_share_top_<k>` of the sampled
        rows, and `num_rows_in_spectrum`.

    Raises:
        UserError: no records.
    """
    own_U = np.arange(features_UD.shape[0]) if inverse_N is None else np.unique(inverse_N)
    rows_RD = _sample_rows(features_UD, own_U, max_rows)
    shares = _variance_shares(rows_RD)
    return {
        "mean_cosine_raw": mean_cosine(features_UD, centering="none", inverse_N=inverse_N),
        "mean_cosine_centred": mean_cosine(features_UD, centering="corpus", inverse_N=inverse_N),
        **{f"variance_share_top_{k}": float(shares[:k].sum()) for k in TOP_DIRECTIONS},
        "num_rows_in_spectrum": len(rows_RD),
    }


def _sample_rows(
    features_UD: RowBlocks, own_U: NDArray[np.int64], max_rows: int
) -> NDArray[np.float64]:
    chosen = own_U[even_places(len(own_U), max_rows)]
    rows = [np.asarray(features_UD[i : i + 1], dtype=np.float64) for i in chosen.tolist()]
    rows_RD = np.concatenate(rows)
    return rows_RD[np.isfinite(rows_RD).all(axis=1)]


def _variance_shares(rows_RD: NDArray[Any]) -> NDArray[np.float64]:
    """Eigenvalues of the covariance, largest first, as shares; by the smaller Gram matrix."""
    centred_RD = rows_RD - rows_RD.mean(axis=0)
    wide = centred_RD.shape[0] < centred_RD.shape[1]
    gram = centred_RD @ centred_RD.T if wide else centred_RD.T @ centred_RD
    values = np.linalg.eigvalsh(gram)[::-1].clip(min=0)
    total = values.sum()
    return values / total if total > 0 else values


def effective_rank(shares_R: NDArray[np.float64]) -> float:
    """The exponential of the entropy of the variance shares: k equal directions give k.

    1 where there is no variance at all.
    """
    present = shares_R[shares_R > 0]
    return float(np.exp(-(present * np.log(present)).sum()))

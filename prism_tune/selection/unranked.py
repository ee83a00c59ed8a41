"""Records that a method could not rank: how many, and why.

A score is always there: 0, a tie, a hash where nothing tells two records apart. What a method could
not tell is marked here, so that console, manifest, scores.parquet, tables and report say it.

Shape legend: M records to be scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prism_tune.intervals import are_equal

Reason = Literal[
    "held_out",
    "alone",
    "feature_not_finite",
    "feature_like_all",
    "no_correlation",
    "no_score",
    "equal_scores",
]
"""In the order in which one is named of a record that has several."""

Unranked = Mapping[Reason, NDArray[np.bool_]]
"""The records (M,) of each reason."""

_WHAT: dict[Reason, str] = {
    "held_out": "held out as the method's tasks, so they come last",
    "alone": "sources of one record",
    "feature_not_finite": "features with NaN or infinity",
    "feature_like_all": "features equal to the mean of those they are compared with",
    "no_correlation": "a constant feature, or a question without words",
    "no_score": "no finite score or loss, so they come last",
    "equal_scores": "all scores they are compared with are equal, so a hash decides",
}
_REMEDY: dict[Reason, str] = {
    "feature_not_finite": "selection.dtype=float32 may help",
    "feature_like_all": "look at their images: blank, or all the same",
    "no_correlation": "look at their questions and images",
    "no_score": "of a loss, selection.dtype=float32 may help",
}
_BY_SOURCE: dict[Reason, str] = {
    "alone": "selection.scope=global ranks them, and so do larger sources (data.source, "
    "data.source_names)",
    "feature_like_all": "selection.scope=global compares them with more",
    "equal_scores": "selection.scope=global compares them with more",
}
"""What helps where records are compared inside their source."""


def name_unranked(
    found: Unranked, values_M: NDArray[np.float64], groups_M: NDArray[Any] | None
) -> list[Reason | None]:
    """Why each record could not be ranked; None where it was.

    Args:
        found: by the method.
        values_M: the scores.
        groups_M: what is cut apart; None: nothing.
    """
    masks = {**found, **_look_at_groups(values_M, groups_M)}
    masks["no_score"] = found.get("no_score", False) | ~np.isfinite(values_M)
    names: list[Reason | None] = [None] * len(values_M)
    for reason in reversed(get_args(Reason)):
        for index in np.flatnonzero(masks.get(reason, ())).tolist():
            names[index] = reason
    return names


def describe_unranked(
    names: list[Reason | None], sources: list[str], *, by_source: bool
) -> dict[str, Any]:
    """What the manifest says of them.

    Args:
        names: of the records to be scored.
        sources: of the same.
        by_source: whether they are compared inside their source.

    Returns:
        num, of (all that were to be scored), reasons {reason: num, what, remedy, sources} and
        `text`, one sentence; empty where all were ranked.
    """
    counts = Counter(name for name in names if name is not None)
    if not counts:
        return {}
    reasons: dict[Reason, dict[str, Any]] = {}
    for reason in get_args(Reason):
        if counts[reason]:
            of = Counter(s for s, name in zip(sources, names, strict=True) if name == reason)
            remedies = [_REMEDY.get(reason), _BY_SOURCE.get(reason) if by_source else None]
            reasons[reason] = {
                "num": counts[reason],
                "what": _WHAT[reason],
                "remedy": "; ".join(filter(None, remedies)),
                "sources": dict(of.most_common()),
            }
    num, several = sum(counts.values()), len(reasons) > 1
    why = [
        "; ".join(filter(None, [of["what"] + f" ({of['num']:,})" * several, of["remedy"]]))
        for of in reasons.values()
    ]
    text = f"{num:,} of {len(names):,} image records could not be ranked: {'; '.join(why)}"
    return {"num": num, "of": len(names), "reasons": reasons, "text": text}


def _look_at_groups(
    values_M: NDArray[np.float64], groups_M: NDArray[Any] | None
) -> dict[Reason, NDArray[np.bool_]]:
    """Records alone in their group, and groups in which all scores are equal."""
    codes_M = np.zeros(len(values_M), dtype=np.int64)
    if groups_M is not None:
        codes_M = np.unique(groups_M, return_inverse=True)[1]
    sizes_G = np.bincount(codes_M)
    finite_M = np.isfinite(values_M)
    low_G, high_G = np.full(len(sizes_G), np.inf), np.full(len(sizes_G), -np.inf)
    np.minimum.at(low_G, codes_M[finite_M], values_M[finite_M])
    np.maximum.at(high_G, codes_M[finite_M], values_M[finite_M])
    seen_G = low_G <= high_G
    equal_G = np.zeros(len(sizes_G), dtype=bool)
    equal_G[seen_G] = are_equal(low_G[seen_G], high_G[seen_G])
    alone_G = (sizes_G == 1) & (groups_M is not None)
    return {"alone": alone_G[codes_M], "equal_scores": (equal_G & (sizes_G > 1))[codes_M]}

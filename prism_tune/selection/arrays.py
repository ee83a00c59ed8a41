"""Choosing rows of a feature matrix: every selector on features, without pool, images or model.

In: a matrix in any of the forms people hold one, and a method by its name. Out: which rows to keep.

Shape legend: N rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from prism_tune.config.errors import describe_errors
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.features.given import as_floats
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.inputs import find_scorer, resolve_selection
from prism_tune.selection.scorers.scorer import ScoringContext
from prism_tune.selection.subset import cut_subset


@dataclass(frozen=True)
class ChosenRows:
    """Rows of a matrix, and the verdict on each.

    Attributes:
        indices: the kept ones, in the matrix's order.
        scores_N: of every row, as the method defines them.
        rank_N: from 1, in the order of keeping, inside the row's group.
        diagnostics: what the method says of itself.
    """

    indices: NDArray[np.int64]
    scores_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    diagnostics: dict[str, Any]


def select_rows(
    features: ArrayLike,
    *,
    scorer: str = "prism",
    budget: float | int = 0.3,
    groups: Sequence[Any] | None = None,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    **selection: Any,
) -> ChosenRows:
    """Keep `budget` of the rows of a matrix.

    Args:
        features: an array, a memory map, a torch tensor or nested lists, (N, D); a memory map is
            read in blocks.
        scorer: a method that reads features, or nothing (docs/selectors.md).
        budget: a fraction (float) or a number (int) of the rows.
        groups: a label a row: scored and cut inside of each; None: all together.
        ids: a name a row, unique: what decides between equals, and draws for `random`. By default
            the rows' numbers.
        seed: of methods that draw.
        **selection: more of the config's `selection`: `centering`, `keep`, `options`.

    Raises:
        UserError: no such matrix, lengths that differ, a method that reads something else.
        ConfigError: a setting that does not fit.
    """
    features_ND = as_floats(features, "features")
    num_rows = len(features_ND)
    names = [str(n) for n in range(num_rows)] if ids is None else [str(name) for name in ids]
    for what, given in (("groups", groups), ("ids", ids)):
        if given is not None and len(given) != num_rows:
            raise UserError(f"{what}: {len(given)} for {num_rows} rows of features")
    if len(set(names)) < num_rows:
        raise UserError("ids: some occur twice; give every row one of its own")
    share = budget.item() if isinstance(budget, np.generic) else budget
    config = _configure({"scorer": scorer, "budget": share, **selection}, seed)
    method = find_scorer(scorer)
    others = [source.name for source in method.reads(config) if source.name != FEATURES.name]
    if others or scorer == "length":
        needs = ", ".join(others) or "the answers' tokens"
        raise UserError(f"{scorer}: reads {needs}, which a matrix of features does not have")
    groups_N = None if groups is None else np.asarray(groups)
    at_N = np.arange(num_rows)
    rows: Any = SimpleNamespace(uids=names)
    scored = method.score(ScoringContext(config, rows, at_N, groups_N, features_ND, at_N))
    keep = config.selection.keep
    assert keep is not None
    cut = cut_subset(
        scored.values_M,
        uids=names,
        is_text_only_N=np.zeros(num_rows, dtype=bool),
        budget=config.selection.budget,
        keep=keep,
        groups_N=groups_N,
    )
    return ChosenRows(
        np.flatnonzero(cut.selected_N), scored.values_M, cut.rank_N, scored.diagnostics
    )


def _configure(selection: dict[str, Any], seed: int) -> Config:
    """The config of a selection that has neither pool nor model."""
    tree = {
        "name": "rows",
        "seed": seed,
        "model": {"path": ""},
        "data": {"records": ""},
        "selection": selection,
    }
    try:
        return resolve_selection(Config.model_validate(tree))
    except ValidationError as error:
        raise ConfigError(describe_errors(error, "select_rows", Config)) from error

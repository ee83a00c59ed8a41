"""Choosing rows of a feature matrix: every selector on features, without pool, images or model.

In: a matrix in any of the forms people hold one, and a method by its name. Out: which rows to keep.

Shape legend: N rows, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from prism_tune.config.errors import describe_errors
from prism_tune.config.sections import Config, SelectionConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.features.given import as_floats
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.inputs import find_scorer, resolve_selection
from prism_tune.selection.ranking import require_varied
from prism_tune.selection.scorers.readable import score_readable
from prism_tune.selection.scorers.scorer import ScoredRecords, Scorer, ScoringContext
from prism_tune.selection.subset import cut_subset
from prism_tune.selection.unranked import name_unranked

_TAKEN = ("scope", "centering", "keep", "options")
"""What of the config's `selection` says something of rows, beside scorer and budget."""
_ONLY_GROUP = "all"


@dataclass(frozen=True)
class ChosenRows:
    """Rows of a matrix, and the verdict on each.

    Attributes:
        indices: the kept ones, in the matrix's order.
        scores_N: of every row, as the method defines them.
        rank_N: from 1, in the order of keeping, inside the row's group.
        diagnostics: what the method says of itself; `unranked` counts, by reason, the rows that it
            could not rank (empty where it ranked all).
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
        groups: a label a row, as sources of a pool are: scored and cut inside of each, unless
            `scope="global"`; None: all together.
        ids: a name a row, unique: what decides between equals, and draws for `random`. By default
            the rows' numbers.
        seed: of methods that draw.
        **selection: more of the config's `selection`: `scope`, `centering`, `keep`, `options`.

    Raises:
        UserError: no such matrix, rows that are all the same, lengths that differ, a row without
            label, a method that reads something else.
        ConfigError: a setting that does not fit, or that only a pool or a model can obey.
    """
    features_ND = as_floats(features, "features")
    num_rows = len(features_ND)
    for what, given in (("groups", groups), ("ids", ids)):
        if given is not None and len(given) != num_rows:
            raise UserError(f"{what}: {len(given)} for {num_rows} rows of features")
    names, labels_N = _name_rows(ids, num_rows), _label_rows(groups, num_rows)
    share = budget.item() if isinstance(budget, np.generic) else budget
    config = _configure({"scorer": scorer, "budget": share, **selection}, seed)
    method = _find_method(config)
    groups_N = labels_N if config.selection.scope == "per_source" else None
    scored, unranked = _score(method, config, features_ND, names, labels_N, groups_N)
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
        np.flatnonzero(cut.selected_N),
        scored.values_M,
        cut.rank_N,
        {**scored.diagnostics, "unranked": unranked},
    )


def _score(
    method: Scorer,
    config: Config,
    features_ND: RowBlocks,
    names: list[str],
    labels_N: NDArray[np.str_],
    groups_N: NDArray[np.str_] | None,
) -> tuple[ScoredRecords, dict[str, int]]:
    """The method's scores, and by reason how many rows it could not rank."""
    at_N = np.arange(len(names))
    rows: Any = SimpleNamespace(uids=names, sources=labels_N.tolist())
    context = ScoringContext(config, rows, at_N, groups_N, features_ND, at_N)
    if method.draws:
        return method.score(context), {}
    if len(names) > 1:
        needed = "rows that differ are needed, or scorer='random'"
        require_varied(features_ND, at_N, what="all rows", of="rows", needed=needed)
    scored = score_readable(method, context, "rows")
    why = name_unranked(scored.unranked, scored.values_M, groups_N)
    return scored, dict(Counter(reason for reason in why if reason is not None))


def _name_rows(ids: Sequence[str] | None, num_rows: int) -> list[str]:
    names = [str(name) for name in (range(num_rows) if ids is None else ids)]
    if len(set(names)) < num_rows:
        raise UserError("ids: some occur twice; give every row one of its own")
    return names


def _find_method(config: Config) -> Scorer:
    """The scorer, which may read features alone."""
    scorer = config.selection.scorer
    method = find_scorer(scorer)
    others = [source.name for source in method.reads(config) if source.name != FEATURES.name]
    if others or scorer == "length":
        needs = ", ".join(others) or "the answers' tokens"
        raise UserError(f"{scorer}: reads {needs}, which a matrix of features does not have")
    return method


def _label_rows(groups: Sequence[Any] | None, num_rows: int) -> NDArray[np.str_]:
    """The group of each row, as text: labels of several kinds cannot be sorted."""
    if groups is None:
        return np.full(num_rows, _ONLY_GROUP)
    labels = [str(label) for label in groups]
    for row, (given, label) in enumerate(zip(groups, labels, strict=True)):
        if label in ("None", "nan", "NaT", "<NA>") and not isinstance(given, str):
            raise UserError(f"groups: row {row} has no label ({label}); give every row one")
    return np.array(labels)


def _configure(selection: dict[str, Any], seed: int) -> Config:
    """The config of a selection that has neither pool nor model."""
    idle = [key for key in SelectionConfig.model_fields if key in selection]
    idle = [key for key in idle if key not in (*_TAKEN, "scorer", "budget")]
    options = selection.get("options")
    if isinstance(options, dict) and "layers" in options:
        idle.append("options.layers")
    if idle:
        raise ConfigError(
            f"select_rows: {', '.join(idle)}: nothing that rows of a matrix can obey; beside "
            f"scorer and budget it takes {', '.join(_TAKEN)}; the rest needs a pool (open_pool, "
            "select)"
        )
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

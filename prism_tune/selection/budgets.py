"""Which budgets a config asks for, and the cuts that meet them.

The pool's records and `selection.budget`, `budgets`, `budget_of`, `text_only` and `source_budgets`
go in; a cut for every budget comes out, all from the same scores, the smaller inside the larger. A
source that `source_budgets` names is cut by itself, what is left by the budget.

Shape legend: N records of the pool, G groups that are scored together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import SelectionConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.selection.rooms import UNITS, BoolArray, Counting, IntArray, find_rooms, kept_beside
from prism_tune.selection.subset import Cut, FloatArray, Keep, Reason, cut_subset, most_taken

TEXT_ONLY = "text_only"
"""What `source_budgets` calls the text-only records where they are a source of their own."""

Budget = float | int


@dataclass(frozen=True)
class Candidates:
    """The records that a cut is made of.

    Attributes:
        uids: of each.
        sources: of each.
        is_text_only_N: which have no image.
        must_keep_N: which come first.
        num_tokens_N: of each; None where nothing has counted them.
    """

    uids: Sequence[str]
    sources: NDArray[np.str_]
    is_text_only_N: BoolArray
    must_keep_N: BoolArray
    num_tokens_N: IntArray | None = None

    def of(self, records: IntArray) -> Candidates:
        """Some of them."""
        tokens = self.num_tokens_N
        return Candidates(
            [self.uids[index] for index in records.tolist()],
            self.sources[records],
            self.is_text_only_N[records],
            self.must_keep_N[records],
            None if tokens is None else tokens[records],
        )


def list_budgets(selection: SelectionConfig) -> list[Budget]:
    """The budget, then the further ones, each once; 1.0 is everything, and 1 a record."""
    budgets = [selection.budget, *selection.budgets]
    return list({(type(budget), budget): budget for budget in budgets}.values())


def name_budget(budget: Budget) -> str:
    """As it is called in a file's name: a fraction has a point, a count none."""
    return f"{budget}"


def check_budgets(selection: SelectionConfig, candidates: Candidates) -> None:
    """Refuse what cannot be met, before anything is computed; tokens are counted later.

    Raises:
        ConfigError: a budget of a source that is not there.
        UserError: a budget that keeps none, more than there are, or less than has to be kept.
    """
    _check_sources(selection, candidates)
    if selection.budget_of == "tokens" and candidates.num_tokens_N is None:
        return
    for budget in list_budgets(selection):
        room = 0
        for records, amount, key in _parts(selection, candidates, budget):
            part = candidates.of(records)
            text_N, counting = part.is_text_only_N, _counting(selection, part, key)
            room += int(kept_beside(counting, text_N).sum())
            room += sum(of_part for _, of_part in find_rooms(amount, counting, text_N))
        require_some(room, budget, selection, candidates)


def require_some(
    num_kept: int, budget: Budget, selection: SelectionConfig, candidates: Candidates
) -> None:
    """Refuse a subset without a record.

    Raises:
        UserError: saying of how many records none is kept.
    """
    if num_kept:
        return
    texts = f"{int(candidates.is_text_only_N.sum()):,} of them text-only"
    raise UserError(
        f"selection: a budget of {budget} and selection.text_only={selection.text_only} keep none "
        f"of the {len(candidates.uids):,} records that can be used, {texts} (counted: "
        f"{UNITS[selection.budget_of]}); raise it, or look at selection.source_budgets, must_drop "
        "and data.policy"
    )


def cut_pool(
    selection: SelectionConfig, candidates: Candidates, scores_N: FloatArray, budget: Budget
) -> Cut:
    """The cut of one budget.

    Args:
        selection: how to cut, `keep` completed by the method.
        candidates: the records.
        scores_N: of each; NaN where one has none.
        budget: of those that `source_budgets` does not name.

    Raises:
        UserError: as `check_budgets`.
    """
    keep: Keep | None = selection.keep
    assert keep is not None  # the scorer has completed the config
    selected_N = np.zeros(len(scores_N), dtype=bool)
    rank_N = np.zeros(len(scores_N), dtype=np.int64)
    reasons: list[Reason] = ["below_cut"] * len(scores_N)
    for records, amount, key in _parts(selection, candidates, budget):
        part = candidates.of(records)
        cut = cut_subset(
            scores_N[records],
            uids=part.uids,
            is_text_only_N=part.is_text_only_N,
            budget=amount,
            keep=keep,
            groups_N=part.sources if selection.scope == "per_source" else None,
            counting=_counting(selection, part, key),
        )
        selected_N[records], rank_N[records] = cut.selected_N, cut.rank_N
        for index, reason in zip(records.tolist(), cut.reasons, strict=True):
            reasons[index] = reason
    return Cut(selected_N, rank_N, reasons)


def most_of_groups(
    selection: SelectionConfig, candidates: Candidates, sizes_G: IntArray
) -> IntArray | None:
    """The most that any of the cuts can take of each group; None: as the budget alone says.

    For methods that pick one by one. Where it is not known before the picks, as tokens are counted
    or the group is cut in parts, it is the group.
    """
    budgets, unit = list_budgets(selection), selection.budget_of
    if unit == "images" and not selection.source_budgets and len(budgets) == 1:
        return None
    in_parts = bool(selection.source_budgets) and selection.scope == "global"
    if unit == "tokens" or in_parts or candidates.is_text_only_N.all():
        return sizes_G
    group_N = np.zeros(len(candidates.uids), dtype=np.int64)
    if selection.scope == "per_source":
        known = np.unique(candidates.sources[~candidates.is_text_only_N])
        group_N = np.searchsorted(known, candidates.sources)  # a text-only record's is not read
    most_G = np.ones_like(sizes_G)
    for budget in budgets:
        for records, amount, key in _parts(selection, candidates, budget):
            part = candidates.of(records)
            own = group_N[records[~part.is_text_only_N]]
            if len(own):
                groups, sizes = np.unique(own, return_counts=True)
                most = _most_of_part(selection, part, sizes, amount, key)
                most_G[groups] = np.maximum(most_G[groups], most)
    return most_G


def most_of_all(selection: SelectionConfig, candidates: Candidates) -> int | None:
    """The most that any of the budgets takes of the records to be scored.

    None where only the cut will tell: tokens are counted, a source is cut by itself, or all records
    are text-only.
    """
    num_images = int((~candidates.is_text_only_N).sum())
    if selection.budget_of == "tokens" or selection.source_budgets or num_images == 0:
        return None
    size_G = np.array([num_images])
    return max(
        int(_most_of_part(selection, candidates, size_G, budget, "selection.budget")[0])
        for budget in list_budgets(selection)
    )


def _most_of_part(
    selection: SelectionConfig, part: Candidates, sizes_G: IntArray, amount: Budget, key: str
) -> IntArray:
    """The most that one budget takes of each group of those that share it."""
    text_N = part.is_text_only_N
    _, room = find_rooms(amount, _counting(selection, part, key), text_N)[0]
    if room == 0:
        return np.zeros_like(sizes_G)
    if selection.budget_of == "rows" and selection.text_only == "own_source" and text_N.any():
        return most_taken([*sizes_G.tolist(), int(text_N.sum())], room)[:-1]
    return most_taken(sizes_G, room)


def _counting(selection: SelectionConfig, part: Candidates, key: str) -> Counting:
    if selection.budget_of == "tokens" and part.num_tokens_N is None:
        raise UserError(
            "selection.budget_of=tokens: counting them takes the model's processor, which cannot "
            "be loaded (see above); count rows or images, or set model.path"
        )
    return Counting(
        selection.budget_of, selection.text_only, part.num_tokens_N, part.must_keep_N, key
    )


def _labels(selection: SelectionConfig, candidates: Candidates) -> NDArray[np.str_]:
    """The source that each record is cut with."""
    if selection.text_only != "own_source":
        return candidates.sources
    return np.where(candidates.is_text_only_N, TEXT_ONLY, candidates.sources)


def _parts(
    selection: SelectionConfig, candidates: Candidates, budget: Budget
) -> Iterator[tuple[IntArray, Budget, str]]:
    """The records that share a budget, it, and its key."""
    labels_N = _labels(selection, candidates)
    named = selection.source_budgets
    rest = np.flatnonzero(~np.isin(labels_N, list(named)))
    if len(rest) or not named:
        is_first = name_budget(budget) == name_budget(selection.budget)
        yield rest, budget, "selection.budget" if is_first else "selection.budgets"
    for source, amount in named.items():
        yield np.flatnonzero(labels_N == source), amount, f"selection.source_budgets.{source}"


def _check_sources(selection: SelectionConfig, candidates: Candidates) -> None:
    labels_N = _labels(selection, candidates)
    known = sorted(set(labels_N.tolist()))
    for name in selection.source_budgets:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known[:20])}"
            raise ConfigError(f"selection.source_budgets: no source `{name}` in the pool; {hint}")
        if selection.text_only == "keep" and candidates.is_text_only_N[labels_N == name].all():
            raise ConfigError(
                f"selection.source_budgets.{name}: its records are all text-only, which "
                f"selection.text_only=keep keeps; own_source cuts them, under the name {TEXT_ONLY}"
            )

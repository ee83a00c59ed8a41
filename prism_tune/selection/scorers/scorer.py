"""What a scorer is given, and what the stage knows of it.

Shape legend: M records to be scored (image records without the skipped ones), U feature rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config, Section, SelectionConfig
from prism_tune.data.records import Pool
from prism_tune.errors import ConfigError
from prism_tune.features.reduction import ReducedFeatures
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.row_pairs import RowPairs, pair_rows
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.rooms import num_kept
from prism_tune.selection.scorer_options import NoOptions, ScorerOptions, read_options
from prism_tune.selection.subset import Keep, most_taken
from prism_tune.selection.unranked import Unranked


@dataclass(frozen=True)
class ScoringContext:
    """The records to be scored, and what their scorer's evidence says of them.

    `groups_M` labels the records to be scored and cut together; None for `scope: global`.
    `row_M` is each record's row of `features_UD`; `measured` has numbers of each record by name,
    `more_rows` rows of other evidence, with each record's row, by the name of the source.
    `most_G` is the most that will be taken of each group, and `most` of all together; None: as
    `selection.budget` says.
    """

    config: Config
    pool: Pool
    records_M: NDArray[np.int64]
    groups_M: NDArray[Any] | None
    features_UD: RowBlocks | None = None
    row_M: NDArray[np.int64] | None = None
    measured: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    most_G: NDArray[np.int64] | None = None
    most: int | None = None
    more_rows: Mapping[str, tuple[RowBlocks, NDArray[np.int64]]] = field(default_factory=dict)

    @cached_property
    def uids(self) -> list[str]:
        """The uid of each record to be scored."""
        uids = self.pool.uids
        return [uids[i] for i in self.records_M.tolist()]

    @cached_property
    def sources_M(self) -> NDArray[np.str_]:
        """The source of each record to be scored, whatever the groups are."""
        sources = self.pool.sources
        return np.array([sources[i] for i in self.records_M.tolist()])

    def rows(self) -> tuple[RowBlocks, NDArray[np.int64]]:
        """The features of a method that reads some, and each record's row."""
        assert self.features_UD is not None
        assert self.row_M is not None
        return self.features_UD, self.row_M

    def paired_rows(self) -> tuple[RowBlocks, RowPairs]:
        """The features, and which records share a row and a group."""
        features_UD, row_M = self.rows()
        return features_UD, pair_rows(features_UD.shape[0], self.groups_M, row_M)

    def most_taken(self, sizes_G: NDArray[np.int64]) -> NDArray[np.int64]:
        """For methods that pick one by one: how many of each group can be taken at all."""
        if self.most_G is not None:
            return self.most_G
        return most_taken(sizes_G, num_kept(self.config.selection.budget, len(self.records_M)))

    def num_taken(self) -> int | None:
        """How many of all records the largest budget takes; None where only the cut will tell."""
        selection = self.config.selection
        if selection.budget_of == "tokens" or selection.source_budgets:
            return None
        return num_kept(selection.budget, len(self.records_M)) if self.most is None else self.most


@dataclass(frozen=True)
class ScoredRecords:
    """One float64 score per record to be scored, and what the manifest should say beside.

    `unranked` marks the records whose score says nothing (see `unranked.py`); those without a
    finite score, alone in their group, or in a group of equal scores are found without.
    """

    values_M: NDArray[np.float64]
    diagnostics: dict[str, Any]
    unranked: Unranked = field(default_factory=dict)


def code_sources(context: ScoringContext) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the sources of the records to be scored, and which one each is of."""
    names, codes_M = np.unique(context.sources_M, return_inverse=True)
    return names.tolist(), codes_M.astype(np.int64)


def mark_rows(reduced: ReducedFeatures, pairs: RowPairs) -> Unranked:
    """The records whose reduced feature is a row of zeros."""
    return {
        "feature_not_finite": pairs.spread(reduced.non_finite_P),
        "feature_like_all": pairs.spread(reduced.zero_P),
    }


@dataclass(frozen=True)
class Scorer:
    """A selection method.

    Attributes:
        score: the scores of the records, of which there is at least one.
        reads: the evidence that has to be there first, by the config.
        options: the class of its `selection.options`.
        keep: which scores the method itself keeps; `selection.keep` says otherwise.
        keeps_one_end: it picks records one by one, so that no other end has a meaning.
        adapt: the config with what the method needs of it.
        draws: its scores are chance alone, so that there is nothing to be ranked.
        ranks_text: it has a score for records without image (`selection.text_only: rank`); methods
            on features have one where these are features of one's own or of conversations.
        judges_rows: it scores rows that are not finite itself; of all others those are left out
            (`readable.py`).
        needs_number: its quotas have no meaning before it is known how many records are kept.
    """

    score: Callable[[ScoringContext], ScoredRecords]
    reads: Callable[[Config], tuple[EvidenceSource, ...]]
    options: type[Section] = NoOptions
    keep: Keep = "low"
    keeps_one_end: bool = False
    adapt: Callable[[Config], Config] = lambda config: config
    draws: bool = False
    ranks_text: bool = False
    judges_rows: bool = False
    needs_number: bool = False

    def complete(self, config: Config) -> Config:
        """The config with what it leaves to the method.

        Raises:
            ConfigError: an option or `selection.keep` that does not fit the method.
        """
        read_options(config, self.options)
        asked = config.selection.keep
        if self.keeps_one_end and asked not in (None, self.keep):
            raise ConfigError(
                f"selection.keep: {asked!r} has no meaning for {config.selection.scorer}, which "
                "picks records one by one; leave it out"
            )
        adapted = self.adapt(change_selection(config, keep=asked or self.keep))
        self._check_text(adapted.selection)
        if self.needs_number:
            _check_number(adapted.selection)
        return adapted

    def _check_text(self, selection: SelectionConfig) -> None:
        if selection.text_only != "rank":
            return
        if selection.budget_of == "images":
            raise ConfigError(
                "selection.text_only=rank: text-only records are cut with all others: the budget "
                "has to count rows or tokens (selection.budget_of)"
            )
        is_of_text = (
            selection.features in ("conversation", "text") or selection.features_file is not None
        )
        if not (self.ranks_text or (is_of_text and issubclass(self.options, ScorerOptions))):
            raise ConfigError(
                f"selection.text_only=rank: {selection.scorer} has no score for records without "
                "image; choose keep, own_source or drop"
            )


def _check_number(selection: SelectionConfig) -> None:
    """Inside a source that is cut by itself the number is known, over the pool it is not."""
    if selection.budget_of == "tokens":
        raise ConfigError(
            f"selection.budget_of=tokens: {selection.scorer} gives its clusters quotas of a number "
            "of records, which tokens do not say; count rows or images"
        )
    if selection.source_budgets and selection.scope == "global":
        raise ConfigError(
            f"selection.source_budgets: {selection.scorer} with selection.scope=global gives "
            "clusters of several sources one quota, of one budget; leave source_budgets out, or "
            "set selection.scope=per_source"
        )


def always(*sources: EvidenceSource) -> Callable[[Config], tuple[EvidenceSource, ...]]:
    """What a method reads, whatever its config."""
    return lambda config: sources


def change_selection(config: Config, **changes: Any) -> Config:
    """The config with other values in its selection section."""
    selection = config.selection.model_copy(update=changes)
    return config.model_copy(update={"selection": selection})

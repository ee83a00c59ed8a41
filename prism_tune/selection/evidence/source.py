"""What a method reads of the records before it scores them, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.selection.evidence.answer_losses import COLUMNS, AnswerLosses
from prism_tune.selection.evidence.features import (
    FeatureTable,
    extract_features,
    feature_inputs,
    feature_layers,
    feature_store,
    without_features,
)
from prism_tune.selection.evidence.measures import Measure, measure_records
from prism_tune.selection.evidence.request import Request
from prism_tune.selection.evidence.store import FeatureStore


@dataclass(frozen=True)
class Evidence:
    """One kind of it.

    `extract` computes what the run folder does not have; every launched process calls it.
    `inputs`: what the evidence depends on, so that the time of a rescoring adds up with that of
    the evidence it used; None where nothing is computed. `store`: where it is kept.
    """

    extract: Callable[[Request], FeatureTable]
    inputs: Callable[[Config], Any] | None = None
    store: Callable[[Config, RunDir], FeatureStore] | None = None

    def refuse_other(self, config: Config, run: RunDir) -> None:
        """Refuse a store of other settings before anything is computed or forgotten.

        Raises:
            UserError: naming what differs.
        """
        if self.store is not None:
            self.store(config, run).refuse_other()


def measured_evidence(measure: Measure) -> Evidence:
    """Of numbers that a whole model gives of every record."""
    return Evidence(partial(measure_records, measure), measure.inputs, measure.store)


ANSWER_LOSSES = Measure(
    "answer_losses",
    COLUMNS,
    lambda config, model, processor: AnswerLosses(
        model, processor, len(COLUMNS), config.selection.tokens_per_batch
    ),
)
"""Read by perplexity, el2n and d2: who has computed one has all."""

NOTHING = Evidence(without_features)
FEATURES = Evidence(
    extract_features,
    lambda config: [feature_inputs(config), list(feature_layers(config))],
    feature_store,
)
LOSSES = measured_evidence(ANSWER_LOSSES)

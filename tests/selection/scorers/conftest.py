"""Scoring contexts over made-up features: no model, no images, no files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from prism_tune.config.sections import Config
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.readable import score_readable
from prism_tune.selection.scorers.scorer import ScoringContext
from prism_tune.selection.subset import cut_subset


class Table:
    """Records with features: `score(...)` gives scores by uid, `select(...)` the kept uids.

    `texts_ND` is a row of each record's text, `gain_N` its visual gain, NaN where not measured.
    """

    def __init__(
        self,
        features_UD,
        row_N=None,
        uids=None,
        sources=None,
        images=None,
        texts_ND=None,
        gain_N=None,
    ):
        self.features_UD = np.asarray(features_UD)
        self.row_N = np.arange(len(self.features_UD)) if row_N is None else np.asarray(row_N)
        self.uids = uids or [f"uid-{n}" for n in range(len(self.row_N))]
        self.sources = sources
        self.images = self.row_N if images is None else images
        self.texts_ND, self.gain_N = texts_ND, gain_N

    def shuffled(self, seed):
        """The same records, in another order, over rows in another order."""
        rng = np.random.default_rng(seed)
        record_order = rng.permutation(len(self.row_N))
        row_order = rng.permutation(len(self.features_UD))
        return Table(
            self.features_UD[row_order],
            np.argsort(row_order)[self.row_N[record_order]],
            [self.uids[n] for n in record_order],
            self.sources and [self.sources[n] for n in record_order],
            np.asarray(self.images)[record_order],
            None if self.texts_ND is None else self.texts_ND[record_order],
            None if self.gain_N is None else self.gain_N[record_order],
        )

    def complete(self, scorer, *, seed=0, **selection):
        config = Config.model_validate(
            {
                "name": "run",
                "model": {"path": "none"},
                "data": {"records": "none.json"},
                "selection": {"scorer": scorer, **selection},
                "seed": seed,
            }
        )
        return SCORERS[scorer].complete(config)

    def run(self, scorer, *, seed=0, budget=0.3, keep=None, scope="per_source", **options):
        config = self.complete(
            scorer, seed=seed, budget=budget, keep=keep, scope=scope, options=options
        )
        context = ScoringContext(
            config=config,
            pool=SimpleNamespace(
                uids=self.uids,
                sources=self.sources or ["all"] * len(self.uids),
                images=lambda n: (f"{self.images[n]}.png",),
                is_text_only_N=np.zeros(len(self.uids), dtype=bool),
            ),
            records_M=np.arange(len(self.row_N)),
            groups_M=self._groups(config),
            features_UD=self.features_UD,
            row_M=self.row_N,
            more_rows=self._texts(),
            measured=self._losses(),
        )
        return score_readable(SCORERS[scorer], context)

    def _texts(self):
        if self.texts_ND is None:
            return {}
        return {"text_sif": (self.texts_ND, np.arange(len(self.row_N)))}

    def _losses(self):
        if self.gain_N is None:
            return {}
        return {"turn_nll": np.ones(len(self.row_N)), "blind_turn_nll": 1.0 + self.gain_N}

    def score(self, scorer, **settings):
        values = self.run(scorer, **settings).values_M
        return dict(zip(self.uids, values.tolist(), strict=True))

    def _groups(self, config):
        """What is scored and cut together."""
        is_global = self.sources is None or config.selection.scope == "global"
        return None if is_global else np.array(self.sources)

    def select(self, scorer, *, budget=0.3, **settings):
        options = {k: v for k, v in settings.items() if k not in ("seed", "keep")}
        cut = cut_subset(
            self.run(scorer, budget=budget, **settings).values_M,
            uids=self.uids,
            is_text_only_N=np.zeros(len(self.uids), dtype=bool),
            budget=budget,
            keep=SCORERS[scorer].keep,
            groups_N=self._groups(self.complete(scorer, options=options)),
        )
        return {self.uids[n] for n in np.flatnonzero(cut.selected_N)}


@pytest.fixture
def make_table():
    return Table


@pytest.fixture
def clustered():
    """120 records in 3 dense and unequal clusters and a thin halo, 2 sources, shared images."""
    rng = np.random.default_rng(7)
    centres = np.repeat(rng.normal(size=(3, 12)) * 3, (40, 20, 10), axis=0)
    rows = np.concatenate(
        [centres + 0.2 * rng.normal(size=centres.shape), rng.normal(size=(20, 12))]
    )
    row_N = np.concatenate([np.arange(90), rng.integers(0, 90, 30)])
    sources = ["a" if n % 3 else "b" for n in range(120)]
    return Table(rows.astype(np.float32), row_N, sources=sources)

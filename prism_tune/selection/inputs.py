"""What a selection runs with: its config, completed by the method, and everything it reads."""

from __future__ import annotations

from typing import Any

from prism_tune.config.depends import fields_of
from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import ConfigError
from prism_tune.run.fingerprints import fingerprint_model
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.scorer import Scorer

_VERSION = 1
"""Of the code that scores and cuts; another number makes all subsets anew."""


def find_scorer(name: str) -> Scorer:
    """The method called `name`.

    Raises:
        ConfigError: naming the known ones.
    """
    if name not in SCORERS:
        raise ConfigError(f"selection.scorer: unknown scorer {name!r}; known: {', '.join(SCORERS)}")
    return SCORERS[name]


def resolve_selection(config: Config) -> Config:
    """The config as the selection runs with it: what it leaves to the method is filled in.

    Raises:
        ConfigError: an unknown scorer, or options or `selection.keep` that do not fit it.
    """
    return find_scorer(config.selection.scorer).complete(config)


def stage_inputs(config: Config, pool: Pool) -> dict[str, Any]:
    """Everything the subset depends on, by the name shown when it changed.

    Args:
        config: as `resolve_selection` gives it.
        pool: the records.
    """
    return {
        **fields_of(config, "subset"),
        "pool": pool.fingerprint,
        "images": pool.image_index.fingerprint,
        "model": fingerprint_model(config.model.path, config.model.revision),
        "version": _VERSION,
    }

"""What a selection depends on: the inputs of the stage, and of its metered time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import ConfigError
from prism_tune.run.fingerprints import fingerprint, fingerprint_model
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.scorer import Scorer

_WITHOUT_EFFECT = {"tokens_per_batch"}


def find_scorer(name: str) -> Scorer:
    """The method called `name`.

    Raises:
        ConfigError: naming the known ones.
    """
    if name not in SCORERS:
        raise ConfigError(f"selection.scorer: unknown scorer {name!r}; known: {', '.join(SCORERS)}")
    return SCORERS[name]


def stage_inputs(config: Config, pool: Pool) -> dict[str, Any]:
    """Everything the subset depends on, by the name shown when it changed."""
    selection = config.selection.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return {
        "pool": pool.fingerprint,
        "images": pool.image_index.fingerprint,
        "model": fingerprint_model(config.model.path, config.model.revision),
        **{f"model.{key}": value for key, value in _reading_model(config).items()},
        "data.policy": config.data.policy,
        "data.max_length": config.data.max_length,
        **{f"selection.{key}": value for key, value in selection.items()},
        "seed": config.seed,
    }


def meter_fingerprint(config: Config, scorer: Scorer, inputs: Mapping[str, Any]) -> str:
    """What the metered time belongs to.

    Where a model computes evidence (features, losses) this is what the *evidence* depends on: a
    rescoring that uses it again adds its seconds to its time, instead of passing for a selection of
    a few seconds.
    """
    evidence_inputs = scorer.evidence.inputs
    return fingerprint(inputs if evidence_inputs is None else evidence_inputs(config))


def _reading_model(config: Config) -> dict[str, Any]:
    return config.model.model_dump(mode="json", exclude={"path", "revision"})

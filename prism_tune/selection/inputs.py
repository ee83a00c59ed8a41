"""What a selection runs with: its config, completed by the method, and everything it reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prism_tune.config.depends import fields_of
from prism_tune.config.plugins import describe_plugin, find_plugged, list_plugged
from prism_tune.config.references import reference_of
from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.data.screening import fingerprint_images
from prism_tune.errors import ConfigError, UserError
from prism_tune.run.fingerprints import fingerprint_large, fingerprint_model
from prism_tune.selection.evidence.embeddings.image_text import EncoderOptions
from prism_tune.selection.evidence.own import OWN_SCORES, FileOptions
from prism_tune.selection.reference.read import check_reference, fingerprint_read, read_config
from prism_tune.selection.reference.warmup import Warmup
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.scorer import Scorer, change_selection

logger = logging.getLogger(__name__)

_VERSION = 1
"""Of the code that scores and cuts; another number makes all subsets anew."""


def find_scorer(name: str) -> Scorer:
    """The method called `name`.

    Raises:
        ConfigError: naming the known ones.
    """
    plugged = find_plugged("SCORERS", name, Scorer, SCORERS)
    if plugged is not None:
        return plugged
    if name not in SCORERS:
        known = ", ".join([*SCORERS, *list_plugged("SCORERS")])
        raise ConfigError(
            f"selection.scorer: unknown scorer {name!r}; known: {known}; for one of your own name "
            "its file in `plugins`"
        )
    return SCORERS[name]


def resolve_selection(config: Config) -> Config:
    """The config as the selection runs with it: what it leaves to the method is filled in.

    Raises:
        ConfigError: an unknown scorer, or options, `selection.keep` or a matrix of one's own that
            do not fit it.
    """
    selection = config.selection
    if selection.features_file is not None and selection.features != "visual":
        raise ConfigError(
            f"selection.features={selection.features}: says what the model reads, and "
            "selection.features_file takes its place; leave one of them out"
        )
    scorer, reference = find_scorer(selection.scorer), reference_of(selection)
    if reference is not None:
        check_reference(reference)
    completed = scorer.complete(change_selection(config, reference=reference))
    if reference is None or needs_model(completed):
        return completed
    logger.info("selection.reference: %s reads no model; left out", selection.scorer)
    return change_selection(completed, reference=None)


def stage_inputs(config: Config, pool: Pool, warmup: Warmup | None = None) -> dict[str, Any]:
    """Everything the subset depends on, by the name shown when it changed.

    Args:
        config: as `resolve_selection` gives it.
        pool: the records.
        warmup: what the evidence's model is, where one is trained first.

    Raises:
        UserError: a file of one's own is not there.
    """
    return {
        **fields_of(config, "subset"),
        "pool": pool.fingerprint,
        "format": pool.format,  # of the subset too
        "images": fingerprint_images(pool),
        "model": fingerprint_model(config.model.path, config.model.revision),
        "version": _VERSION,
        **describe_plugin("SCORERS", config.selection.scorer),
        **_fingerprint_reference(config, warmup),
        **_fingerprint_encoder(config),
        **{
            f"content of {name}": _fingerprint_own(name, path)
            for name, path in own_files(config).items()
        },
    }


def _fingerprint_reference(config: Config, warmup: Warmup | None) -> dict[str, Any]:
    """What evidence is read from, where that is not the target."""
    if config.selection.reference is None:
        return {}
    return {"reference": warmup.key if warmup else fingerprint_read(read_config(config))}


def _fingerprint_encoder(config: Config) -> dict[str, str]:
    """What embeds images and texts, where a method names such a model in its options."""
    schema = find_scorer(config.selection.scorer).options
    if not issubclass(schema, EncoderOptions):
        return {}
    options = read_options(config, schema)
    return {
        "content of selection.options.model": fingerprint_model(options.model, options.revision)
    }


def _fingerprint_own(name: str, path: Path) -> str:
    if not path.is_file():  # before anything is written
        raise UserError(f"{name}: {path}: no such file")
    return fingerprint_large(path)


def own_files(config: Config) -> dict[str, Path]:
    """Files of one's own that the selection reads, by the key that names them."""
    selection = config.selection
    named = {
        "selection.must_keep": selection.must_keep,
        "selection.must_drop": selection.must_drop,
        "selection.features_file": selection.features_file,
    }
    if OWN_SCORES in find_scorer(selection.scorer).reads(config):
        named["selection.options.path"] = read_options(config, FileOptions).path
    return {name: Path(path) for name, path in named.items() if path is not None}


def needs_model(config: Config) -> bool:
    """Whether the method runs the target model."""
    return any(s.needs_model(config) for s in find_scorer(config.selection.scorer).reads(config))

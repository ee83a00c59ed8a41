"""`selection.options`: a scorer's own settings, checked before anything is computed."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from prism_tune.config.errors import describe_errors
from prism_tune.config.sections import Config, Section
from prism_tune.errors import ConfigError


class NoOptions(Section):
    """`selection.options` of methods that have no settings."""


class ScorerOptions(Section):
    """What every scorer on features takes; a scorer's options are a subclass.

    `layers`: more layers to store in the same pass (checked in `features.py`).
    """

    layers: Any = None


Options = TypeVar("Options", bound=Section)


def read_options(config: Config, schema: type[Options]) -> Options:
    """The options of the config, as the scorer's own class.

    Raises:
        ConfigError: an unknown option, or a value that does not fit; names the option.
    """
    try:
        return schema.model_validate(config.selection.options)
    except ValidationError as error:
        where = f"selection.options of {config.selection.scorer}"
        raise ConfigError(describe_errors(error, where, schema)) from error

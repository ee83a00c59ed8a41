"""How often tuning goes over its records: for training, and for who reckons with it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prism_tune.errors import ConfigError

NUM_EPOCHS = 1
"""Where `training.hf` names no number."""


def read_number(hf: Mapping[str, Any], key: str, default: float) -> float:
    """A number of `training.hf`, for what reckons with it before transformers reads it.

    Raises:
        ConfigError: it is none.
    """
    value = hf.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"training.hf.{key} = {value!r}: expected a number")
    return value


def num_epochs(hf: Mapping[str, Any]) -> float | None:
    """What `training.hf` asks for; None where it counts steps (`max_steps`) in their place."""
    if read_number(hf, "max_steps", -1) > 0:
        return None
    return float(read_number(hf, "num_train_epochs", NUM_EPOCHS) or NUM_EPOCHS)

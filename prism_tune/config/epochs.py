"""How often tuning goes over its records: for training, and for who reckons with it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUM_EPOCHS = 1
"""Where `training.hf` names no number."""


def num_epochs(hf: Mapping[str, Any]) -> float | None:
    """What `training.hf` asks for; None where it counts steps (`max_steps`) in their place."""
    if int(hf.get("max_steps") or -1) > 0:
        return None
    return float(hf.get("num_train_epochs") or NUM_EPOCHS)

"""Reading the states of optimiser, schedule and random numbers without running what is in them.

A checkpoint may be somebody else's (a shared run folder), and torch keeps states as pickles, which
can hold any code. While a training goes on from one, torch reads tensors, plain values and the
named classes below, whoever calls it: DeepSpeed asks for everything (`weights_only=False` in
deepspeed/runtime/checkpoint_engine/torch_checkpoint_engine.py), and is not given it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from prism_tune.errors import UserError, first_line

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""A user may have set it for another program; beside the first torch reads nothing."""
_DEEPSPEED = {
    "deepspeed.runtime.fp16.loss_scaler": ("LossScaler", "DynamicLossScaler"),
    "deepspeed.runtime.zero.config": ("ZeroStageEnum",),
    "deepspeed.utils.tensor_fragment": ("fragment_address",),
}
"""What ZeRO 1 to 3 keep beside tensors: found with `get_unsafe_globals_in_checkpoint`."""


@contextmanager
def read_safely(checkpoint: Path | None, *, deepspeed: bool) -> Iterator[None]:
    """Nothing that torch reads within it can run code.

    Args:
        checkpoint: that a training goes on from; None where it begins anew.
        deepspeed: whether its classes are allowed.

    Raises:
        UserError: a state holds other objects, or is damaged.
    """
    if checkpoint is None:
        yield
        return
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_allowed(deepspeed)):
            yield
    except UnpicklingError as error:
        raise UserError(
            f"{checkpoint}: the state of its optimiser, schedule or random numbers holds more "
            f"than tensors and plain values, or is damaged ({first_line(error)}); it was not "
            "written by a training of this version: --force trains anew"
        ) from error
    finally:
        os.environ.pop(_FORCE)
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _allowed(deepspeed: bool) -> list[Any]:
    """The classes; numpy's, of its own random state, are allowed by transformers."""
    allowed: list[Any] = []
    if deepspeed:
        for module, names in _DEEPSPEED.items():
            allowed += (getattr(import_module(module), name) for name in names)
    return allowed

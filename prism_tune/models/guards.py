"""What is measured of a model when it is first used: a wrong row of `families.py` is silent.

One encoded record goes in, and a way to run the model on it. An error comes out where images have
no tokens, where the model does not see them, or where an answer's later tokens reach what predicts
its earlier ones. It takes three forward passes.

Shape legend: B records, L tokens, K chosen positions, D width or vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from prism_tune.errors import UserError, first_line
from prism_tune.models.families import Parts

Inputs = Mapping[str, Any]
Forward = Callable[[Inputs, torch.Tensor], torch.Tensor]
"""The model's output (K, D) at the marked positions (boolean, B x L) of a batch."""

_IGNORED_LABEL = -100
_FAILURES = (IndexError, KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError)
"""What modules raise of a config that does not fit them."""

_TOLERANCE = 1e-5
"""Of a difference, in standard deviations of the output: equal shapes run equal kernels."""

_EXPERT_TOLERANCE = 3e-2
"""Another token goes to other experts, which then compute in other shapes; for bfloat16."""


@torch.no_grad()
def check_use(forward: Forward, inputs: Inputs, found: Parts) -> None:
    """Check a model on a batch with a real image; every process has to call it on the same.

    Without `labels` only the image is checked. Random numbers are as before, and dropout falls
    alike in all passes.

    Args:
        forward: runs the model.
        inputs: `input_ids`, `pixel_values`, and `attention_mask`, `labels` and what else it takes;
            `forward` is not given the labels.
        found: the model's parts.

    Raises:
        UserError: what is wrong, and that the family's row or processor has to be mended.
    """
    name = found.base.config.model_type
    labels_BL = inputs.get("labels")
    inputs = {key: value for key, value in inputs.items() if key != "labels"}
    is_image_BL = inputs["input_ids"] == found.image_token_id
    if "attention_mask" in inputs:
        is_image_BL &= inputs["attention_mask"].bool()
    if not is_image_BL.any():
        raise UserError(
            f"model.path: the processor writes no image token for an image: the config of this "
            f"{name!r} calls {found.image_token_id} by that name; the processor is another model's"
        )
    predicts_BL = torch.zeros_like(is_image_BL)
    if labels_BL is not None:
        predicts_BL[:, :-1] = labels_BL[:, 1:] != _IGNORED_LABEL
    last_image_BL = _last_marked(is_image_BL)
    keep_BL = last_image_BL | predicts_BL
    at_image_K, at_label_K = last_image_BL[keep_BL], predicts_BL[keep_BL]

    def run(given: Inputs) -> torch.Tensor:
        devices = [is_image_BL.device] if is_image_BL.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            with _failures_explained(name):
                return forward(given, keep_BL).float()

    first_KD = run(inputs)
    if _difference(first_KD[at_image_K], run(_change_images(inputs))[at_image_K]) == 0:
        raise UserError(
            f"model.path: this {name!r} gives two different images the same features: its image "
            "tokens are not where the model puts what it sees, or it does not see"
        )
    if labels_BL is None:
        return
    changed = _change_last_label(inputs, labels_BL)
    allowed = _TOLERANCE if found.active_share == 1.0 else _EXPERT_TOLERANCE
    moved = _difference(first_KD[at_label_K], run(changed)[at_label_K])
    if moved > allowed:
        raise UserError(
            f"model.path: in this {name!r} the last token of an answer moves what predicts its "
            f"earlier ones (by {moved:.1e} of a standard deviation): its attention looks ahead, so "
            "that the labels leak; it cannot be tuned on, nor measured by, its answers"
        )


@contextmanager
def _failures_explained(name: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise UserError(
            f"model.path: this {name!r} cannot be run: {type(error).__name__}: "
            f"{first_line(error)}; a value of its config.json is none that it takes: get the "
            "model's files again"
        ) from error


def _last_marked(marked_BL: torch.Tensor) -> torch.Tensor:
    """The last marked position of each row alone: it has seen all before it."""
    after_BL = marked_BL.flip(1).cumsum(1).flip(1)
    return marked_BL & (after_BL == 1)


def _change_images(inputs: Inputs) -> dict[str, Any]:
    return {k: 1 - v if k.startswith("pixel_values") else v for k, v in inputs.items()}


def _change_last_label(inputs: Inputs, labels_BL: torch.Tensor) -> dict[str, Any]:
    """With another token of its answers in the place of each row's last; as it is where none is."""
    ids_BL = inputs["input_ids"].clone()
    for row, labels_L in enumerate(labels_BL):
        places = (labels_L != _IGNORED_LABEL).nonzero()[:, 0].tolist()
        others = [int(labels_L[p]) for p in places if labels_L[p] != labels_L[places[-1]]]
        if others:
            ids_BL[row, places[-1]] = others[0]
    return {**inputs, "input_ids": ids_BL}


def _difference(first_KD: torch.Tensor, second_KD: torch.Tensor) -> float:
    if not len(first_KD):
        return 0.0
    return float((first_KD - second_KD).abs().max() / first_KD.std().clamp_min(1e-30))

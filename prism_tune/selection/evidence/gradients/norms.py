"""The norm of the gradient of each record's own loss, for a chosen set of parameters; exact.

From what one backward pass brings to every module (`backward.py`) the gradients of the module's
parameters are taken record by record.

Shape legend: B records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from prism_tune.config.sections import Config, Section
from prism_tune.errors import UserError
from prism_tune.models.flops import count_parameters, estimate_flops
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.gradients.backward import (
    BackwardPass,
    Calls,
    Watched,
    layers_from_first,
)
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import WholeModel, whole_model_source
from prism_tune.selection.scorer_options import read_options

_LAST_LAYERS = 2


class GrandOptions(Section):
    """`selection.options` of grand; null: every parameter of the last two decoder layers."""

    parameters: tuple[str, ...] | None = Field(
        default=None, description="a list of parameter names, in which * stands for anything"
    )


class GradientNorms:
    """Gives the gradient norm of every record (a `Runner`): forward, and at the top backward.

    Args:
        model: as `load_model` gives it; afterwards only the chosen parameters require gradients.
        processor: the model's.
        patterns: names of the decoder's parameters, `*` standing for anything; None: every
            parameter of its last two layers.

    Raises:
        UserError: a pattern that fits none, or a parameter that several modules share.
    """

    width = 1

    def __init__(
        self, model: PreTrainedModel, processor: Any, patterns: Sequence[str] | None
    ) -> None:
        self._whole = WholeModel(model, processor)
        self.dtype = model.dtype
        decoder = self._whole.language_model
        chosen = choose_parameters(decoder, patterns)
        self._pass = BackwardPass(self._whole, _watch(decoder, chosen, self._whole.head))
        self._chosen_size = sum(parameter.numel() for parameter in chosen.values())
        self._top_size = count_parameters(*layers_from_first(decoder, list(chosen)))

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """The forward pass; through the layers at the top back; the chosen ones once more."""
        num_tokens = sum(len(unit.pooled_L) for unit in batch)
        back = estimate_flops((self._top_size, num_tokens), (2 * self._chosen_size, num_tokens))
        return self._whole.estimate_flops(batch) + back

    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The gradient norm of each record, (B, 1)."""
        return [torch.cat([self._norms(piece) for piece in self._pass.pieces(batch)])[:, None]]

    @torch.enable_grad()
    def _norms(self, piece: Sequence[Encoded]) -> torch.Tensor:
        reached = self._pass.run(piece)
        squares_B = torch.zeros(len(piece), device=self._whole.head.weight.device)
        for watched, calls in reached:
            for number in range(len(piece)):
                squares_B[number] += _squared_norm(watched, calls, number)
        return squares_B.sqrt()


def choose_parameters(
    decoder: nn.Module, patterns: Sequence[str] | None
) -> dict[str, nn.Parameter]:
    """The decoder's parameters whose names fit one of the patterns, by name.

    Raises:
        UserError: a pattern that fits none.
    """
    if patterns is None:
        depth = len(decoder.get_submodule("layers"))  # type: ignore[arg-type]
        patterns = [f"layers.{n}.*" for n in range(max(0, depth - _LAST_LAYERS), depth)]
    named = dict(decoder.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            last = list(named)[-3:]
            raise UserError(
                f"selection.options.parameters: {pattern!r} fits no parameter of the decoder; "
                f"names are like {', '.join(last)}"
            )
    return {
        name: parameter
        for name, parameter in named.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _watch(
    decoder: nn.Module, chosen: Mapping[str, nn.Parameter], head: nn.Linear
) -> list[Watched]:
    """The modules that hold the chosen parameters."""
    found: dict[str, Watched] = {}
    for name, parameter in chosen.items():
        path = name.rpartition(".")[0]
        module = decoder.get_submodule(path)
        if parameter is head.weight or next(module.children(), None) is not None:
            raise UserError(
                f"selection.options.parameters: the gradient of {name!r} cannot be taken record by "
                "record, because the output layer shares it or its module has modules inside; "
                "choose parameters of linear layers and norms"
            )
        found.setdefault(path, Watched(path, module)).parameters.append(parameter)
    return list(found.values())


def _squared_norm(watched: Watched, calls: Calls, number: int) -> torch.Tensor:
    """Of one record's gradient with respect to one module's chosen parameters, float32."""
    totals: list[torch.Tensor] | None = None
    for inputs, gradient in calls:
        row = slice(number, number + 1)
        own = torch.autograd.grad(watched.module(inputs[row]), watched.parameters, gradient[row])
        totals = list(own) if totals is None else [a + b for a, b in zip(totals, own, strict=True)]
    squares = [part.float().square().sum() for part in totals or ()]
    return sum(squares, torch.zeros((), device=watched.parameters[0].device))


def _build_runner(config: Config, model: PreTrainedModel, processor: Any) -> GradientNorms:
    return GradientNorms(model, processor, read_options(config, GrandOptions).parameters)


GRADIENT_NORMS: EvidenceSource = whole_model_source("gradient_norms", ("norm",), _build_runner)

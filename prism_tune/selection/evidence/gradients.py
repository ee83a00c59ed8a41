"""The norm of the gradient of each record's own loss, for a chosen set of parameters; exact.

The loss is that of training, the mean over the record's answer tokens. Records of a batch do not
see each other, so one backward pass of the summed losses gives, at the output of every module, each
record's own gradient; from it and the module's input the gradients of the module's parameters are
taken record by record. Modules below the first chosen one build no graph.

Shape legend: B records, P predicted answer tokens of a batch, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import (
    Predictions,
    WholeModel,
    whole_model_source,
)
from prism_tune.selection.options import read_options

_LAST_LAYERS = 2


class GrandOptions(Section):
    """`selection.options` of grand; null: every parameter of the last two decoder layers."""

    parameters: tuple[str, ...] | None = Field(
        default=None, description="a list of parameter names, in which * stands for anything"
    )


@dataclass
class _Watched:
    """A module with chosen parameters, and its inputs and outputs in the batch at hand."""

    name: str
    module: nn.Module
    parameters: list[nn.Parameter] = field(default_factory=list)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


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
        decoder = self._whole.language_model
        chosen = choose_parameters(decoder, patterns)
        self._watched = _watch(decoder, chosen, self._whole.head)
        model.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        self._chosen_size = sum(parameter.numel() for parameter in chosen.values())
        self._top_size = _size_from_first(decoder, chosen)

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """The forward pass; through the layers at the top back; the chosen ones once more."""
        num_tokens = sum(len(unit.pooled_L) for unit in batch)
        back = estimate_flops((self._top_size, num_tokens), (2 * self._chosen_size, num_tokens))
        return self._whole.estimate_flops(batch) + back

    @torch.enable_grad()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The gradient norm of each record, (B, 1)."""
        for watched in self._watched:
            watched.calls.clear()
        with self._capture():
            found = self._whole.predict(batch)
        outputs = [output for watched in self._watched for _, output in watched.calls]
        gradients = iter(
            torch.autograd.grad(
                found.hidden_PD, outputs, self._hidden_gradient(found), allow_unused=True
            )
        )
        squares_B = torch.zeros(len(batch), device=found.hidden_PD.device)
        for watched in self._watched:
            calls = [(inputs, next(gradients)) for inputs, _ in watched.calls]
            for number in range(len(batch)):
                squares_B[number] += _squared_norm(watched, calls, number)
        return [squares_B.sqrt()[:, None]]

    @torch.no_grad()
    def _hidden_gradient(self, found: Predictions) -> torch.Tensor:
        """Of the summed losses with respect to the last hidden states, (P, D)."""
        head = self._whole.head.weight
        gradient_PD = torch.empty_like(found.hidden_PD)
        counts = torch.tensor(found.counts_B, device=gradient_PD.device)
        weights_P = (1.0 / counts).repeat_interleave(counts)
        for rows, logits in self._whole.logits(found):
            errors = torch.softmax(logits, dim=-1)
            targets = found.targets_P[rows, None]
            errors.scatter_add_(1, targets, -torch.ones_like(errors[:, :1]))
            errors *= weights_P[rows, None]
            gradient_PD[rows] = errors.to(head.dtype) @ head
        return gradient_PD

    def _capture(self) -> ExitStack:
        """Hooks that keep the inputs and outputs of the watched modules."""
        hooks = ExitStack()
        for watched in self._watched:

            def keep(
                module: nn.Module, inputs: tuple[Any, ...], output: Any, of: _Watched = watched
            ) -> None:
                _check_call(of, inputs, output)
                of.calls.append((inputs[0].detach(), output))

            hooks.callback(watched.module.register_forward_hook(keep).remove)
        return hooks


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
) -> list[_Watched]:
    """The modules that hold the chosen parameters."""
    found: dict[str, _Watched] = {}
    for name, parameter in chosen.items():
        path = name.rpartition(".")[0]
        module = decoder.get_submodule(path)
        if parameter is head.weight or next(module.children(), None) is not None:
            raise UserError(
                f"selection.options.parameters: the gradient of {name!r} cannot be taken record by "
                "record, because the output layer shares it or its module has modules inside; "
                "choose parameters of linear layers and norms"
            )
        found.setdefault(path, _Watched(path, module)).parameters.append(parameter)
    return list(found.values())


def _check_call(watched: _Watched, inputs: tuple[Any, ...], output: Any) -> None:
    whole = len(inputs) == 1 and isinstance(inputs[0], torch.Tensor)
    if not whole or not isinstance(output, torch.Tensor) or output.dim() < 3:
        raise UserError(
            f"selection.options.parameters: {watched.name!r} does not get a batch of records, as a "
            "linear layer or a norm does; choose others"
        )


def _squared_norm(
    watched: _Watched, calls: Sequence[tuple[torch.Tensor, torch.Tensor | None]], number: int
) -> torch.Tensor:
    """Of one record's gradient with respect to one module's chosen parameters, float32."""
    totals: list[torch.Tensor] | None = None
    for inputs, gradient in calls:
        if gradient is None:
            continue
        row = slice(number, number + 1)
        own = torch.autograd.grad(watched.module(inputs[row]), watched.parameters, gradient[row])
        totals = list(own) if totals is None else [a + b for a, b in zip(totals, own, strict=True)]
    squares = [part.float().square().sum() for part in totals or ()]
    return sum(squares, torch.zeros((), device=watched.parameters[0].device))


def _size_from_first(decoder: nn.Module, chosen: Mapping[str, nn.Parameter]) -> int:
    """Parameters of the layers that the backward pass goes through."""
    blocks: Any = decoder.get_submodule("layers")
    numbers = [int(name.split(".")[1]) for name in chosen if name.startswith("layers.")]
    return count_parameters(*blocks[min(numbers, default=len(blocks)) :])


def _build_runner(config: Config, model: PreTrainedModel, processor: Any) -> GradientNorms:
    return GradientNorms(model, processor, read_options(config, GrandOptions).parameters)


GRADIENT_NORMS: EvidenceSource = whole_model_source("gradient_norms", ("norm",), _build_runner)

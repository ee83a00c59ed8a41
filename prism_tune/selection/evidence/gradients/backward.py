"""One backward pass for the gradients of many records: what reaches each of some modules.

The loss is that of training, the mean over the record's answer tokens. Records of a batch do not
see each other, so one backward pass of the summed losses gives, at the output of every module, each
record's own gradient; from it and the module's input follow the gradients of its parameters.
Modules below the first watched one build no graph. Every layer above keeps its activations until
the pass goes back, so the deeper the graph, the fewer records go through it at a time (`pieces`).

Shape legend: B records, P predicted answer tokens of a batch, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prism_tune.errors import UserError
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import Batches, group
from prism_tune.selection.evidence.whole_model import Predictions, WholeModel

GRAPH_TOKENS = 32_768
"""Padded tokens of a piece times the layers they are kept in: of the last two, 16,384 tokens."""

Calls = list[tuple[torch.Tensor, torch.Tensor]]
"""Of a module in a batch: what each call got, and the gradient at its output, (B, ..., width)."""


@dataclass
class Watched:
    """A module with chosen parameters, and its inputs and outputs in the batch at hand."""

    name: str
    module: nn.Module
    parameters: list[nn.Parameter] = field(default_factory=list)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


class BackwardPass:
    """Runs batches forward, and back as far as the watched modules.

    Args:
        whole: the model; afterwards only the watched parameters require gradients.
        watched: of its decoder, with the parameters that count.
    """

    def __init__(self, whole: WholeModel, watched: Sequence[Watched]) -> None:
        self._whole = whole
        self._watched = watched
        depth = len(layers_from_first(whole.language_model, [one.name for one in watched]))
        self._tokens_per_piece = GRAPH_TOKENS // max(depth, 1)
        whole.model.requires_grad_(False)
        for one in watched:
            for parameter in one.parameters:
                parameter.requires_grad_(True)

    def pieces(self, batch: Sequence[Encoded]) -> list[list[Encoded]]:
        """What of a batch goes through at a time, in its order; one record always does."""
        return list(group(iter(batch), Batches(self._tokens_per_piece)))

    @torch.enable_grad()
    def run(self, batch: Sequence[Encoded]) -> list[tuple[Watched, Calls]]:
        """What reaches each watched module; calls without influence on a loss are left out."""
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
        reached = []
        for watched in self._watched:
            calls = [(inputs, next(gradients)) for inputs, _ in watched.calls]
            watched.calls.clear()
            reached.append((watched, [(x, g) for x, g in calls if g is not None]))
        return reached

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
                module: nn.Module, inputs: tuple[Any, ...], output: Any, of: Watched = watched
            ) -> None:
                _check_call(of, inputs, output)
                of.calls.append((inputs[0].detach(), output))

            hooks.callback(watched.module.register_forward_hook(keep).remove)
        return hooks


def layers_from_first(decoder: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The layers that the backward pass goes through, to modules or parameters of some names."""
    blocks: Any = decoder.get_submodule("layers")
    numbers = [int(name.split(".")[1]) for name in names if name.startswith("layers.")]
    first = 0 if any(name.startswith("embed") for name in names) else len(blocks)
    return list(blocks[min([first, *numbers]) :])


def _check_call(watched: Watched, inputs: tuple[Any, ...], output: Any) -> None:
    whole = len(inputs) == 1 and isinstance(inputs[0], torch.Tensor)
    if not whole or not isinstance(output, torch.Tensor) or output.dim() < 3:
        raise UserError(
            f"selection.options.parameters: {watched.name!r} does not get a batch of records, as a "
            "linear layer or a norm does; choose others"
        )

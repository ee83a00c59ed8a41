"""The gradient of each record's own loss as a short row: inner products stay, in expectation.

A linear module with inputs X (L, I) and gradients Z (L, O) at its outputs has the gradient
G = X^T Z (I, O). Its sketch is S = P G Q^T / sqrt(p q) = (X P^T)^T (Z Q^T) / sqrt(p q), with random
signs P (p, I) and Q (q, O) that the module's name draws: G itself, for all modules of a 7B's LoRA
some 320M numbers, is never made. The sketches of all modules are added up: their signs are
independent, so E<S, S'> is the sum of the modules' <G, G'>, the inner product of the whole
gradients, and a row has p q numbers whatever the model. Of one module the error of <S, S'> is about
|G||G'| sqrt(2/p + 2/q); over M modules of like size 1/sqrt(M) of that, and 1/sqrt(p q) beside.

Read with an adapter (`selection.reference`), the modules are the matrices A and B of its LoRA,
which stay unmerged; without, the decoder's linear layers. A row is the exact norm of the gradient
and then the sketch. Of experts, shared ones too, nothing is read: they see tokens, not records.

Shape legend: B records, L tokens, I inputs and O outputs of a module, S numbers of a sketch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Literal

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
from prism_tune.selection.reference.read import load_adapted

logger = logging.getLogger(__name__)

NAME: Literal["gradient_sketches"] = "gradient_sketches"

Modules = Literal["attention", "all"]

_ADAPTERS = ("lora_A", "lora_B")
_ATTENTION = ("attn", "attention")
_EXPERT = "expert"
_MOST_PRODUCTS = 1 << 25
"""Numbers of the gradients that are made at a time, where norms are taken from them: 128 MiB."""


class SketchOptions(Section):
    """`selection.options` of methods on gradients: of which modules, and how many numbers."""

    modules: Modules = "all"
    dimension: int = Field(
        default=4096, ge=64, le=65_536, multiple_of=64, description="a multiple of 64, to 65536"
    )


class GradientSketches:
    """Gives the gradient norm and the sketch of every record (a `Runner`).

    Args:
        model: as `load_adapted` gives it; afterwards only the modules' weights require gradients.
        processor: the model's.
        modules: those of self-attention alone, or all.
        dimension: numbers of a sketch.
        seed: of the random signs, beside each module's name.

    Raises:
        UserError: the decoder has no such module.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        modules: Modules,
        dimension: int,
        seed: int = 0,
    ) -> None:
        self.width = 1 + dimension
        self._whole = WholeModel(model, processor)
        self.dtype = model.dtype
        decoder = self._whole.language_model
        watched = choose_modules(decoder, modules)
        self._pass = BackwardPass(self._whole, watched)
        self._size = sum(one.parameters[0].numel() for one in watched)
        self._top_size = count_parameters(
            *layers_from_first(decoder, [one.name for one in watched])
        )
        self._draw = cache(partial(draw_signs, factors=split_dimension(dimension), seed=seed))

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """The forward pass; through the decoder back; the modules once more for the norms."""
        num_tokens = sum(len(unit.pooled_L) for unit in batch)
        back = estimate_flops((self._top_size, num_tokens), (self._size, num_tokens))
        return self._whole.estimate_flops(batch) + back

    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """Norm and sketch of each record, (B, 1 + S)."""
        return [torch.cat([self._rows(piece) for piece in self._pass.pieces(batch)])]

    def _rows(self, piece: Sequence[Encoded]) -> torch.Tensor:
        with torch.enable_grad():
            reached = self._pass.run(piece)
        return self._sum_up(reached, len(piece))

    @torch.no_grad()
    def _sum_up(self, reached: list[tuple[Watched, Calls]], num_records: int) -> torch.Tensor:
        device = self._whole.head.weight.device
        rows_BS = torch.zeros(num_records, self.width, device=device)
        for watched, calls in reached:
            if not calls:
                continue
            inputs_BLI = torch.cat([inputs for inputs, _ in calls], dim=1).float()
            gradients_BLO = torch.cat([gradient for _, gradient in calls], dim=1).float()
            sizes = (inputs_BLI.shape[-1], gradients_BLO.shape[-1])
            signs = self._draw(watched.name, sizes, device)
            rows_BS[:, 0] += squared_norms(inputs_BLI, gradients_BLO)
            rows_BS[:, 1:] += sketch(inputs_BLI, gradients_BLO, *signs)
        rows_BS[:, 0] = rows_BS[:, 0].sqrt()
        return rows_BS


def choose_modules(decoder: nn.Module, modules: Modules) -> list[Watched]:
    """The linear modules whose gradients are read: of a LoRA where there is one.

    Raises:
        UserError: there is none.
    """
    linear = {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("layers.")
    }
    experts = [name for name in linear if _EXPERT in name]
    if experts:
        logger.info("gradients: %d linear layers of experts are left out", len(experts))
    linear = {name: module for name, module in linear.items() if _EXPERT not in name}
    adapted = {name: one for name, one in linear.items() if set(_ADAPTERS) & set(name.split("."))}
    chosen = {
        name: module
        for name, module in (adapted or linear).items()
        if modules == "all" or any(part in name for part in _ATTENTION)
    }
    if not chosen:
        raise UserError(
            f"selection.options.modules: {modules}: this {type(decoder).__name__} has no such "
            "linear layers (or its adapter is not on them); choose `all`"
        )
    return [Watched(name, one, list(one.parameters())[:1]) for name, one in chosen.items()]


def sketch(
    inputs_BLI: torch.Tensor,
    gradients_BLO: torch.Tensor,
    left_PI: torch.Tensor,
    right_QO: torch.Tensor,
) -> torch.Tensor:
    """vec(P X^T Z Q^T) of each record, (B, P Q)."""
    left_BLP, right_BLQ = inputs_BLI @ left_PI.T, gradients_BLO @ right_QO.T
    return (left_BLP.transpose(1, 2) @ right_BLQ).flatten(1)


def squared_norms(inputs_BLI: torch.Tensor, gradients_BLO: torch.Tensor) -> torch.Tensor:
    """|X^T Z|^2 of each record, (B,): of the product, or of both Gram matrices, as is less work."""
    _, length, num_inputs = inputs_BLI.shape
    num_outputs = gradients_BLO.shape[-1]
    if length * (num_inputs + num_outputs) < num_inputs * num_outputs:
        grams = (rows @ rows.transpose(1, 2) for rows in (inputs_BLI, gradients_BLO))
        first_BLL, second_BLL = grams
        return (first_BLL * second_BLL).sum(dim=(1, 2)).clamp_min(0.0)
    num_records = max(1, _MOST_PRODUCTS // (num_inputs * num_outputs))
    squares = [
        (inputs.transpose(1, 2) @ gradients).square().sum(dim=(1, 2))
        for inputs, gradients in zip(
            inputs_BLI.split(num_records), gradients_BLO.split(num_records), strict=True
        )
    ]
    return torch.cat(squares)


def split_dimension(dimension: int) -> tuple[int, int]:
    """Two factors, as near to each other as can be: 4096 is 64 x 64, 8192 64 x 128."""
    small = next(n for n in range(int(dimension**0.5), 0, -1) if dimension % n == 0)
    return small, dimension // small


def draw_signs(
    name: str, sizes: tuple[int, int], device: torch.device, *, factors: tuple[int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """P and Q of a module, each divided by the root of its rows; the same on every machine."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
    left, right = (
        torch.randint(0, 2, (rows, size), generator=generator).mul(2).sub(1).float() / rows**0.5
        for rows, size in zip(factors, sizes, strict=True)
    )
    return left.to(device), right.to(device)


def gradient_sketches(options: SketchOptions) -> EvidenceSource:
    """The source of norms and sketches; a row of 1 + S numbers for each record."""

    def build(config: Config, model: PreTrainedModel, processor: Any) -> GradientSketches:
        return GradientSketches(model, processor, options.modules, options.dimension)

    more = {"modules": options.modules, "dimension": options.dimension}
    return whole_model_source(NAME, (), build, more=more, load=load_adapted)

"""The shallow forward pass: encoded units in, pooled hidden states out.

The model holds the vision tower, the projector and the first k decoder layers; no deeper layer, no
head and no cache exists. Hidden states are pooled as they pass, so that none is kept.

Shape legend: B units, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prism_tune.config.sections import Config
from prism_tune.data.collator import Collator
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.families import final_norm, parts
from prism_tune.models.flops import count_parameters, estimate_flops
from prism_tune.models.guards import check_use
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import Rows, count_seen, place_batch
from prism_tune.selection.reference.read import load_shallow

Pooling = Literal["mean", "last", "attention", "instruction"]

_ATTENDED_SHARE = 0.9
"""Of the attention on an image: what "instruction" pooling takes the tokens of."""


class ShallowModel:
    """A model without its deeper layers, on batches of units.

    Args:
        model: as `load_shallow` gives it.
        processor: the model's.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self.hidden_size = int(model.config.get_text_config().hidden_size)
        self.dtype = model.dtype
        self.model = model
        self.parts = parts(model)
        self.decoder: Any = self.parts.language_model
        self._collate = Collator(processor, model.dtype, with_dummy=False)
        self._decoder_size = count_parameters(self.decoder.layers, active=self.parts.active_share)
        self._vision_size = count_parameters(self.parts.vision_tower, self.parts.projector)

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last decoder layer.

        Raises:
            UserError: the decoder has none that is known.
        """
        norm: nn.Module = getattr(self.decoder, final_norm(self.decoder))
        return norm

    def place(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The batch's inputs on the model's device."""
        return place_batch(batch, self._collate, self.model)

    def find_attention(self, layer: int, key: str) -> Any:
        """The self-attention of a layer, from 0.

        Args:
            layer: which.
            key: of the config, that says otherwise.

        Raises:
            UserError: it has none: a layer of linear attention.
        """
        found = getattr(self.decoder.layers[layer], "self_attn", None)
        if found is None:
            raise UserError(
                f"{key}: layer {layer} (from 0) of this {self.model.config.model_type!r} has no "
                "self-attention to read; choose another"
            )
        return found

    def check(self, unit: Encoded) -> None:
        """Check the model on one unit (see `models.guards`).

        Raises:
            UserError: its features would mean nothing.
        """
        model: Any = self.model
        check_use(
            lambda inputs, keep_BL: model(**inputs, use_cache=False).last_hidden_state[keep_BL],
            self.place([unit]),
            self.parts,
        )

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """A forward pass through the decoder layers and the vision side."""
        num_tokens = sum(len(unit.pooled_L) for unit in batch)
        seen = count_seen(batch, self.model)
        return estimate_flops((self._decoder_size, num_tokens), (self._vision_size, seen))


class Extractor(ShallowModel):
    """Runs a shallow model on batches of units (a `Runner`): the rows of each layer.

    Args:
        model: as `load_shallow` gives it; it holds `max(layers)` decoder layers.
        processor: the model's.
        layers: which hidden states; 0 is the input of the first layer.
        pooling: "mean" over the pooled positions, the "last" of them, or their mean weighted by
            the "attention" that the last of them pays each, or the plain mean of those that the
            "instruction" positions pay most; these take a model with the attention implementation
            "eager", and no layer 0.
        apart: units have instruction positions, which are pooled apart ("pair" features): a
            feature is then twice as wide as the decoder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        layers: Sequence[int],
        pooling: Pooling,
        *,
        apart: bool = False,
    ) -> None:
        super().__init__(model, processor)
        self.width = self.hidden_size * (2 if apart else 1)
        self._layers = tuple(layers)
        self._pooling = pooling
        self._apart = apart

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The pooled hidden states of each layer, (B, D)."""
        device = self.model.device
        inputs = self.place(batch)
        masks = [mask_BL.to(device, non_blocking=True) for mask_BL in self._masks(batch)]
        asking = [unit.instruction_L for unit in batch if unit.instruction_L is not None]
        result: dict[int, torch.Tensor] = {}
        attention: dict[int, torch.Tensor] = {}

        def keep(layer: int, hidden_BLD: torch.Tensor) -> None:
            if self._pooling == "attention":
                paid_BLL = attention.pop(layer)
                pooled = [pool_attended(hidden_BLD, mask_BL, paid_BLL) for mask_BL in masks]
            elif self._pooling == "instruction":
                asking_BL = pad_sequence(asking, batch_first=True).to(device)
                paid_BLL = attention.pop(layer)
                pooled = [pool_instructed(hidden_BLD, masks[0], asking_BL, paid_BLL)]
            else:
                pooled = [pool_positions(hidden_BLD, mask_BL, self._pooling) for mask_BL in masks]
            result[layer] = torch.cat(pooled, dim=1)

        with self._capture(keep), self._capture_attention(attention):
            self.model(**inputs, use_cache=False)
        return [result[layer] for layer in self._layers]

    def _masks(self, batch: Sequence[Encoded]) -> list[torch.Tensor]:
        """Which positions are pooled, (B, L): one mask, or image and instruction positions."""
        masks = [[unit.pooled_L for unit in batch]]
        if self._apart:
            masks.append([unit.instruction_L for unit in batch if unit.instruction_L is not None])
        return [pad_sequence(mask, batch_first=True) for mask in masks]

    def _capture(self, keep: Callable[[int, torch.Tensor], None]) -> ExitStack:
        """Hooks on the input of deeper layers, and on the (possibly removed) final norm."""
        decoder = self.decoder
        depth = len(decoder.layers)
        hooks = ExitStack()
        for layer in self._layers:
            if layer < depth:
                handle = decoder.layers[layer].register_forward_pre_hook(
                    lambda _, args, kwargs, layer=layer: keep(
                        layer, args[0] if args else kwargs["hidden_states"]
                    ),
                    with_kwargs=True,
                )
            else:
                handle = self.final_norm.register_forward_hook(
                    lambda _, args, output, layer=layer: keep(layer, output)
                )
            hooks.callback(handle.remove)
        return hooks

    def _capture_attention(self, attention: dict[int, torch.Tensor]) -> ExitStack:
        """Hooks that keep the attention (B, L, L), mean over the heads, that led to each layer."""
        hooks = ExitStack()
        for layer in self._layers if self._pooling in ("attention", "instruction") else ():

            def keep(_: Any, inputs: Any, output: Any, layer: int = layer) -> None:
                attention[layer] = output[1].float().mean(dim=1)

            found = self.find_attention(layer - 1, "selection.layer")
            hooks.callback(found.register_forward_hook(keep).remove)
        return hooks


def load_extractor(
    config: Config, layers: Sequence[int], processor: Any
) -> Callable[[], Extractor]:
    """A function that loads the shallow model when it is first called, and not again.

    Raises:
        ConfigError: attention is asked of the embeddings, which pay none.
    """
    selection, source = config.selection, config.model
    if selection.pooling in ("attention", "instruction"):
        if 0 in layers:
            raise ConfigError(
                f"selection.pooling: {selection.pooling} needs layers from 1; layer 0 pays none"
            )
        if selection.pooling == "instruction" and selection.features != "visual":
            raise ConfigError(
                "selection.pooling: instruction pools image tokens; it goes with "
                f"selection.features=visual, got {selection.features}"
            )
        source = source.model_copy(update={"attn_implementation": "eager"})
    read = config.model_copy(update={"model": source})

    @cache
    def load() -> Extractor:
        device = pick_device()
        dtype = resolve_dtype(selection.dtype, device)
        model = load_shallow(read, max(layers), dtype=dtype, device=device)
        apart = selection.features == "pair"
        return Extractor(model, processor, layers, selection.pooling, apart=apart)

    return load


def pool_positions(
    hidden_BLD: torch.Tensor, pooled_BL: torch.Tensor, pooling: Literal["mean", "last"]
) -> torch.Tensor:
    """The float32 mean over the marked positions of each row, or the last of them: (B, D).

    A row without marked position is NaN.
    """
    if pooling == "last":
        last_BD = hidden_BLD[_last_marked(pooled_BL)].float()
        return torch.where(pooled_BL.any(dim=1, keepdim=True), last_BD, torch.nan)
    weights_BL = pooled_BL.float()
    sums_BD = torch.einsum("bl,bld->bd", weights_BL, hidden_BLD.float())
    return sums_BD / weights_BL.sum(dim=1, keepdim=True)


def pool_attended(
    hidden_BLD: torch.Tensor, pooled_BL: torch.Tensor, attention_BLL: torch.Tensor
) -> torch.Tensor:
    """The mean over the marked positions, weighted by what the last of them pays each: (B, D).

    A row without marked position is NaN.
    """
    weights_BL = attention_BLL[_last_marked(pooled_BL)] * pooled_BL
    sums_BD = torch.einsum("bl,bld->bd", weights_BL, hidden_BLD.float())
    return sums_BD / weights_BL.sum(dim=1, keepdim=True)


def pool_instructed(
    hidden_BLD: torch.Tensor,
    pooled_BL: torch.Tensor,
    asking_BL: torch.Tensor,
    attention_BLL: torch.Tensor,
) -> torch.Tensor:
    """The plain mean over the marked positions that the asking ones attend to most: (B, D).

    The attention is the mean over the asking positions, as a share of all that the marked ones get;
    the largest are taken until their sum exceeds 0.9, the one with which it does included. Shares
    .5, .3, .15, .05: the first three. A row without marked position, or where none is attended to,
    is NaN.
    """
    paid_BL = torch.einsum("bl,blm->bm", asking_BL.float(), attention_BLL) * pooled_BL
    shares_BL = paid_BL / paid_BL.sum(dim=1, keepdim=True)
    sorted_BL, order_BL = shares_BL.sort(dim=1, descending=True, stable=True)
    taken_BL = (sorted_BL.cumsum(dim=1) - sorted_BL <= _ATTENDED_SHARE) & (sorted_BL > 0)
    taken_BL = torch.zeros_like(taken_BL).scatter(1, order_BL, taken_BL)
    return pool_positions(hidden_BLD, taken_BL, "mean")


def _last_marked(pooled_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The index (row, position) of the last marked position of every row."""
    positions_L = torch.arange(pooled_BL.shape[1], device=pooled_BL.device)
    last_B = (pooled_BL * positions_L).argmax(dim=1)
    return torch.arange(len(last_B), device=last_B.device), last_B

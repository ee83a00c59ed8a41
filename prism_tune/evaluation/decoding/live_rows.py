"""Greedy decoding of rows that come and go: those that have ended leave, others join.

In: a model, and batches of prompts. Out: the new tokens of each request, as it ends. Two ways:
`SharedRows` runs the decoder itself, for models whose layers keep all keys and values
(`can_share`); `WholeRows` asks `generate`, a batch from its beginning to its end, for the others.

Shape legend: B rows, G beginnings of prompts, P and S tokens of beginnings and rests, T of a row so
far. Positions are (B, T), or (axes, B, T) where a family counts images in several directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from prism_tune.evaluation.decoding.prompts import Inputs, PromptBatch, Request

_SCALED_BY_LENGTH = ("dynamic", "longrope")
"""Rotary positions that a longer text turns otherwise from its beginning on."""
_KEPT_SHARE = 0.75
"""Rows that have ended are taken out when no more than this share goes on: taking out copies."""


@dataclass
class Row:
    """A request and its new tokens so far."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


@dataclass
class _State:
    """Rows that are being decoded.

    Attributes:
        cache: keys and values of T tokens.
        mask_BT: 1 where there is a token.
        positions_B1: of the last token; with the axes before, where there are several.
        token_B1: the one that comes next.
    """

    cache: Any
    mask_BT: torch.Tensor
    positions_B1: torch.Tensor
    token_B1: torch.Tensor

    def keep(self, rows_B: torch.Tensor) -> None:
        """These rows alone, without the columns that none of them has a token in."""
        self.cache.batch_select_indices(rows_B)
        self.mask_BT, self.token_B1 = self.mask_BT[rows_B], self.token_B1[rows_B]
        self.positions_B1 = self.positions_B1[..., rows_B, :]
        first = int(self.mask_BT.any(dim=0).int().argmax())
        self._resize(self.mask_BT.shape[1] - first)

    def add(self, other: _State) -> None:
        """Another's rows behind these, both with columns for the longest."""
        length = max(self.mask_BT.shape[1], other.mask_BT.shape[1])
        self._resize(length)
        other._resize(length)
        for layer, of_other in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys = torch.cat([layer.keys, of_other.keys])
            layer.values = torch.cat([layer.values, of_other.values])
        self.mask_BT = torch.cat([self.mask_BT, other.mask_BT])
        self.positions_B1 = torch.cat([self.positions_B1, other.positions_B1], dim=-2)
        self.token_B1 = torch.cat([self.token_B1, other.token_B1])

    def _resize(self, length: int) -> None:
        num_more = length - self.mask_BT.shape[1]
        if num_more == 0:
            return
        self.mask_BT = pad(self.mask_BT, (num_more, 0))
        for layer in self.cache.layers:  # (B, heads, T, width)
            layer.keys = pad(layer.keys, (0, 0, num_more, 0))
            layer.values = pad(layer.values, (0, 0, num_more, 0))


class WholeRows:
    """Each batch by `generate`, which takes any model.

    Args:
        model: with its generation config.
        max_new_tokens: of an answer.
    """

    shares = False

    def __init__(self, model: PreTrainedModel, max_new_tokens: int) -> None:
        self._model: Any = model
        self._max_new_tokens = max_new_tokens
        self._rows: list[Row] = []

    @torch.inference_mode()
    def join(self, requests: Sequence[Request], batch: PromptBatch) -> None:
        """Decode a batch."""
        rows = [Row(request) for request in requests]
        self._rows += rows
        inputs = _move(batch.heads, self._model)
        # `generate` asks for the last position's logits only: no (B, L, vocabulary) tensor.
        tokens_BLG = self._model.generate(**inputs, max_new_tokens=self._max_new_tokens)
        new_tokens = tokens_BLG[:, inputs["input_ids"].shape[1] :].tolist()
        for row, tokens in zip(rows, new_tokens, strict=True):
            row.tokens, row.ended = tokens, True

    def step(self) -> None:
        """Nothing is left to do."""

    @property
    def num_running(self) -> int:
        """Rows that have not ended."""
        return sum(not row.ended for row in self._rows)

    def take_ended(self) -> list[Row]:
        """Rows that have ended since the last call."""
        ended = [row for row in self._rows if row.ended]
        self._rows = [row for row in self._rows if not row.ended]
        return ended

    def clear(self) -> list[Request]:
        """Give up the rows that have not ended."""
        given_up = [row.request for row in self._rows if not row.ended]
        self._rows = [row for row in self._rows if row.ended]
        return given_up


class SharedRows(WholeRows):
    """Token by token: beginnings are computed once, rows end and join in between."""

    shares = True

    def __init__(self, model: PreTrainedModel, max_new_tokens: int) -> None:
        super().__init__(model, max_new_tokens)
        self._stop_ids = frozenset(self._model.generation_config.eos_token_id)
        self._state: _State | None = None
        self._running: list[Row] = []

    @torch.inference_mode()
    def join(self, requests: Sequence[Request], batch: PromptBatch) -> None:
        """Read the prompts; each has its first new token then."""
        rows = [Row(request) for request in requests]
        self._rows += rows
        self._leave(at_most=1.0)  # before more memory is asked for
        new = self._read(batch)
        if self._state is None:
            self._state = new
        else:
            self._state.add(new)
        self._running += rows
        self._note(rows, new.token_B1)

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for each row that goes on."""
        self._leave(at_most=_KEPT_SHARE)
        state = self._state
        if state is None:
            return
        state.mask_BT = pad(state.mask_BT, (0, 1), value=1)
        state.positions_B1 = state.positions_B1 + 1
        state.token_B1 = self._forward(
            {"input_ids": state.token_B1, "attention_mask": state.mask_BT},
            state.positions_B1,
            state.cache,
        )[1]
        self._note(self._running, state.token_B1)

    def clear(self) -> list[Request]:
        """Give up the rows that have not ended, and their memory."""
        self._state, self._running = None, []
        return super().clear()

    def _note(self, rows: Sequence[Row], token_B1: torch.Tensor) -> None:
        for row, token in zip(rows, token_B1[-len(rows) :, 0].tolist(), strict=True):
            if not row.ended:
                row.tokens.append(token)
                row.ended = token in self._stop_ids or len(row.tokens) == self._max_new_tokens

    def _leave(self, at_most: float) -> None:
        """Rows that have ended go, once no more than this share of all goes on."""
        going_on = [place for place, row in enumerate(self._running) if not row.ended]
        if not going_on:
            self._state, self._running = None, []
        elif self._state is not None and len(going_on) < len(self._running) * at_most:
            self._state.keep(torch.tensor(going_on, device=self._state.mask_BT.device))
            self._running = [self._running[place] for place in going_on]

    def _read(self, batch: PromptBatch) -> _State:
        heads = _move(batch.heads, self._model)
        mask = heads["attention_mask"]
        # Of all families: two-dimensional, or with the axes that images are counted in.
        positions = self._model._prepare_position_ids_for_generation(
            heads["input_ids"], dict(heads)
        )
        cache, token_B1 = self._forward(heads, positions, None)
        last = _last_positions(positions, mask)
        if not batch.rests:
            return _State(cache, mask, last, token_B1)
        rests = _move(batch.rests, self._model)
        head_of_B = batch.head_of_B.to(mask.device)
        cache.batch_select_indices(head_of_B)
        mask_BT = torch.cat([mask[head_of_B], rests["attention_mask"]], dim=1)
        positions = last[..., head_of_B, :] + rests["attention_mask"].cumsum(dim=1)
        inputs = {"input_ids": rests["input_ids"], "attention_mask": mask_BT}
        cache, token_B1 = self._forward(inputs, positions, cache)
        return _State(cache, mask_BT, positions[..., -1:], token_B1)

    def _forward(self, inputs: Inputs, positions: torch.Tensor, cache: Any) -> tuple[Any, Any]:
        """The cache, and each row's likeliest next token (B, 1)."""
        outputs = self._model(
            **inputs, position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1
        )
        return outputs.cache, outputs.logits[:, -1:].float().argmax(dim=-1)


def can_share(model: PreTrainedModel) -> bool:
    """Whether a row's keys and values can be cut, copied and put beside another's.

    Not where a layer keeps a window, or a state in their place, nor where what comes later turns
    the positions before.
    """
    config: Any = model.config.get_text_config(decoder=True)
    cache: Any = DynamicCache(config=config)
    rotary = getattr(config, "rope_parameters", None) or {}
    of_layers = [rotary, *(value for value in rotary.values() if isinstance(value, dict))]
    return all(type(layer) is DynamicLayer for layer in cache.layers) and not any(
        found.get("rope_type") in _SCALED_BY_LENGTH for found in of_layers
    )


def _last_positions(positions: torch.Tensor, mask_GP: torch.Tensor) -> torch.Tensor:
    """After which a row goes on, (G, 1), with the axes before where there are several.

    Behind an image that is counted in several directions the text goes on after the largest. The
    first axis is then the text's own.
    """
    largest = positions.masked_fill(mask_GP == 0, -1).amax(dim=-1, keepdim=True)
    if largest.dim() == 2:
        return largest
    of_images = largest[1:].amax(dim=0, keepdim=True).expand_as(largest[1:])
    return torch.cat([largest[:1], of_images])


def _move(inputs: Inputs, model: Any) -> Inputs:
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }

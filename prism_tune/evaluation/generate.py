"""Batched greedy generation.

In: requests (a rendered prompt and its images), a model and its processor. Out: answers, a batch
at a time. Prompts are padded on the left; those about the same images stand together, and what they
begin with is computed once (`decoding/prompts.py`); the longest come first. Text-only requests and
requests with images may share a batch; equal requests are computed once. While the last rows of a
batch are still going on, the next batch joins (`decoding/live_rows.py`).

In float32 an answer does not depend on what it is batched with. In 16 bits it can (LLaVA#1928).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, ProcessorMixin

from prism_tune.chat.templates import end_token
from prism_tune.config.sections import Template
from prism_tune.data.conversation import render_prompt
from prism_tune.errors import UserError
from prism_tune.evaluation.decoding.counts import ForwardCounter
from prism_tune.evaluation.decoding.greedy import make_greedy
from prism_tune.evaluation.decoding.live_rows import SharedRows, WholeRows, can_share
from prism_tune.evaluation.decoding.prompts import (
    Answer,
    PromptBatch,
    Request,
    encode_batch,
    group_by_images,
)
from prism_tune.models.devices import name_dtype, pick_device, resolve_dtype
from prism_tune.run.worker_processes import as_it_is, count_bytes, end_unheard_workers, fit_workers

logger = logging.getLogger(__name__)

_TYPICAL_IMAGE_TOKENS = 576
_CARRIED_SHARE = 4
"""The next batch joins when no more than a fourth of a batch's rows go on: they share the steps."""


def computed_here(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What answers depend on, with the dtype that this device computes in where it says `auto`.

    A server's is not ours to know.
    """
    if inputs["evaluation.backend"] == "openai":
        return dict(inputs)
    dtype = resolve_dtype(inputs["evaluation.dtype"], pick_device())
    return {**inputs, "evaluation.dtype": name_dtype(dtype)}


class Decoder:
    """A model that answers requests: one beam, no sampling, whatever its checkpoint suggests.

    Args:
        load_model: gives the model, in evaluation mode and on its device; called once, when
            something is to be answered.
        processor: the model's processor, with its tokenizer.
        template: what a prompt looks like, and what ends an answer besides the model's and the
            tokenizer's own end tokens.
        batch_size: requests at a time (and a fourth as many that still go on when the next
            batch joins); halved when a CUDA device runs out of memory.
        num_workers: processes that open and resize images ahead.
    """

    def __init__(
        self,
        load_model: Callable[[], PreTrainedModel],
        processor: ProcessorMixin,
        *,
        template: Template,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self._load_model = load_model
        self.processor = processor
        self._template: Template = template
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._lengths: dict[Request, int] = {}

    def render(self, text: str, num_images: int) -> str:
        """A question as the model's prompt."""
        return render_prompt(text, num_images > 0, self._template, self.processor, num_images)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        model = self._load_model()
        model.get_output_embeddings().register_forward_pre_hook(_make_contiguous)
        end = end_token(self._template, self.processor)
        make_greedy(model, self.processor.tokenizer, end)
        return model

    @cached_property
    def counter(self) -> ForwardCounter:
        """Counts what is answered."""
        return ForwardCounter(self.model)

    def answer(
        self, requests: Sequence[Request], *, max_new_tokens: int
    ) -> Iterator[dict[Request, Answer]]:
        """Yield the answers of one finished batch after the other, longest prompts first.

        Raises:
            UserError: an image cannot be read, or a single request overflows the device's memory.
        """
        batches = self._plan_batches(list(dict.fromkeys(requests)), max_new_tokens)
        if not batches:
            return
        rows = (SharedRows if self._shares else WholeRows)(self.model, max_new_tokens)
        prepared = _Batches(batches, self.processor, shares=rows.shares)
        num_workers = self._fit_workers(prepared, batches)
        loader = end_unheard_workers(
            DataLoader(prepared, batch_size=None, collate_fn=as_it_is, num_workers=num_workers)
        )
        for number, (batch, inputs) in enumerate(zip(batches, loader, strict=True), 1):
            if isinstance(inputs, UserError):
                raise inputs
            few = 0 if number == len(batches) else self._batch_size // _CARRIED_SHARE
            yield self._mark_long(self._answer_batch(rows, batch, inputs, few))

    @cached_property
    def _shares(self) -> bool:
        return can_share(self.model)

    def _fit_workers(self, prepared: _Batches, batches: Sequence[Sequence[Request]]) -> int:
        """No more than shared memory has room for: the batch with most images is the largest."""
        wanted = min(self._num_workers, len(batches) - 1)
        if wanted == 0:
            return 0
        counts = [len({image for r in batch for image in r.images}) for batch in batches]
        largest = prepared[counts.index(max(counts))]
        if isinstance(largest, UserError):
            return wanted
        return fit_workers(wanted, count_bytes(largest.tensors))

    def _plan_batches(self, requests: list[Request], max_new_tokens: int) -> list[list[Request]]:
        if not requests:
            return []
        lengths, window = self._count_tokens(requests), self._window
        self._lengths = dict(zip(requests, lengths, strict=True))
        num_over = sum(window is not None and n + max_new_tokens > window for n in lengths)
        if num_over:
            logger.warning(
                "%d prompt(s) with %d new tokens may pass the model's window of %s tokens; "
                "nothing is cut off",
                num_over,
                max_new_tokens,
                window,
            )
        # Ties keep the order of the questions, so that the same questions give the same batches.
        longest_first = sorted(range(len(requests)), key=lambda i: -lengths[i])
        order = longest_first
        if self._shares:
            groups = group_by_images([requests[i] for i in longest_first])
            order = [longest_first[place] for group in groups for place in group]
        size = self._batch_size
        return [
            [requests[i] for i in order[start : start + size]]
            for start in range(0, len(order), size)
        ]

    @cached_property
    def _window(self) -> int | None:
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if window is None else int(window)

    def _mark_long(self, answers: dict[Request, Answer]) -> dict[Request, Answer]:
        """Say so of those that may have passed the window; a result has their number."""
        window = self._window
        if window is None:
            return answers
        return {
            request: replace(answer, beyond_window=True)
            if self._lengths[request] + answer.num_new_tokens > window
            else answer
            for request, answer in answers.items()
        }

    def _count_tokens(self, requests: list[Request]) -> list[int]:
        ids = self.processor.tokenizer([request.prompt for request in requests]).input_ids
        config = self.model.config
        per_image = getattr(config, "image_seq_length", None) or _TYPICAL_IMAGE_TOKENS
        return [
            len(row) + per_image * len(request.images)
            for row, request in zip(ids, requests, strict=True)
        ]

    def _answer_batch(
        self, rows: WholeRows, batch: list[Request], inputs: PromptBatch, few: int
    ) -> dict[Request, Answer]:
        """Have a batch join, and decode until no more than `few` rows go on; those that ended."""
        again = batch
        if len(batch) <= self._batch_size:
            try:
                rows.join(batch, inputs)
                while rows.num_running > few:
                    rows.step()
                again = []
            except torch.OutOfMemoryError as error:
                self._halve_batch_size(rows.num_running, error)
                again = rows.clear()
            else:
                self.counter.add(inputs.heads, inputs.rests, num_images=_count_images(batch))
        answered = {row.request: self._decode(row.tokens) for row in rows.take_ended()}
        self.counter.add_new(sum(answer.num_new_tokens for answer in answered.values()))
        if again:
            # Outside the except clause, whose traceback would keep the failed batch in memory.
            torch.cuda.empty_cache()
        size = self._batch_size  # it may be halved once more in between
        for start in range(0, len(again), size):
            part = again[start : start + size]
            encoded = encode_batch(self.processor, part, shares=rows.shares)
            answered |= self._answer_batch(rows, part, encoded, few=0)
        return answered

    def _halve_batch_size(self, size: int, error: Exception) -> None:
        if size == 1:
            raise UserError(
                "out of memory with a single question; use evaluation.dtype=bfloat16, or a device "
                "with more memory"
            ) from error
        self._batch_size = size // 2
        logger.warning("out of memory: going on with batches of %d", self._batch_size)

    def _decode(self, tokens: list[int]) -> Answer:
        stop_ids: Any = self.model.generation_config.eos_token_id
        stops = [position for position, token in enumerate(tokens) if token in stop_ids]
        kept = tokens[: stops[0]] if stops else tokens
        text = self.processor.tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Answer(text.strip(), len(kept) + bool(stops), bool(stops))


class _Batches(Dataset[PromptBatch | UserError]):
    """Batch i, opened and encoded; the error instead, where a worker could not pass it on."""

    def __init__(
        self, batches: Sequence[Sequence[Request]], processor: ProcessorMixin, *, shares: bool
    ) -> None:
        self._batches = batches
        self._processor = processor
        self._shares = shares

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> PromptBatch | UserError:
        try:
            return encode_batch(self._processor, self._batches[index], shares=self._shares)
        except UserError as error:
            return UserError(str(error))


def _count_images(batch: Sequence[Request]) -> int:
    return sum(len(request.images) for request in batch)


def _make_contiguous(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The last positions' hidden states as a tensor of their own.

    As a strided view (B, 1, width) of all positions, torch multiplies them on a CPU by B copies of
    the head's weights: with SmolLM2's vocabulary that was more than half of the prefill.
    """
    return tuple(states.contiguous() for states in inputs)

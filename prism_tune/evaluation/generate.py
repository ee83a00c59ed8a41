"""Batched greedy generation.

In: requests (a rendered prompt and its images), a model and its processor. Out: answers, a batch
at a time. Prompts are padded on the left and sorted by length; text-only requests and requests
with images may share a batch; equal requests are computed once.

In float32 an answer does not depend on what it is batched with. In 16 bits it can (LLaVA#1928).
Shape legend: B requests of a batch, L padded prompt tokens, G generated tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from prism_tune.chat.templates import end_token
from prism_tune.config.sections import Template
from prism_tune.data.conversation import render_prompt
from prism_tune.data.encoding.encoder import encode_prompts, require_accepted
from prism_tune.data.images import ImageError, open_image
from prism_tune.data.policy import BadRecordError
from prism_tune.errors import UserError
from prism_tune.evaluation.counts import ForwardCounter
from prism_tune.run.shared_memory import count_bytes, end_unheard_workers, fit_workers

logger = logging.getLogger(__name__)

_TYPICAL_IMAGE_TOKENS = 576


@dataclass(frozen=True)
class Request:
    """One prompt, its `<image>` placeholders in place, and one file for each placeholder.

    `question`: the same without template and placeholders, for a server that has its own.
    """

    prompt: str
    images: tuple[Path, ...] = ()
    question: str = ""


@dataclass(frozen=True)
class Answer:
    """The decoded new tokens; `finished` is False when `max_new_tokens` cut the answer off."""

    text: str
    num_new_tokens: int
    finished: bool


class Decoder:
    """A model that answers requests: one beam, no sampling, whatever its checkpoint suggests.

    Args:
        load_model: gives the model, in evaluation mode and on its device; called once, when
            something is to be answered.
        processor: the model's processor, with its tokenizer.
        template: what a prompt looks like, and what ends an answer besides the model's and the
            tokenizer's own end tokens.
        batch_size: requests at a time; halved when a CUDA device runs out of memory.
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

    def render(self, text: str, num_images: int) -> str:
        """A question as the model's prompt."""
        return render_prompt(text, num_images > 0, self._template, self.processor, num_images)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        model = self._load_model()
        model.get_output_embeddings().register_forward_pre_hook(_make_contiguous)
        # `generate` fills what a call leaves open from here: a checkpoint's own repetition penalty
        # or temperature must not reach a greedy protocol.
        stop_ids = _find_stop_ids(
            model, self.processor.tokenizer, end_token(self._template, self.processor)
        )
        pad_id = self.processor.tokenizer.pad_token_id
        model.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            eos_token_id=stop_ids,
            pad_token_id=stop_ids[0] if pad_id is None else pad_id,
        )
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
        prepared = _Batches(batches, self.processor)
        loader = end_unheard_workers(
            DataLoader(
                prepared,
                batch_size=None,
                collate_fn=_identity,
                num_workers=self._fit_workers(prepared, len(batches)),
            )
        )
        for batch, inputs in zip(batches, loader, strict=True):
            if isinstance(inputs, UserError):
                raise inputs
            yield self._answer_batch(batch, inputs, max_new_tokens)

    def _fit_workers(self, prepared: _Batches, num_batches: int) -> int:
        """No more than shared memory has room for: the first batch is the largest."""
        wanted = min(self._num_workers, max(num_batches - 1, 0))
        first = prepared[0] if wanted else {}
        return wanted if isinstance(first, UserError) else fit_workers(wanted, count_bytes(first))

    def _plan_batches(self, requests: list[Request], max_new_tokens: int) -> list[list[Request]]:
        if not requests:
            return []
        lengths = self._count_tokens(requests)
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
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
        order = sorted(range(len(requests)), key=lambda i: -lengths[i])
        size = self._batch_size
        return [
            [requests[i] for i in order[start : start + size]]
            for start in range(0, len(order), size)
        ]

    def _count_tokens(self, requests: list[Request]) -> list[int]:
        ids = self.processor.tokenizer([request.prompt for request in requests]).input_ids
        config = self.model.config
        per_image = getattr(config, "image_seq_length", None) or _TYPICAL_IMAGE_TOKENS
        return [
            len(row) + per_image * len(request.images)
            for row, request in zip(ids, requests, strict=True)
        ]

    def _answer_batch(
        self, batch: list[Request], inputs: dict[str, Any], max_new_tokens: int
    ) -> dict[Request, Answer]:
        if len(batch) <= self._batch_size:
            try:
                answers = self._generate(inputs, max_new_tokens)
                self.counter.add(
                    inputs,
                    num_images=sum(len(request.images) for request in batch),
                    num_new_tokens=sum(answer.num_new_tokens for answer in answers),
                )
                return dict(zip(batch, answers, strict=True))
            except torch.OutOfMemoryError as error:
                self._halve_batch_size(len(batch), error)
        # Outside the except clause, whose traceback would keep the failed batch in memory.
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        answered: dict[Request, Answer] = {}
        for half in (batch[:middle], batch[middle:]):
            half_inputs = collate_prompts(self.processor, half)
            answered |= self._answer_batch(half, half_inputs, max_new_tokens)
        return answered

    def _halve_batch_size(self, size: int, error: Exception) -> None:
        if size == 1:
            raise UserError(
                "out of memory with a single question; use evaluation.dtype=bfloat16, or a device "
                "with more memory"
            ) from error
        self._batch_size = size // 2
        logger.warning("out of memory: going on with batches of %d", self._batch_size)

    @torch.inference_mode()
    def _generate(self, inputs: dict[str, Any], max_new_tokens: int) -> list[Answer]:
        model: Any = self.model
        inputs_on_device = {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        # `generate` asks for the last position's logits only: no (B, L, vocabulary) tensor.
        tokens_BLG = model.generate(**inputs_on_device, max_new_tokens=max_new_tokens)
        new_tokens_BG = tokens_BLG[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._decode(row) for row in new_tokens_BG]

    def _decode(self, tokens: list[int]) -> Answer:
        stop_ids: Any = self.model.generation_config.eos_token_id
        stops = [position for position, token in enumerate(tokens) if token in stop_ids]
        kept = tokens[: stops[0]] if stops else tokens
        text = self.processor.tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Answer(text.strip(), len(kept) + bool(stops), bool(stops))


class _Batches(Dataset[dict[str, Any] | UserError]):
    """Batch i, opened and collated; the error instead, where a worker could not pass it on."""

    def __init__(self, batches: Sequence[Sequence[Request]], processor: ProcessorMixin) -> None:
        self._batches = batches
        self._processor = processor

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Any] | UserError:
        try:
            return collate_prompts(self._processor, self._batches[index])
        except UserError as error:
            return UserError(str(error))


def collate_prompts(processor: ProcessorMixin, batch: Sequence[Request]) -> dict[str, Any]:
    """Prompts and images as the model's inputs, padded on the left.

    Returns:
        `input_ids` and `attention_mask` (B, L), and what the processor makes of the images
        (`pixel_values`), in the order of the placeholders; without it when there is no image.
    """
    images = [[open_image(path) for path in request.images] for request in batch]
    try:
        return dict(encode_prompts([r.prompt for r in batch], images, processor))
    except BadRecordError as error:
        raise UserError(f"a question cannot be put to the model: {error}") from error
    except ImageError:
        for path in [path for request in batch for path in request.images]:
            require_accepted(open_image(path), processor, str(path))
        raise


def _find_stop_ids(model: PreTrainedModel, tokenizer: Any, end_token: str | None) -> list[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    stops = list(configured) if isinstance(configured, list) else [configured]
    stops.append(tokenizer.eos_token_id)
    if end_token:
        stops.append(tokenizer.convert_tokens_to_ids(end_token))
    found = list(dict.fromkeys(stop for stop in stops if stop is not None))
    if not found:
        raise UserError("the tokenizer has no end-of-sequence token: an answer would never end")
    return found


def _make_contiguous(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The last positions' hidden states as a tensor of their own.

    As a strided view (B, 1, width) of all positions, torch multiplies them on a CPU by B copies of
    the head's weights: with SmolLM2's vocabulary that was more than half of the prefill.
    """
    return tuple(states.contiguous() for states in inputs)


def _identity(value: Any) -> Any:
    return value

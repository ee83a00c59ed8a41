"""What the model reads of a record when its feature is computed.

A record goes in; its prompt (and which characters are instruction) comes out.

- "prefix": up to the last image token. Attention is causal, so that image-token states cannot
  depend on what follows; records with the same image and the same prefix share one feature.
- "whole": the conversation, for models where that does not hold.
- "joint": up to the end of the last question; the questions' tokens are pooled too.
- "pair": the same prompt; the questions' tokens are pooled apart from the image tokens.
- "conversation": all of it, as training sees it; every token is pooled.
- "answers": the conversation, with the answers' places (see `encoding.RecordDataset`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.chat.templates import image_token, wrap_image
from prism_tune.config.sections import Config, Template
from prism_tune.data.conversation import Rendered, mark_turns, render
from prism_tune.data.encoding.blocks import find_of_all
from prism_tune.data.records import Pool
from prism_tune.run.cached import cached_array
from prism_tune.run.fingerprints import fingerprint
from prism_tune.schema import IMAGE_PLACEHOLDER, Record, Turn
from prism_tune.selection.evidence.source import find_measured

PromptKind = Literal["prefix", "whole", "joint", "pair", "conversation", "answers"]
Span = tuple[int, int]


@dataclass(frozen=True)
class Prompt:
    """A prompt's text, and [start, end) characters in it: the questions' ("answers": the answers').

    `apart`: their tokens are pooled by themselves, not together with the image tokens.
    """

    text: str
    instruction_spans: tuple[Span, ...] = ()
    apart: bool = False


def build_prompt(record: Record, kind: PromptKind, template: Template, processor: Any) -> Prompt:
    """Render one record.

    Args:
        record: with an `<image>` placeholder in its questions, unless all of it is read.
        kind: see the module.
        template: how conversations are written.
        processor: the model's; its image token stands for `<image>`.
    """
    rendered = render(record.turns, template, processor, system=record.system)
    text, token = rendered.text, image_token(processor)
    if kind in ("whole", "conversation"):
        return Prompt(text)
    if kind == "answers":
        return Prompt(text, rendered.loss_spans)
    images_end = text.rindex(token) + len(token)
    if kind == "prefix":
        return Prompt(text[:images_end])
    spans = _find_questions(mark_turns(record.turns, processor), rendered, wrap_image(processor))
    end = max([images_end, *(end for _, end in spans)])
    return Prompt(text[:end], spans, apart=kind == "pair")


def digest_prompts(
    pool: Pool, kind: PromptKind, template: Template, processor: Any, config: Config
) -> NDArray[np.bytes_]:
    """A hash of each record's prompt (32 hex digits; empty for records that are not ranked).

    Rendering 665K records takes half a minute, so the hashes are kept beside the evidence.
    """
    folder = Path(config.output_dir) / "evidence" / "prompts"
    measured_N = find_measured(config, pool)
    described = [pool.fingerprint, kind, template, image_token(processor), _chat(processor)]
    if config.selection.text_only == "rank":
        described.append("with text-only records")
    path = folder / f"{fingerprint(described)[:32]}.npy"

    def digest() -> NDArray[np.bytes_]:
        digests = np.zeros(len(pool), dtype="S32")
        measured = np.flatnonzero(measured_N).tolist()
        find = _Digests(pool, kind, template, processor)
        digests[measured] = find_of_all(find, measured, config.data.num_workers)
        return digests

    return cached_array(path, digest, len(pool), "S32")


@dataclass(frozen=True)
class _Digests:
    """Those of a block of records."""

    pool: Pool
    kind: PromptKind
    template: Template
    processor: Any

    def __call__(self, indices: Sequence[int]) -> NDArray[np.bytes_]:
        return np.array([self._digest(index) for index in indices], dtype="S32")

    def _digest(self, index: int) -> str:
        prompt = build_prompt(self.pool[index], self.kind, self.template, self.processor)
        spans = f"{prompt.instruction_spans}" if self.kind == "answers" else ""
        return hashlib.blake2b(f"{spans}{prompt.text}".encode(), digest_size=16).hexdigest()


def _find_questions(turns: Sequence[Turn], rendered: Rendered, image: str) -> tuple[Span, ...]:
    """Where the words of each question, without placeholders, stand in the rendered text."""
    spans = []
    position = 0
    answer_ends = [end for _, end in rendered.answer_spans]
    for turn, answer_end in zip(turns[::2], answer_ends, strict=True):
        asked = turn.text.replace(IMAGE_PLACEHOLDER, image)
        position = max(position, rendered.text.find(asked, position))
        for words in filter(None, map(str.strip, turn.text.split(IMAGE_PLACEHOLDER))):
            start = rendered.text.find(words, position, answer_end)
            if start >= 0:
                position = start + len(words)
                spans.append((start, position))
        position = answer_end
    return tuple(spans)


def _chat(processor: Any) -> str:
    return str(getattr(processor, "chat_template", None) or "")

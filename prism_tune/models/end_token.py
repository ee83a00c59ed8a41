"""The token that a tuned model ends its answers with, where `generate` looks for it."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig


def add_end_token(model: Any, processor: Any, end: str | None) -> None:
    """Let `generation_config.eos_token_id` hold a template's end token, behind those it has.

    A base model knows none but the end of a text; taught another, it would write on behind it to
    the limit wherever plain transformers generates.

    Args:
        model: whose generation config is changed.
        processor: with its tokenizer.
        end: as text; None where a template has none.
    """
    if end is None:
        return
    if model.generation_config is None:
        model.generation_config = GenerationConfig()
    known = model.generation_config.eos_token_id
    ends = list(known) if isinstance(known, list | tuple) else [known] if known is not None else []
    token = int(processor.tokenizer.convert_tokens_to_ids(end))
    if token not in ends:
        ends.append(token)
        model.generation_config.eos_token_id = ends if len(ends) > 1 else token

"""Greedy decoding, whatever a checkpoint's own `generation_config.json` suggests."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from prism_tune.errors import UserError


def make_greedy(model: PreTrainedModel, tokenizer: Any, end_token: str | None = None) -> None:
    """Have `generate` take the likeliest token up to the model's, the tokenizer's or this end.

    `generate` fills what a call leaves open from the model's own settings: a repetition penalty or
    a temperature there must not reach a greedy protocol.

    Raises:
        UserError: nothing ends an answer.
    """
    stop_ids = _find_stop_ids(model, tokenizer, end_token)
    pad_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        eos_token_id=stop_ids,
        pad_token_id=stop_ids[0] if pad_id is None else pad_id,
    )


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

"""Several records in one row: attention that stays within each record, and their positions.

In: a model that is ready for tuning, and rows of `data.collator.PackingCollator`. Out: arguments of
the model's `forward` under which every record is computed as if it stood alone.

Transformers makes attention block-diagonal by itself where `attention_mask` is None and positions
begin anew: by a mask under eager, sdpa and flex attention, by sequence lengths under flash
attention. A mask makes each token pay for the whole row, so sdpa is replaced by the same kernel
called once a record.

Shape legend: L tokens of a row, S records of a row, M tokens of the longest, H heads, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from prism_tune.errors import ConfigError
from prism_tune.models.tuning import TunedModel, tuned_parts

PACKED_FAMILIES = (
    "llava",
    "llava_next",
    "llava_onevision",
    "internvl",
    "idefics3",
    "smolvlm",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "mistral3",
    "vipllava",
    "glm4v",
    "aya_vision",
)
PACKED_DECODERS = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "phi",
    "phi3",
    "smollm3",
    "olmo2",
    "granite",
    "qwen2_vl_text",
    "qwen2_5_vl_text",
    "qwen3_vl_text",
    "qwen3_vl_moe_text",
    "glm4v_text",
    "cohere2",
)
"""`model_type` of the language models whose attention and positions are known to begin anew."""

_PER_RECORD = "sdpa_per_record"
_OF_THE_RECORDS = (
    "record_lengths",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
)
_MULTI_AXIS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v")
"""Families whose tokens have a position on each of three axes (time, height, width)."""


class Packing:
    """Packed rows for one model; how its parts are told of the records is set on construction.

    Args:
        model: after `prepare_tuning`.

    Raises:
        ConfigError: the family's or the decoder's attention cannot be kept within a record.
    """

    def __init__(self, model: TunedModel) -> None:
        found = tuned_parts(model)
        self._family = found.base.config.model_type
        self._base: Any = found.base
        decoder: Any = found.language_model
        _require(self._family, PACKED_FAMILIES, "family")
        _require(decoder.config.model_type, PACKED_DECODERS, "language model")
        has_window = getattr(decoder.config, "sliding_window", None) is not None
        if decoder.config._attn_implementation == "sdpa" and not has_window:
            decoder.config._attn_implementation = _PER_RECORD
        self._attention = decoder.config._attn_implementation
        found.vision_tower.register_forward_pre_hook(_leave_out_records, with_kwargs=True)

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """What `forward` takes in place of the row's `attention_mask` and `position_ids`."""
        positions_L = row["position_ids"][0]
        starts_S = (positions_L == 0).nonzero()[:, 0]
        lengths = starts_S.diff(append=starts_S.new_tensor([len(positions_L)])).tolist()
        options = {key: value for key, value in row.items() if key != "attention_mask"}
        options["use_cache"] = False  # with a cache transformers does not look for packed rows
        if self._family in _MULTI_AXIS:
            options["position_ids"] = self._multi_axis_positions(row, lengths)
        elif self._attention.startswith("flash"):
            options |= _varlen(lengths, positions_L.device)
        if self._attention == _PER_RECORD:
            options["record_lengths"] = tuple(lengths)
        return options

    def _multi_axis_positions(self, row: dict[str, Any], lengths: list[int]) -> Tensor:
        """4 x 1 x L: positions within the record, then those on the model's three axes."""
        pieces = {
            key: pad_sequence(row[key][0].split(lengths), batch_first=True)
            for key in ("input_ids", "mm_token_type_ids")
        }
        mask_SM = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        mask_SM = mask_SM.to(row["input_ids"].device)
        positions_3SM, _ = self._base.get_rope_index(
            **pieces, image_grid_thw=row["image_grid_thw"], attention_mask=mask_SM.long()
        )
        return torch.cat([row["position_ids"][None], positions_3SM[:, mask_SM][:, None]])


def attend_per_record(
    module: nn.Module,
    query_1HLD: Tensor,
    key_1HLD: Tensor,
    value_1HLD: Tensor,
    attention_mask: Tensor | None,
    *,
    record_lengths: tuple[int, ...],
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each record of a row, by torch's kernel; an attention of HF.

    Returns:
        1 x L x H x D.
    """
    assert attention_mask is None
    records = zip(
        *(tensor.split(record_lengths, dim=2) for tensor in (query_1HLD, key_1HLD, value_1HLD)),
        strict=True,
    )
    attended = [
        sdpa_attention_forward(module, query, key, value, None, **options)[0]
        for query, key, value in records
    ]
    return torch.cat(attended, dim=1), None


AttentionInterface.register(_PER_RECORD, attend_per_record)


def _leave_out_records(
    tower: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before the tower's `forward`: the lengths of texts, which some families hand on to it.

    Its flash attention would cut the patches of images by them.
    """
    return arguments, {k: v for k, v in options.items() if k not in _OF_THE_RECORDS}


def _varlen(lengths: list[int], device: torch.device) -> dict[str, Any]:
    """What flash attention takes; without it transformers waits for the device in every layer."""
    ends_S = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    return {
        "cu_seq_lens_q": ends_S,
        "cu_seq_lens_k": ends_S,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _require(model_type: str, known: tuple[str, ...], what: str) -> None:
    if model_type not in known:
        raise ConfigError(
            f"training.batching: packed is not possible for the {what} {model_type!r}, whose "
            f"attention may reach into other records of a row (possible: {', '.join(known)}); "
            "use modality_length"
        )

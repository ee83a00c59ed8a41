"""A decoder in 4 bit for `qlora`; tower, projector and head stay as they are saved.

A model's config goes in; the model comes out, its decoder packed by bitsandbytes.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.models.damage import explained
from prism_tune.models.families import Family, family_of
from prism_tune.models.load import (
    attention_options,
    load_model_config,
    require_complete,
    resolve_source,
)


def load_packed(
    config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model with its decoder in 4 bit (nf4), which computes in `dtype`.

    Raises:
        UserError: no bitsandbytes or no CUDA; model not found, or not complete.
    """
    require_bitsandbytes(device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=unpacked_modules(family_of(load_model_config(config))),
    )
    with explained(config.path, "its weights"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            resolve_source(config),
            dtype=dtype,
            device_map={"": device},
            quantization_config=quantization,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **attention_options(config),
        )
    model: PreTrainedModel = loaded[0]
    require_complete(config, loaded[1])
    return model


def unpacked_modules(family: Family) -> list[str]:
    """Patterns, as transformers matches them from a module's whole name on, of what is not packed.

    The family's names are those within the base model.
    """
    paths = (family.vision_tower, family.projector, *family.more_projectors)
    return ["lm_head", *(rf"(.*\.)?{re.escape(path)}" for path in paths)]


def require_bitsandbytes(device: torch.device) -> None:
    """Check that a decoder can be packed.

    Raises:
        UserError: without a CUDA device, or without bitsandbytes.
    """
    if device.type != "cuda":
        raise UserError("training.tuning: qlora needs a CUDA device; use `lora`")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("training.tuning: qlora needs bitsandbytes: pip install bitsandbytes")

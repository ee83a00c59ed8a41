"""Writing a clean Hugging Face directory, and proof that it holds the model that was meant.

In: a model and its processor. Out: config, safetensors, tokenizer, processor and chat template, in
a directory that appears only after its logits were compared.

Shape legend: B inputs, L tokens, V vocabulary.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

from prism_tune.chat.templates import add_end_token, find_end_token
from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.models.devices import cast_parameters, name_dtype, set_dtype
from prism_tune.models.load import load_model
from prism_tune.models.processor import image_backend_of, load_processor
from prism_tune.run.folder import write_atomic
from prism_tune.run.writer import scratch_beside

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Largest difference of two logits, in standard deviations of all of them. Merging LoRA in float32
moves them by some 1e-5, a lost weight or one in the wrong place by more than 0.1."""


_QUESTION = "What is shown here?"


def require_vacant(directory: Path) -> None:
    """Check that nothing would be overwritten.

    Raises:
        UserError: the path is a file, a directory with something in it, or the one that the command
            was started in: a finished directory takes its place, and it would be gone.
    """
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise UserError(f"{directory}: is there already; name a new directory with --to")
    if directory.is_dir() and directory.samefile("."):
        raise UserError(f"{directory}: this command was started in it; name a new one with --to")


def write_verified(
    model: PreTrainedModel,
    processor: Any,
    directory: Path,
    *,
    dtype: torch.dtype,
    expected_BLV: Tensor | None = None,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write a model, read it back as its users will, and compare the logits of both in float32.

    Args:
        model: taken over: afterwards it is rounded to `dtype`, and its generation config has the
            end token of the processor's chat template.
        processor: written beside it, and used to make the input.
        directory: where to; must be vacant.
        dtype: of the written weights. Where it rounds, what was written is compared with the
            rounded model, and how far rounding moved the logits is logged.
        expected_BLV: float32 logits of `sample_logits` that the model has to have before rounding;
            None where the model itself is the reference.
        beside: text files that lie in it from the first, by name.

    Raises:
        UserError: the model's logits are not those expected, or the directory's not the model's;
            nothing is left behind then. Somebody else writes there.
    """
    require_vacant(directory)
    add_end_token(model, processor, find_end_token(processor))
    sample = sample_inputs(processor)
    logits_BLV = sample_logits(model, sample)
    if expected_BLV is None:
        expected_BLV = logits_BLV
    _require_equal(logits_BLV, expected_BLV, "the merged model")
    with scratch_beside(directory) as scratch:
        partial = scratch / directory.name
        _write_weights(model, partial, dtype, sample, expected_BLV)
        _write_processor(processor, partial, sample)
        for name, text in (beside or {}).items():
            write_atomic(partial / name, text)
        if directory.is_dir():
            directory.rmdir()
        os.replace(partial, directory)
    logger.info("%s: written in %s and verified", directory, name_dtype(dtype))


def sample_inputs(processor: Any) -> Any:
    """A drawn image and a question, as the processor reads them: a batch of one."""
    return processor(
        images=[[_draw_image()]],
        text=[f"{processor.image_token}\n{_QUESTION}"],
        return_tensors="pt",
    )


@torch.no_grad()
def sample_logits(model: PreTrainedModel, inputs: Any) -> Tensor:
    """The model's logits, in float32, on `sample_inputs`: weights alone are compared by them.

    Returns:
        B x L x V, with B = 1.
    """
    dtype = model.dtype
    model.eval()
    cast_parameters(model, torch.float32)
    logits_BLV: Tensor = model(**inputs.to(model.device)).logits.float().cpu()
    cast_parameters(model, dtype)
    return logits_BLV


def _write_weights(
    model: PreTrainedModel,
    partial: Path,
    dtype: torch.dtype,
    sample: Any,
    expected_BLV: Tensor,
) -> None:
    set_dtype(model, dtype)
    _name_as_published(model)
    model.save_pretrained(partial)
    rounded_BLV = sample_logits(model, sample)
    moved = _difference(rounded_BLV, expected_BLV)
    if moved > _TOLERANCE:
        logger.warning(
            "%s: rounding to %s moves logits by up to %.2g standard deviations",
            partial.name,
            dtype,
            moved,
        )
    # Code of the model's own was trusted when it was loaded; transformers has copied it.
    has_code = type(model).__module__.startswith("transformers_modules.")
    reread = ModelConfig(path=str(partial), trust_remote_code=has_code)
    written = load_model(reread, dtype=torch.float32)
    _require_equal(sample_logits(written, sample), rounded_BLV, "what was written, read back")


def _name_as_published(model: Any) -> None:
    """Have a CLIP or SigLIP written below `vision_model.`, as published models have it.

    transformers does so only where it read them from such a file, not where a model was assembled
    or converted. It reads both; vLLM (0.33) reads no other.
    """
    every = get_model_conversion_mapping(model, add_legacy=False)
    prefixes = [change for change in every if isinstance(change, PrefixChange)]
    own = model._weight_conversions if hasattr(model, "_weight_conversions") else None
    if own is None:  # as `save_pretrained` itself would take them
        own = [change for change in every if change not in prefixes]
    named = {change.scope_prefix for change in own if isinstance(change, PrefixChange)}
    model._weight_conversions = own + [
        change
        for change in prefixes
        if change.prefix_to_remove == "vision_model" and change.scope_prefix not in named
    ]


def _write_processor(processor: Any, partial: Path, sample: Any) -> None:
    """The processor read back, over the same image library, has to make the same tensors."""
    processor.save_pretrained(partial)
    reread = load_processor(
        ModelConfig(
            path=str(partial),
            image_aspect_ratio="processor",
            image_backend=image_backend_of(processor),
        )
    )
    again = sample_inputs(reread)
    for key, value in sample.items():
        if isinstance(value, Tensor) and not torch.equal(value, again[key]):
            raise UserError(
                f"the processor that was written, read back, makes other {key}; nothing was written"
            )


def _require_equal(logits_BLV: Tensor, expected_BLV: Tensor, name: str) -> None:
    if logits_BLV.shape == expected_BLV.shape:
        difference = _difference(logits_BLV, expected_BLV)
        if difference <= _TOLERANCE:
            return
        how = f"logits differ by {difference:.2g} of their standard deviation"
    else:
        how = f"logits have the shape {tuple(logits_BLV.shape)}, not {tuple(expected_BLV.shape)}"
    raise UserError(f"{name} is not the model that was meant: {how}; nothing was written")


def _difference(first: Tensor, second: Tensor) -> float:
    """Of the most different logit; NaN (of a broken model) counts as infinitely far."""
    difference = float((first - second).abs().max() / second.std())
    return difference if np.isfinite(difference) else float("inf")


def _draw_image() -> Image.Image:
    """A picture without symmetry: a gradient in each colour and a dark rectangle."""
    rows, columns = np.mgrid[0:96, 0:128]
    pixels = np.stack([columns * 2, rows * 2, (rows + columns) % 256], axis=-1).astype(np.uint8)
    pixels[20:50, 30:90] = (20, 40, 60)
    return Image.fromarray(pixels)

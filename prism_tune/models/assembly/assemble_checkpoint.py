"""Two checkpoints in, a vision tower and a language model; a LLaVA to be aligned out.

The projector is random: `training.tuning: projector` on captions (template `plain`) aligns it. A
language model whose output layer has a bias (Phi-2) can be made one without, as a LLaVA needs it.

Shape legend: V vocabulary, D width.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prism_tune.chat.builtin_templates import ChatFormat, chat_template
from prism_tune.chat.templates import bare_image
from prism_tune.errors import UserError
from prism_tune.models.assembly.assemble import Recipe, assemble_llava
from prism_tune.models.assembly.read_parts import load_language_model, load_vision_tower
from prism_tune.models.write import require_vacant, write_verified

logger = logging.getLogger(__name__)

_FINAL_NORMS = ("final_layernorm", "norm")


def assemble_checkpoint(
    vision_tower: str,
    language_model: str,
    destination: Path,
    recipe: Recipe,
    *,
    chat_format: ChatFormat | None = None,
    fold_bias: bool = False,
) -> None:
    """Write a LLaVA that plain transformers loads, in the language model's dtype.

    Args:
        vision_tower: directory or hub id of a CLIP, SigLIP or DINOv2.
        language_model: directory or hub id of a causal language model.
        destination: a new directory.
        recipe: how the parts are joined.
        chat_format: of the processor's chat template; None keeps the tokenizer's.
        fold_bias: for a language model whose output layer has a bias (Phi-2), see
            `fold_output_bias`.

    Raises:
        UserError: a part cannot be read or does not fit (see `assemble_llava`), or the written
            model is not the one in memory.
    """
    require_vacant(destination)
    tower = load_vision_tower(vision_tower)
    decoder, tokenizer = load_language_model(language_model)
    if fold_bias:
        fold_output_bias(decoder)
    if chat_format is None and "image" not in str(recipe.chat_template or tokenizer.chat_template):
        logger.warning(
            "%s: its chat template shows no images; --template gives the processor one",
            language_model,
        )
    model, processor = assemble_llava(tower, decoder, tokenizer, recipe)
    if chat_format is not None:
        processor.chat_template = chat_template(chat_format, bare_image(processor))
    write_verified(model, processor, destination, dtype=model.dtype)


@torch.no_grad()
def fold_output_bias(language_model: PreTrainedModel) -> float:
    """Move the bias of the output layer into the bias of the final norm, as far as it goes.

    Logits are W (g x + c) + b with g and c of the final norm. The change d of c that makes W d
    nearest to b (least squares over the vocabulary; a constant added to all logits changes no
    probability and is left out) takes the bias's place. What remains of b is dropped: this is an
    approximation, and the tuning that follows learns from there.

    Returns:
        The share of the bias's variance that was dropped; 0 where there was no bias.

    Raises:
        UserError: the final norm has no bias to take it.
    """
    head: Any = language_model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is None:
        return 0.0
    norm = _final_norm(language_model)
    weight_VD = head.weight.double()
    weight_VD = weight_VD - weight_VD.mean(dim=0)
    bias_V = head.bias.double()
    bias_V = bias_V - bias_V.mean()
    change_D = torch.linalg.lstsq(weight_VD.T @ weight_VD, (weight_VD.T @ bias_V)[:, None])
    shift_D = change_D.solution[:, 0]
    dropped = float((weight_VD @ shift_D - bias_V).var() / bias_V.var().clamp_min(1e-30))
    norm.bias.data += shift_D.to(norm.bias.dtype)
    head.bias = None
    logger.warning(
        "%s: the bias of its output layer is folded into the final norm; %.1f %% of its variance "
        "could not be and is dropped",
        type(language_model).__name__,
        100 * dropped,
    )
    return dropped


def _final_norm(language_model: PreTrainedModel) -> nn.LayerNorm:
    decoder = language_model.base_model
    for name in _FINAL_NORMS:
        norm = getattr(decoder, name, None)
        if isinstance(norm, nn.LayerNorm) and norm.bias is not None:
            return norm
    raise UserError(
        f"{type(language_model).__name__}: its output layer has a bias, and its final norm has "
        "none that could take it"
    )

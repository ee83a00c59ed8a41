"""Two checkpoints in, a vision tower and a language model; a LLaVA to be aligned out.

The projector is random: `training.tuning: projector` on captions (template `plain`) aligns it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from prism_tune.chat.formats import ChatFormat, chat_template
from prism_tune.models.assemble import Recipe, assemble_llava
from prism_tune.models.output_bias import fold_output_bias
from prism_tune.models.read_parts import load_language_model, load_vision_tower
from prism_tune.models.write import require_vacant, write_verified

logger = logging.getLogger(__name__)


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
    if chat_format is not None:
        template = chat_template(chat_format, recipe.image_token)
        recipe = replace(recipe, chat_template=template)
    elif recipe.chat_template is None and "image" not in str(tokenizer.chat_template):
        logger.warning(
            "%s: its chat template shows no images; --template gives the processor one",
            language_model,
        )
    model, processor = assemble_llava(tower, decoder, tokenizer, recipe)
    write_verified(model, processor, destination, dtype=model.dtype)

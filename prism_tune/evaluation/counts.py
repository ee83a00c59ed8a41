"""What answering has gone through: a decoder's batches in; images, tokens and estimated FLOPs out.

FLOPs are 2 for each parameter that a token passes: the decoder's for every token of prompt and
answer, the head's for every new token, the vision side's for every image token. Attention scores
are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from prism_tune.models.families import parts

Counts = dict[str, float]


class ForwardCounter:
    """Counts batches as they are answered; padding is not counted.

    Args:
        model: with its language-modelling head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        found = parts(model)
        embeddings = found.base.get_input_embeddings()
        self._decoder_size = _size([found.language_model]) - _size([embeddings])
        self._head_size = _size([model.get_output_embeddings()])
        self._vision_size = _size([found.vision_tower, found.projector])
        self._image_token_id = found.image_token_id
        self._counts: Counts = {}

    def add(self, inputs: dict[str, Any], *, num_images: int, num_new_tokens: int) -> None:
        """Count a batch: its inputs `input_ids` and `attention_mask` (B, L), and what came out."""
        mask_BL = inputs["attention_mask"].bool()
        num_prompt_tokens = int(mask_BL.sum())
        num_image_tokens = int(((inputs["input_ids"] == self._image_token_id) & mask_BL).sum())
        num_tokens = num_prompt_tokens + num_new_tokens
        flops = 2.0 * (
            self._decoder_size * num_tokens
            + self._head_size * num_new_tokens
            + self._vision_size * num_image_tokens
        )
        self._counts = add_counts(
            self._counts, {"images": num_images, "tokens": num_tokens, "flops": flops}
        )

    def take(self) -> Counts:
        """`images`, `tokens` and `flops` since the last call; empty where nothing was answered."""
        taken, self._counts = self._counts, {}
        return taken


def add_counts(first: Counts, second: Counts) -> Counts:
    """Key by key."""
    return {key: first.get(key, 0) + second.get(key, 0) for key in first | second}


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())

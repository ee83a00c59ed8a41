"""What answering has gone through: a decoder's batches in; images, tokens and estimated FLOPs out.

FLOPs are those of a forward pass (`models/flops.py`): every token of prompt and answer through the
decoder, every new token through the head, every image token through the vision side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from prism_tune.models.families import parts
from prism_tune.models.flops import count_parameters, estimate_flops

Counts = dict[str, float]


class ForwardCounter:
    """Counts batches as they are answered; padding is not counted, what is shared once.

    Args:
        model: with its language-modelling head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        found = parts(model)
        embeddings = found.base.get_input_embeddings()
        self._decoder_size = count_parameters(found.language_model, active=found.active_share)
        self._decoder_size -= count_parameters(embeddings)
        self._head_size = count_parameters(model.get_output_embeddings())
        self._vision_size = count_parameters(found.vision_tower, found.projector)
        self._image_token_id = found.image_token_id
        self._counts: Counts = {}

    def add(self, *inputs: Mapping[str, Any], num_images: int) -> None:
        """Count a batch that was read: its `input_ids` and `attention_mask` (B, L), in parts."""
        num_tokens = num_image_tokens = 0
        for part in filter(None, inputs):
            mask_BL = part["attention_mask"].bool()
            num_tokens += int(mask_BL.sum())
            num_image_tokens += int(((part["input_ids"] == self._image_token_id) & mask_BL).sum())
        flops = estimate_flops(
            (self._decoder_size, num_tokens), (self._vision_size, num_image_tokens)
        )
        self._add({"images": num_images, "tokens": num_tokens, "flops": flops})

    def add_new(self, num_tokens: int) -> None:
        """Count the tokens of answers."""
        flops = estimate_flops((self._decoder_size + self._head_size, num_tokens))
        self._add({"tokens": num_tokens, "flops": flops})

    def _add(self, counts: Counts) -> None:
        self._counts = add_counts(self._counts, counts)

    def take(self) -> Counts:
        """`images`, `tokens` and `flops` since the last call; empty where nothing was answered."""
        taken, self._counts = self._counts, {}
        return taken


def add_counts(first: Counts, second: Counts) -> Counts:
    """Key by key."""
    return {key: first.get(key, 0) + second.get(key, 0) for key in first | second}

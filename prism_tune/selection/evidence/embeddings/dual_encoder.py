"""A CLIP or SigLIP: images and texts in, embeddings of one space out.

Texts are cut at the encoder's own length (77 tokens for CLIP, 64 for SigLIP), their end token kept.

Shape legend: B images or texts of a batch, L tokens, D width of the shared space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel

from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.errors import UserError
from prism_tune.models.damage import explained, reraised_if_damaged
from prism_tune.models.flops import count_parameters, count_patches, estimate_flops
from prism_tune.models.hub import require_here_or_hub
from prism_tune.models.tokenizer import explain_tokenizer
from prism_tune.selection.evidence.encoding import Encoded, unusable
from prism_tune.selection.evidence.runner import Rows

logger = logging.getLogger(__name__)

_FAMILIES = ("clip", "siglip")
_TEXTS_PER_CALL = 1000
_SETTING = "selection.options.model"


class DualEncoder:
    """The encoder at a path or hub id; its weights are loaded when first used.

    Args:
        path: a HF directory or hub id.
        revision: of the hub id.
        dtype: of the weights.
        device: where it runs.

    Raises:
        UserError: none there, or of another family.
    """

    def __init__(
        self, path: str, revision: str | None, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._path, self._revision = path, revision
        self.dtype = dtype
        self._device = device
        require_here_or_hub(path, revision, _SETTING)
        try:
            with reraised_if_damaged(path, _SETTING):
                self.config = AutoConfig.from_pretrained(path, revision=revision)
                self.processor = AutoProcessor.from_pretrained(
                    path, revision=revision, backend="pil"
                )
        except UserError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(
                f"selection.options.model: no CLIP or SigLIP with a processor at {path!r}: "
                f"{explain_tokenizer(error)}"
            ) from error
        if self.config.model_type not in _FAMILIES:
            raise UserError(
                f"selection.options.model: {path} is a {self.config.model_type!r}; expected one of "
                f"{', '.join(_FAMILIES)}"
            )

    @cached_property
    def model(self) -> PreTrainedModel:
        """The weights, in evaluation mode."""
        with explained(self._path, "its weights", _SETTING):
            model: PreTrainedModel = AutoModel.from_pretrained(
                self._path, revision=self._revision, dtype=self.dtype, use_safetensors=True
            )
        nn.Module.to(model, self._device)
        return model.eval()

    @property
    def text_length(self) -> int:
        """In tokens; longer texts are cut."""
        return int(self.config.text_config.max_position_embeddings)

    def count_cut(self, texts: Iterable[str]) -> int:
        """How many texts are longer than that; said in the log."""
        num_cut, num_texts, left = 0, 0, iter(texts)
        while batch := list(islice(left, _TEXTS_PER_CALL)):
            ids = self.processor.tokenizer(batch, verbose=False)
            num_cut += sum(len(of_text) > self.text_length for of_text in ids["input_ids"])
            num_texts += len(batch)
        if num_cut:
            logger.info(
                "texts: %d of %d are longer than %d tokens; what follows counts for nothing",
                num_cut,
                num_texts,
                self.text_length,
            )
        return num_cut

    @property
    def pads_texts(self) -> bool:
        """Whether texts are filled up to `text_length`, without mask, as SigLIP was trained."""
        return bool(self.config.model_type == "siglip")


class ImageDataset(Dataset[Encoded]):
    """Encodes image files."""

    def __init__(self, paths: Sequence[Path], encoder: DualEncoder) -> None:
        self._paths = paths
        self._process = encoder.processor.image_processor
        vision = encoder.config.vision_config
        self._num_patches = (vision.image_size // vision.patch_size) ** 2

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Encoded:
        """One image's `pixel_values`; none, with the reason, where it cannot be read."""
        try:
            image = open_image(self._paths[number])
        except ImageError as error:
            return unusable(error)
        pixels = self._process(images=[image], return_tensors="pt")["pixel_values"]
        return Encoded({"pixel_values": pixels}, torch.ones(self._num_patches), 1)


class TextDataset(Dataset[Encoded]):
    """Encodes texts."""

    def __init__(self, texts: Sequence[str], encoder: DualEncoder) -> None:
        self._texts = texts
        self._tokenizer = encoder.processor.tokenizer
        self._length = encoder.text_length
        self._padding = "max_length" if encoder.pads_texts else False

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, number: int) -> Encoded:
        """One text's `input_ids`."""
        ids = self._tokenizer(
            self._texts[number],
            truncation=True,
            max_length=self._length,
            padding=self._padding,
            return_tensors="pt",
        )["input_ids"][0]
        return Encoded({"input_ids": ids}, torch.ones(len(ids)))


class ImageEncoder:
    """Gives the embedding of every image (a `Runner`)."""

    def __init__(self, encoder: DualEncoder) -> None:
        self.width = embedding_width(encoder)
        self._model: Any = encoder.model
        self.dtype: torch.dtype = encoder.model.dtype
        self._size = count_parameters(self._model.vision_model)

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """A forward pass of the vision tower."""
        config = self._model.config
        patches = sum(count_patches(unit.inputs["pixel_values"], config) for unit in batch)
        return estimate_flops((self._size, patches))

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """(B, D), not normalised."""
        pixels = torch.cat([unit.inputs["pixel_values"] for unit in batch])
        outputs = self._model.get_image_features(
            pixel_values=pixels.to(self._model.device, self._model.dtype)
        )
        return [outputs.pooler_output.float()]


class TextEncoder:
    """Gives the embedding of every text (a `Runner`)."""

    def __init__(self, encoder: DualEncoder) -> None:
        self.width = embedding_width(encoder)
        self._model: Any = encoder.model
        self.dtype: torch.dtype = encoder.model.dtype
        self._masks = not encoder.pads_texts
        self._padding = int(encoder.processor.tokenizer.pad_token_id or 0)
        text_model: Any = encoder.model.text_model
        self._size = count_parameters(text_model.encoder)

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """A forward pass of the text tower."""
        return estimate_flops((self._size, sum(len(unit.pooled_L) for unit in batch)))

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """(B, D), not normalised."""
        ids = [unit.inputs["input_ids"] for unit in batch]
        inputs = {"input_ids": pad_sequence(ids, batch_first=True, padding_value=self._padding)}
        if self._masks:
            ones = [torch.ones_like(one) for one in ids]
            inputs["attention_mask"] = pad_sequence(ones, batch_first=True)
        outputs = self._model.get_text_features(
            **{name: value.to(self._model.device) for name, value in inputs.items()}
        )
        return [outputs.pooler_output.float()]


def embedding_width(encoder: DualEncoder) -> int:
    """Of the shared space."""
    config: Any = encoder.config
    return int(config.vision_config.hidden_size if encoder.pads_texts else config.projection_dim)

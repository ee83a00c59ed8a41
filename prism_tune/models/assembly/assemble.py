"""Assemble a stock LLaVA: a vision tower and a causal language model in, model + processor out.

What leaves is a plain `LlavaForConditionalGeneration` (projector mlp2x_gelu, as in LLaVA-1.5) and
its `LlavaProcessor`; `save_pretrained` of both into one directory makes a checkpoint that plain
transformers loads.

Shape legend: B images, T patch tokens of an image, V vision width, D language-model width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from prism_tune.errors import UserError
from prism_tune.models.tokenizer import prepare_vocabulary

logger = logging.getLogger(__name__)

# Images per forward pass while the projector's statistics are taken.
_IMAGES_PER_BATCH = 32


@dataclass(frozen=True)
class VisionTower:
    """A vision transformer (CLIP, SigLIP, DINOv2, ...) and the pixel statistics it expects."""

    model: PreTrainedModel
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


@dataclass(frozen=True)
class Recipe:
    """How the parts are joined.

    Attributes:
        image_token: re-used where the vocabulary has it, otherwise added.
        feature_layer: which hidden state of the tower is projected; 0 is the patch embedding,
            negative counts from the end (LLaVA-1.5: -2).
        image_size: side of the square input in pixels; None keeps the tower's own. Another size
            needs a tower that interpolates its position embeddings (DINOv2).
        chat_template: of the processor; None keeps the tokenizer's.
    """

    image_token: str = "<image>"
    feature_layer: int = -2
    image_size: int | None = None
    chat_template: str | None = None


@dataclass(frozen=True)
class _Grid:
    """What the tower makes of one image: its size and its tokens, class token and registers too."""

    image_size: int
    patch_size: int
    num_tokens: int
    has_class_token: bool

    @property
    def num_additional(self) -> int:
        """Tokens besides the patches."""
        return self.num_tokens - (self.image_size // self.patch_size) ** 2


def assemble_llava(
    tower: VisionTower,
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Join a vision tower and a causal language model by a randomly initialised projector.

    The parts are taken over, not copied: tower and language model are the assembled model's own
    afterwards, and the projector has the language model's dtype. The tokenizer gets the image
    token and, where padding could not be told from the end of an answer, a pad token of its own.
    For a projector that is useful from the first step see `standardise_projector`.

    Raises:
        UserError: an image size the tower cannot take, a layer it does not have, a tower whose
            tokens are not patches with at most a class token and registers before them, a biased
            output layer, or a language model that nothing can be selected or tuned with.
    """
    grid = _probe_tower(tower.model, recipe)
    head = language_model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise UserError(
            f"{type(language_model).__name__}: a LLaVA needs a causal language model whose output "
            "layer has no bias"
        )
    image_token_id = prepare_vocabulary(language_model, tokenizer, recipe.image_token)
    config = LlavaConfig(
        vision_config=tower.model.config,
        text_config=language_model.config,
        image_token_index=image_token_id,
        image_seq_length=grid.num_tokens - int(grid.has_class_token),
        vision_feature_layer=recipe.feature_layer,
        vision_feature_select_strategy="default" if grid.has_class_token else "full",
        tie_word_embeddings=language_model.config.tie_word_embeddings,
        dtype=language_model.dtype,
    )
    model = _join(config, tower.model, language_model)
    return model.eval(), _build_processor(tower, tokenizer, recipe, grid)


@torch.no_grad()
def standardise_projector(
    model: LlavaForConditionalGeneration, pixel_values_BCHW: Tensor, *, seed: int = 0
) -> None:
    """Initialise the projector from data, so that image tokens differ from image to image.

    With h the tower's features of the given images and mu, sigma their mean and standard deviation
    per dimension (over images and patches), the projector becomes

        z(h) = W1 (h - mu) / sigma,      W1 ~ N(0, 1/V)
        p(h) = s W2 gelu(z(h)) - b,      W2 ~ N(0, 1/D)

    where b makes the mean output zero and s makes its standard deviation per dimension, on
    average, that of the language model's token embeddings. Standardisation is folded into linear_1
    (weight W1 / sigma, bias -W1 mu / sigma), so the architecture stays LLaVA's.

    Why: a vision transformer's features are dominated by a few dimensions with a large constant
    part. Through a default initialisation every image then yields nearly the same tokens, of a
    scale foreign to the language model; a short tuning never recovers from it and answers blindly.
    In the spirit of data-dependent initialisation (Krähenbühl et al., arXiv 1511.06856).

    Args:
        model: its projector is overwritten, its other parts only read.
        pixel_values_BCHW: processed images like those it will see; some 100 suffice.
        seed: of the random weights.
    """
    features_NV = _tower_features(model, pixel_values_BCHW).flatten(0, 1).float()
    embeddings = cast(nn.Embedding, model.get_input_embeddings()).weight.float()
    projector = LlavaMultiModalProjector(model.config).to(features_NV.device)
    generator = torch.Generator().manual_seed(seed)
    for linear in (projector.linear_1, projector.linear_2):
        weight = torch.randn(linear.weight.shape, generator=generator) * linear.in_features**-0.5
        linear.weight.copy_(weight)
        _zero_bias(linear)
    mean_V, std_V = features_NV.mean(0), features_NV.std(0)
    # A dimension that never varies carries nothing: after centring it is zero, whatever its scale.
    std_V = torch.where(std_V > 1e-6 * (std_V.max() + mean_V.abs()), std_V, torch.inf)
    projector.linear_1.weight.div_(std_V)
    _set_bias(projector.linear_1, -projector.linear_1.weight @ mean_V)
    scale = embeddings.std() / projector(features_NV).std(0).mean()
    projector.linear_2.weight.mul_(scale)
    _set_bias(projector.linear_2, -projector(features_NV).mean(0))
    model.model.multi_modal_projector.load_state_dict(projector.state_dict())


def _probe_tower(tower: PreTrainedModel, recipe: Recipe) -> _Grid:
    """Send one blank image through the tower: the only sure way to know its tokens."""
    name = type(tower).__name__
    if tower.config.model_type == "siglip2_vision_model":
        raise UserError(
            f"{name}: images of any size (NaFlex), and a LLaVA's have one; take a SigLIP 2 of a "
            "fixed size (its model type is siglip)"
        )
    own_size = getattr(tower.config, "image_size", None)
    patch_size = getattr(tower.config, "patch_size", None)
    image_size = recipe.image_size or own_size
    if not isinstance(image_size, int) or not isinstance(patch_size, int):
        raise UserError(
            f"{name}: expected a vision transformer with square images and patches, "
            f"not image_size={own_size}, patch_size={patch_size}"
        )
    blank = torch.zeros(1, tower.config.num_channels, image_size, image_size)
    try:
        with torch.no_grad():
            output = tower(blank.to(tower.device, tower.dtype), output_hidden_states=True)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot take images of {image_size} px (its own size: {own_size}): {error}"
        ) from error
    num_states = len(output.hidden_states)
    if not -num_states <= recipe.feature_layer < num_states:
        raise UserError(
            f"feature_layer={recipe.feature_layer}: {name} has the hidden states "
            f"{-num_states} to {num_states - 1}"
        )
    num_patches = (image_size // patch_size) ** 2
    num_tokens = output.hidden_states[recipe.feature_layer].shape[1]
    num_registers = int(getattr(tower.config, "num_register_tokens", 0))
    if num_tokens - num_patches not in {0, 1, 1 + num_registers}:
        raise UserError(
            f"{name}: {num_tokens} tokens for {num_patches} patches; LLaVA can drop one class "
            "token, keep registers behind it, and nothing else"
        )
    if num_tokens - num_patches > 1:
        logger.warning(
            "%s: a LLaVA drops the class token alone: its %d register tokens stand before the "
            "patches of each image",
            name,
            num_registers,
        )
    return _Grid(image_size, patch_size, num_tokens, num_tokens > num_patches)


def _join(
    config: LlavaConfig, tower: nn.Module, language_model: PreTrainedModel
) -> LlavaForConditionalGeneration:
    with torch.device("meta"):  # a frame without memory: every part is put in below
        model = LlavaForConditionalGeneration(config)
    decoder = language_model.base_model
    for part, expected in (
        (tower, model.model.vision_tower),
        (decoder, model.model.language_model),
    ):
        if type(part) is not type(expected):
            raise UserError(
                f"{type(part).__name__}: transformers would load it as {type(expected).__name__}; "
                "pass the plain vision tower and causal language model"
            )
    projector = LlavaMultiModalProjector(config)
    model.model.vision_tower = tower.to(language_model.dtype)
    model.model.multi_modal_projector = projector.to(language_model.device, language_model.dtype)
    model.model.language_model = decoder
    model.lm_head = language_model.get_output_embeddings()
    model.generation_config = language_model.generation_config
    return model


def _build_processor(
    tower: VisionTower, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, grid: _Grid
) -> LlavaProcessor:
    """LLaVA-1.5's preprocessing: pad to a square with the mean colour, then resize."""
    image_processor = LlavaImageProcessorPil(
        do_pad=True,
        size={"shortest_edge": grid.image_size},
        crop_size={"height": grid.image_size, "width": grid.image_size},
        image_mean=list(tower.image_mean),
        image_std=list(tower.image_std),
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=grid.patch_size,
        vision_feature_select_strategy="default" if grid.has_class_token else "full",
        num_additional_image_tokens=grid.num_additional,
        image_token=recipe.image_token,
        chat_template=recipe.chat_template or tokenizer.chat_template,
    )


def _tower_features(model: LlavaForConditionalGeneration, pixel_values_BCHW: Tensor) -> Tensor:
    """The features that reach the projector, (B, T, V)."""
    config, tower = model.config, model.model.vision_tower
    first_patch = 1 if config.vision_feature_select_strategy == "default" else 0
    features = []
    for pixels in pixel_values_BCHW.split(_IMAGES_PER_BATCH):
        output = tower(pixels.to(tower.device, tower.dtype), output_hidden_states=True)
        features.append(output.hidden_states[config.vision_feature_layer][:, first_patch:])
    return torch.cat(features)


def _zero_bias(linear: nn.Linear) -> None:
    if linear.bias is not None:
        linear.bias.zero_()


def _set_bias(linear: nn.Linear, bias: Tensor) -> None:
    if linear.bias is not None:
        linear.bias.copy_(bias)

"""Loading the processor of a target model, with LLaVA's own image protocol where it applies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from transformers import AutoProcessor, LlavaProcessor, PretrainedConfig, ProcessorMixin

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.models.families import family_of, image_token_id
from prism_tune.models.load import check_model, load_model_config


def load_processor(config: ModelConfig) -> ProcessorMixin:
    """The model's own processor; images are padded to square where the config asks for it.

    LLaVA-1.5 was trained on images padded to a square with the mean colour (official
    `image_aspect_ratio: pad`), but the published processors centre-crop: `do_pad` is off, or the
    class does not know it. With `image_aspect_ratio: pad` it is switched on; `processor` leaves
    everything as published.

    Raises:
        UserError: no model directory, or no processor in it.
    """
    check_model(config)
    model_config = _read_config(config)
    options: dict[str, object] = {}
    if importlib.util.find_spec("torchvision") is None:
        options["backend"] = "pil"
    try:
        processor = AutoProcessor.from_pretrained(
            config.path,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            **options,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"model.path: {config.path} has no usable processor: {error}") from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and tokenizer.is_fast:
        # The image processor's backend has gone to the tokenizer as well, and would be saved there:
        # transformers then takes it for a slow one, and finds no answers in a chat template.
        tokenizer.backend = tokenizer.init_kwargs["backend"] = "tokenizers"
    if isinstance(processor, LlavaProcessor):
        _complete_llava(processor, config)
        if config.image_aspect_ratio == "pad":
            _pad_to_square(processor)
    if model_config is not None:
        _name_image_token(processor, image_token_id(model_config), config)
    return processor


def _name_image_token(processor: ProcessorMixin, token_id: int, config: ModelConfig) -> None:
    """Let the processor say what the model's config calls an image token.

    Gemma 3's own `image_token_id` is the token that stands before an image's.

    Raises:
        UserError: it writes other tokens for an image.
    """
    written = [known for known in processor.image_token_ids if known is not None]
    if written and token_id not in written:
        raise UserError(
            f"model.path: {config.path}: the processor writes the tokens {written} for an image, "
            f"and config.json calls {token_id} the image token: the processor is another model's"
        )
    processor.image_token_id = token_id  # type: ignore[attr-defined]


def _read_config(config: ModelConfig) -> PretrainedConfig | None:
    """The model's config, of a family that is supported; None for an adapter's directory."""
    local = Path(config.path)
    if local.is_dir() and not (local / "config.json").exists():
        return None
    model_config = load_model_config(config)
    family_of(model_config)
    return model_config


def _complete_llava(processor: LlavaProcessor, config: ModelConfig) -> None:
    """Fill what old checkpoints leave out, and the image-token count depends on."""
    if processor.patch_size is not None and processor.vision_feature_select_strategy is not None:
        return  # an adapter's directory has a complete processor, but no config of the model
    model_config = load_model_config(config)
    if processor.patch_size is None:
        processor.patch_size = model_config.vision_config.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = model_config.vision_feature_select_strategy
        has_class_token = "siglip" not in model_config.vision_config.model_type
        processor.num_additional_image_tokens = int(has_class_token)


def _pad_to_square(processor: LlavaProcessor) -> None:
    image_processor = processor.image_processor
    if not hasattr(image_processor, "do_pad"):
        from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

        settings = image_processor.to_dict()
        settings.pop("image_processor_type", None)
        processor.image_processor = LlavaImageProcessorPil(**settings)
    processor.image_processor.do_pad = True

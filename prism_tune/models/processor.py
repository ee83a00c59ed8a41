"""Loading the processor of a target model, with LLaVA's own image protocol where it applies.

And `model.template: auto`, which becomes the name of a template that the processor can be asked in.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PretrainedConfig,
    ProcessorMixin,
)
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

from prism_tune.chat.templates import (
    check_end_token,
    find_end_token,
    find_written_end,
    has_chat_template,
    list_templates,
    speaks_vicuna,
)
from prism_tune.config.sections import Config, ImageBackend, ModelConfig, Template
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.adapters import name_base
from prism_tune.models.damage import reraised_if_damaged
from prism_tune.models.families import family_of, image_token_id
from prism_tune.models.hub import check_model
from prism_tune.models.load import load_model_config
from prism_tune.models.tokenizer import explain_tokenizer, load_tokenizer
from prism_tune.processes import is_main

logger = logging.getLogger(__name__)


def load_processor(config: ModelConfig) -> ProcessorMixin:
    """The model's own processor; images are padded to square where the config asks for it.

    LLaVA-1.5 was trained on images padded to a square with the mean colour (official
    `image_aspect_ratio: pad`), but the published processors centre-crop: `do_pad` is off, or the
    class does not know it. With `image_aspect_ratio: pad` it is switched on; with `crop` off, as
    LLaVA's own alignment stage has it; `processor` leaves everything as published.

    Raises:
        UserError: no model directory, or no processor in it.
    """
    check_model(config)
    model_config = _read_config(config)
    backend = config.image_backend
    if backend == "torchvision" and importlib.util.find_spec("torchvision") is None:
        raise ConfigError(
            "model.image_backend: torchvision is not installed: pip install torchvision, of the "
            "version made for this torch; or leave it at `pil`"
        )
    try:
        with reraised_if_damaged(config.path):
            processor = _read_processor(config)
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        reason = _explain(error)
        raise UserError(f"model.path: {config.path} has no usable processor: {reason}") from error
    if not isinstance(processor, ProcessorMixin):  # what is there of one, when the rest is not
        found = type(processor).__name__
        raise UserError(
            f"model.path: {config.path} has no usable processor: only a {found} is there, and "
            "images take an image processor and a tokenizer together"
        )
    _require_backend(processor, config)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and tokenizer.is_fast:
        # The image processor's backend has gone to the tokenizer as well, and would be saved there:
        # transformers then takes it for a slow one, and finds no answers in a chat template.
        tokenizer.backend = tokenizer.init_kwargs["backend"] = "tokenizers"
    if isinstance(processor, LlavaProcessor | LlavaNextProcessor):
        _complete_llava(processor, config, model_config)
    if isinstance(processor, LlavaProcessor) and config.image_aspect_ratio != "processor":
        _set_padding(processor, config.image_aspect_ratio == "pad", backend)
    if model_config is not None:
        _name_image_token(processor, image_token_id(model_config), config)
    return processor


def _explain(error: Exception) -> str:
    said = explain_tokenizer(error).strip()
    if "requires the Torchvision library" not in said:
        return said
    return (
        f"{said.split()[0]} needs torchvision: pip install torchvision, from where torch came; "
        "`prism-tune doctor` names the families"
    )


def _read_processor(config: ModelConfig) -> Any:
    """As published, with the image processor of the backend that the config asks for."""
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    backend = config.image_backend
    try:
        return AutoProcessor.from_pretrained(config.path, **options, backend=backend)
    except ImportError as error:
        if "Video processor" not in str(error):
            raise
    # The backend is asked of the video processor as well, and videos have torchvision's alone.
    processor = AutoProcessor.from_pretrained(config.path, **options)
    processor.image_processor = AutoImageProcessor.from_pretrained(
        config.path, **options, backend=backend
    )
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


def load_model_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer, also of a directory that has nothing else.

    Raises:
        UserError: none there.
    """
    try:
        return load_processor(config).tokenizer
    except UserError:
        check_model(config)
    return load_tokenizer(config.path, config.revision, trust_remote_code=config.trust_remote_code)


def _read_config(config: ModelConfig) -> PretrainedConfig | None:
    """The model's config, of a family that is supported; None for an adapter's directory."""
    local = Path(config.path)
    if local.is_dir() and not (local / "config.json").exists():
        return None
    model_config = load_model_config(config)
    family_of(model_config)
    return model_config


def _complete_llava(
    processor: LlavaProcessor | LlavaNextProcessor,
    config: ModelConfig,
    model_config: PretrainedConfig | None,
) -> None:
    """Fill what old checkpoints leave out, and the image-token count depends on.

    transformers 4.45 to 4.47 saved all but how many tokens the tower has beside the patches.
    """
    strategy, patch_size = processor.vision_feature_select_strategy, processor.patch_size
    if model_config is None:
        if patch_size is not None and strategy is not None:
            return  # an adapter's directory has a complete processor, but no config of the model
        model_config = load_model_config(config)
    if patch_size is None:
        processor.patch_size = model_config.vision_config.patch_size
    if strategy is None:
        # ViP-LLaVA's config has no word for it, and its code drops the class token.
        strategy = getattr(model_config, "vision_feature_select_strategy", "default")
        processor.vision_feature_select_strategy = strategy
    elif strategy != "default" or processor.num_additional_image_tokens:
        return
    has_class_token = "siglip" not in model_config.vision_config.model_type
    processor.num_additional_image_tokens = int(has_class_token)


def image_backend_of(processor: Any) -> ImageBackend:
    """Which library a processor's images go through."""
    bases = type(getattr(processor, "image_processor", None)).__mro__
    return "torchvision" if any(b.__name__ == "TorchvisionBackend" for b in bases) else "pil"


def _require_backend(processor: ProcessorMixin, config: ModelConfig) -> None:
    """Where a class of the backend asked for is missing, transformers takes another."""
    found = image_backend_of(processor)
    if found != config.image_backend:
        name = type(processor.image_processor).__name__
        raise UserError(
            f"model.image_backend: {config.image_backend}, but of {config.path} there is only "
            f"{name}, which is {found}'s; set model.image_backend={found}"
        )


def _set_padding(processor: LlavaProcessor, pads: bool, backend: ImageBackend) -> None:
    image_processor = processor.image_processor
    if not hasattr(image_processor, "do_pad"):
        settings = image_processor.to_dict()
        settings.pop("image_processor_type", None)
        name = "LlavaImageProcessor" + ("Pil" if backend == "pil" else "")
        image_class: Any = get_image_processor_class_from_name(name)
        processor.image_processor = image_class(**settings)
    processor.image_processor.do_pad = pads


def resolve_template(config: Config) -> Config:
    """The config with its template's name, checked to end answers, before anything is touched.

    `auto` is LLaVA's own `vicuna_v1` where the model is LLaVA-1.5 or made like it, whose published
    chat template writes no end token, and the processor's own chat template for every other model.

    Raises:
        ConfigError: `auto`, and the model has no chat template.
        UserError: no processor; nothing would let the model learn to stop.
    """
    if config.model.template not in ("auto", "processor"):
        return config
    base = name_base(config.model)
    processor = load_processor(base)
    chosen: Template = "processor"
    why = "its own chat template"
    if config.model.template == "auto":
        if speaks_vicuna(processor, load_model_config(base).model_type):
            chosen, why = "vicuna_v1", "asked as LLaVA-1.5 is"
        elif not has_chat_template(processor):
            raise ConfigError(
                f"model.template: auto finds no chat template in {base.path}; {list_templates()}"
            )
    check_end_token(chosen, processor)
    if chosen == "processor" and not find_written_end(processor):
        why += f", which ends no answer: the tokenizer's {find_end_token(processor)} does"
    if is_main():
        logger.info("model.template: %s (%s: %s)", chosen, base.path, why)
    return config.model_copy(update={"model": config.model.model_copy(update={"template": chosen})})

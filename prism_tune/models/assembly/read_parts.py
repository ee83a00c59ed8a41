"""Reading the parts a LLaVA is assembled from: a vision tower, a causal language model.

In: a local directory or hub id. Out: the plain modules, complete or not at all. Weights are read
from safetensors, or from torch files without executing anything in them (`weights_only`).
"""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from prism_tune.errors import UserError
from prism_tune.models.assembly.assemble import VisionTower
from prism_tune.models.damage import explained, reraised_if_damaged
from prism_tune.models.hub import require_here_or_hub
from prism_tune.models.load import without_load_report
from prism_tune.models.tokenizer import load_tokenizer


def load_vision_tower(path: str) -> VisionTower:
    """A vision transformer; of a CLIP or SigLIP pair, the image half.

    Args:
        path: a directory or hub id with `preprocessor_config.json`, whose mean and standard
            deviation the images will be normalised with.

    Raises:
        UserError: not reachable, no weights for a part of it, or no pixel statistics.
    """
    config = _read_config(path)
    vision_config = getattr(config, "vision_config", config)
    try:
        tower_class = MODEL_MAPPING[type(vision_config)]
    except KeyError as error:
        raise UserError(f"{path}: {config.model_type} has no vision tower") from error
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path)
        mean, std = (tuple(settings[key]) for key in ("image_mean", "image_std"))
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path}: expected a preprocessor_config.json with image_mean and image_std: {error}"
        ) from error
    return VisionTower(read_complete(tower_class, path), mean, std)


def load_language_model(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model, in the dtype of its checkpoint, and its tokenizer.

    Raises:
        UserError: not reachable, not a causal language model, or no weights for a part of it.
    """
    _read_config(path)
    return read_complete(AutoModelForCausalLM, path), load_tokenizer(path)


def read_complete(
    auto_class: Any, path: str, *, config: PretrainedConfig | None = None
) -> PreTrainedModel:
    """`from_pretrained` that refuses what transformers only warns of: weights left random.

    Raises:
        UserError: not readable, or weights missing or of another shape than the config says.
    """
    options = {} if config is None else {"config": config}
    with without_load_report(), explained(path, f"its {auto_class.__name__}", ""):
        model, report = auto_class.from_pretrained(
            path, dtype="auto", output_loading_info=True, **options
        )
    faults = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if faults:
        raise UserError(
            f"{path}: {len(faults)} weights of {type(model).__name__} are missing or of another "
            f"shape: {', '.join(faults[:5])}"
        )
    evaluated: PreTrainedModel = model.eval()
    return evaluated.requires_grad_(True)


def _read_config(path: str) -> PretrainedConfig:
    require_here_or_hub(path, None)
    try:
        with reraised_if_damaged(path, ""):
            return AutoConfig.from_pretrained(path)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path!r} is neither a directory with a HF checkpoint nor a hub id that can be "
            f"reached: {error}"
        ) from error

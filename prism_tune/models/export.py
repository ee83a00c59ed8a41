"""Any checkpoint in, a clean Hugging Face directory out, verified by its logits.

A LoRA checkpoint is merged into its base model, full weights are written in the published layout,
and a checkpoint of the original LLaVA code is converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from prism_tune.chat.templates import add_end_token, end_token
from prism_tune.config.load import RECORD_NAME, read_recorded_model
from prism_tune.config.sections import DType, ModelConfig
from prism_tune.errors import UserError
from prism_tune.models.adapters import ADAPTER_CONFIG, name_base, require_base
from prism_tune.models.assembly.convert_original import convert_original, is_original
from prism_tune.models.damage import explained
from prism_tune.models.devices import stored_dtypes
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.models.write import require_vacant, sample_inputs, sample_logits, write_verified
from prism_tune.run.folder import RunDir

_HERE = {"revision": None, "attn_implementation": None}
"""What a run's config says of a model elsewhere, and of the machine that it was tuned on."""


@dataclass(frozen=True)
class ExportOptions:
    """What the checkpoint cannot say itself.

    Attributes:
        dtype: of the written weights. `auto` never rounds: full weights keep theirs, a merged model
            is float32.
        base_model: in place of the base model that an adapter names; for a pretrained projector of
            the original layout, the language model it was trained with.
        vision_tower: in place of the one that a checkpoint of the original layout names.
        trust_remote_code: let code run that came with the model; no record beside a checkpoint can
            say so.
    """

    dtype: DType = "auto"
    base_model: str | None = None
    vision_tower: str | None = None
    trust_remote_code: bool = False


def export(
    source: Path,
    destination: Path,
    options: ExportOptions = ExportOptions(),
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write a clean directory that plain transformers loads.

    Args:
        source: a run folder (its final checkpoint is taken), a checkpoint, or a directory in the
            original LLaVA layout.
        destination: a new directory.
        options: see there.
        beside: text files that go into it, by name.

    Raises:
        UserError: not a checkpoint, its base model is missing, the destination is taken, or the
            written model's logits are not those of the checkpoint.
    """
    require_vacant(destination)
    checkpoint = _find_checkpoint(source)
    expected = None
    model: PreTrainedModel
    if is_original(checkpoint):
        model, processor = convert_original(
            checkpoint, vision_tower=options.vision_tower, language_model=options.base_model
        )
        dtype = model.dtype
    elif (checkpoint / ADAPTER_CONFIG).exists():
        adapted, processor = _load_adapted(checkpoint, options)
        with explained(checkpoint, "its adapter", "adapter"):
            expected = sample_logits(adapted, sample_inputs(processor))
            model = adapted.merge_and_unload(safe_merge=True)
        dtype = torch.float32
    else:
        model, processor = _load_full(checkpoint, options)
        dtype = _stored_dtype(checkpoint)
    add_end_token(model, processor, _learnt_end(checkpoint, processor))
    if options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
    write_verified(model, processor, destination, dtype=dtype, expected_BLV=expected, beside=beside)


def _learnt_end(checkpoint: Path, processor: Any) -> str | None:
    """What the model was taught to end answers with, where our config beside it says so."""
    if not (checkpoint / RECORD_NAME).exists():
        return None
    template = read_recorded_model(checkpoint / RECORD_NAME).template
    return None if template == "auto" else end_token(template, processor)


def _find_checkpoint(source: Path) -> Path:
    final = RunDir(source).checkpoint
    if final.is_dir():
        return final
    if any((source / name).exists() for name in ("config.json", ADAPTER_CONFIG)):
        return source
    raise UserError(
        f"{source}: expected a run folder with a finished training (training/final/), or a "
        f"directory with config.json or {ADAPTER_CONFIG}"
    )


def _load_adapted(checkpoint: Path, options: ExportOptions) -> tuple[Any, Any]:
    """The adapter over its base model, in float32 and not merged."""
    config = _base_config(checkpoint, options)
    require_base(checkpoint, config)
    base = load_model(config, dtype=torch.float32)
    with explained(checkpoint, "its adapter", "adapter"):
        adapted = PeftModel.from_pretrained(base, str(checkpoint)).eval()
    if not (checkpoint / "processor_config.json").exists():
        return adapted, load_processor(config)
    return adapted, load_processor(_own_config(checkpoint, options))


def _base_config(checkpoint: Path, options: ExportOptions) -> ModelConfig:
    """The model that the adapter names, or the one given; read as our config beside it says."""
    path = str(checkpoint) if options.base_model is None else options.base_model
    own = _read_config(checkpoint, options)
    return name_base(own.model_copy(update={"path": path, **_HERE}))


def _read_config(checkpoint: Path, options: ExportOptions) -> ModelConfig:
    """As our config beside it says, else the defaults; code is trusted where the options say so."""
    recorded = ModelConfig(path=str(checkpoint))
    if (checkpoint / RECORD_NAME).exists():
        recorded = read_recorded_model(checkpoint / RECORD_NAME)
    return recorded.model_copy(update={"trust_remote_code": options.trust_remote_code})


def _own_config(checkpoint: Path, options: ExportOptions) -> ModelConfig:
    """Of the checkpoint itself: its processor as it was saved, over the library of the run."""
    own = _read_config(checkpoint, options)
    here = {"path": str(checkpoint), **_HERE, "image_aspect_ratio": "processor"}
    return own.model_copy(update=here)


def _load_full(checkpoint: Path, options: ExportOptions) -> tuple[PreTrainedModel, Any]:
    config = _own_config(checkpoint, options)
    return load_model(config, dtype=torch.float32), load_processor(config)


def _stored_dtype(checkpoint: Path) -> torch.dtype:
    """The smallest type that holds every stored weight exactly."""
    stored = stored_dtypes(checkpoint)
    if stored == {torch.bfloat16}:
        return torch.bfloat16
    return torch.float16 if stored == {torch.float16} else torch.float32

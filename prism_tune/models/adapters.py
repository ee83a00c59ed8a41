"""Adapter directories: which base model one belongs to. A config's model in, the base out."""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.run.folder import read_json

ADAPTER_CONFIG = "adapter_config.json"


def name_base(config: ModelConfig) -> ModelConfig:
    """The model to load weights and processor of: where `model.path` is an adapter, its base.

    An adapter directory names its base in `adapter_config.json`; everything else in the config
    (dtype, template) stays.

    Raises:
        UserError: the adapter names none, or a directory that is not there.
    """
    adapter = Path(config.path) / ADAPTER_CONFIG
    if not adapter.exists():
        return config
    settings = read_json(adapter)
    base = settings.get("base_model_name_or_path")
    if not base:
        raise UserError(f"{adapter}: base_model_name_or_path: missing; expected the base model")
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise UserError(
            f"{adapter}: base_model_name_or_path: no such directory {base}; set it to where the "
            "base model lies now"
        )
    return config.model_copy(update={"path": base, "revision": settings.get("revision")})

"""The model that evidence is read from: the target, or what `selection.reference` names instead.

A config goes in; one with the reference's model in the target's place comes out, whose
`selection.reference.adapter` is the LoRA to be read with it. Stores, processors and loaders see
that config alone, so evidence of a reference never meets the target's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prism_tune.config.sections import Config, ReferenceConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.adapters import ADAPTER_CONFIG, name_base, require_base
from prism_tune.models.checkpoint import load_shallow_tuned, load_tuned, load_unmerged
from prism_tune.models.devices import cast_parameters
from prism_tune.models.hub import check_model
from prism_tune.models.processor import resolve_template
from prism_tune.run.fingerprints import fingerprint_model


def read_config(config: Config, adapter: Path | None = None) -> Config:
    """The config that evidence is read with.

    Args:
        config: of the selection, `model.template` resolved.
        adapter: of a warm-up that has been trained.

    Raises:
        ConfigError: a reference that cannot be: both an adapter and a warm-up, no such model, no
            adapter, one of another model, or one on a model that is an adapter itself.
    """
    asked = config.selection.reference
    if asked is None:
        return config
    check_reference(asked)
    config = _replace_model(config, asked)
    given = Path(asked.adapter) if asked.adapter is not None else adapter
    base = name_base(config.model)
    if base is not config.model:  # the model is itself an adapter's directory
        if asked.adapter is not None or asked.warmup is not None:
            raise ConfigError(
                f"selection.reference: {config.model.path} is a LoRA itself, which another one "
                "cannot be trained or read on top of: merge it (`prism-tune export`), or name its "
                "base as selection.reference.model"
            )
        given = Path(config.model.path)
        config = config.model_copy(update={"model": base})
    config = resolve_template(config)
    if given is not None:
        _require_adapter(given, config)
    named = asked.model_copy(update={"adapter": None if given is None else str(given)})
    selection = config.selection.model_copy(update={"reference": named})
    return config.model_copy(update={"selection": selection})


def check_reference(asked: ReferenceConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        ConfigError: both an adapter and a warm-up, or a model that is not there.
    """
    if asked.adapter is not None and asked.warmup is not None:
        raise ConfigError(
            "selection.reference: `adapter` is a LoRA that is there, `warmup` one that is trained "
            "first; leave one of them out"
        )
    if asked.revision is not None and asked.model is None:
        raise ConfigError("selection.reference.revision: of which model? name it in `model`")


def adapter_of(config: Config) -> Path | None:
    """The LoRA that evidence is read with, of a config that `read_config` gave."""
    reference = config.selection.reference
    return None if reference is None or reference.adapter is None else Path(reference.adapter)


def fingerprint_read(config: Config) -> dict[str, Any]:
    """What the rows of a config that `read_config` gave depend on: model, and adapter if any."""
    adapter = adapter_of(config)
    model = {"model": fingerprint_model(config.model.path, config.model.revision)}
    return model if adapter is None else {**model, "adapter": fingerprint_model(str(adapter), None)}


def load_model(config: Config, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The whole model that evidence is read from, its adapter merged."""
    return load_tuned(config, adapter_of(config), dtype=dtype, device=device)


def load_adapted(config: Config, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """As `load_model`, with the matrices of its adapter beside the weights they belong to."""
    adapter = adapter_of(config)
    if adapter is None:
        return load_tuned(config, None, dtype=dtype, device=device)
    adapted = load_unmerged(config, adapter, dtype=dtype, device=device)
    cast_parameters(adapted, dtype)
    model: Any = adapted.get_base_model()
    tuned: PreTrainedModel = model.eval()
    return tuned


def load_shallow(
    config: Config, num_layers: int, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Its first layers, as `models.load.load_shallow` gives them."""
    return load_shallow_tuned(config, adapter_of(config), num_layers, dtype=dtype, device=device)


def _replace_model(config: Config, asked: ReferenceConfig) -> Config:
    if asked.model is None:
        return config
    update = {"path": asked.model, "revision": asked.revision, "template": asked.template}
    model = config.model.model_copy(update=update)
    try:
        check_model(model)
    except UserError as error:
        said = str(error).removeprefix("model.path: ")
        raise ConfigError(f"selection.reference.model: {said}") from error
    return config.model_copy(update={"model": model})


def _require_adapter(adapter: Path, config: Config) -> None:
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            f"selection.reference.adapter: {adapter}: no {ADAPTER_CONFIG}; expected a local "
            "directory that peft wrote (a whole model goes under selection.reference.model)"
        )
    require_base(adapter, config.model)

"""Loading a target model and its processor with the Auto classes of transformers.

`load_model` gives the whole model, `load_shallow` the vision tower, projector and first k decoder
layers only: checkpoint shards that hold nothing but deeper layers are neither downloaded nor read.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import logging as hf_logging

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.models.damage import explained, require_converted, require_parts
from prism_tune.models.devices import PLAIN_DTYPES, set_dtype, stored_dtypes
from prism_tune.models.families import FINAL_NORMS, final_norm, parts
from prism_tune.models.hub import check_model, describe_unreachable

_INDEX = "model.safetensors.index.json"
_DECODER_LAYER = re.compile(r"\blayers\.(\d+)\.")
_FINAL_NORM = re.compile(rf"(^|\.)({'|'.join(FINAL_NORMS)})\.(weight|bias)$")
_HEAD = re.compile(r"(^|\.)lm_head\.")
_BEFORE_DECODER = re.compile(r"vis(ion|ual)|projector|connector")


def load_model(
    config: ModelConfig, *, dtype: torch.dtype, device: torch.device | None = None
) -> PreTrainedModel:
    """The whole model, with its language-modelling head, in evaluation mode.

    Raises:
        UserError: not a model directory or hub id, or not reachable.
    """
    model, report = _read_weights(
        AutoModelForImageTextToText, resolve_source(config), dtype, config
    )
    parts(model)
    require_complete(config, report)
    return _place(model, device, dtype)


def load_shallow(
    config: ModelConfig,
    num_layers: int,
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """The base model up to decoder layer `num_layers`: its output is `hidden_states[num_layers]`.

    With fewer layers than the model has, the final norm is replaced by the identity, because
    `hidden_states[k]` is before the norm for k < L and after it for k = L. No head, no dropout.

    Raises:
        UserError: the model has fewer than `num_layers` decoder layers.
    """
    model_config = load_model_config(config)
    text_config = model_config.get_text_config()
    depth = text_config.num_hidden_layers
    if num_layers > depth:
        raise UserError(
            f"selection.layer: {num_layers} asked, but {config.path} has {depth} decoder layers"
        )
    truncate_config(text_config, num_layers)
    with tempfile.TemporaryDirectory(prefix="prism_tune-shallow-") as folder:
        kept_layers = num_layers if num_layers < depth else None
        whole = resolve_source(config, kept_layers)
        with explained(whole, "its weights"):
            source = _shallow_view(whole, kept_layers, Path(folder))
        with without_load_report():
            model, report = _read_weights(
                AutoModel, source, dtype, config, architecture=model_config
            )
    found = parts(model)
    norm = final_norm(found.language_model)
    left_out = f"{found.names['language_model'][0]}.{norm}." if num_layers < depth else None
    require_complete(config, report, allowed=left_out)
    if num_layers < depth:
        setattr(found.language_model, norm, nn.Identity())
    return _place(model, device, dtype)


def load_model_config(config: ModelConfig) -> PretrainedConfig:
    """The model's `config.json`.

    Raises:
        UserError: not a model directory or hub id, not reachable, in the original LLaVA layout, or
            of a kind that transformers does not know.
    """
    check_model(config)
    with explained(config.path, "its config.json"):
        if Path(config.path).is_dir():
            require_parts(Path(config.path))
        require_converted(config.path, _read_settings(config))
        return AutoConfig.from_pretrained(
            config.path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )


def _read_settings(config: ModelConfig) -> dict[str, Any]:
    try:
        settings, _ = PretrainedConfig.get_config_dict(config.path, revision=config.revision)
    except OSError as error:
        if Path(config.path).is_dir():
            raise
        raise UserError(describe_unreachable(config)) from error
    return settings


def count_layers(config: ModelConfig) -> int:
    """The decoder layers of the whole model."""
    return int(load_model_config(config).get_text_config().num_hidden_layers)


def resolve_source(config: ModelConfig, num_layers: int | None = None) -> Path:
    """The local directory of the weights; downloads from the hub only what is needed.

    Raises:
        UserError: not a model directory or hub id, or not reachable.
    """
    local = Path(config.path)
    if local.is_dir():
        if not (local / "config.json").exists():
            raise UserError(
                f"model.path: {local} has no config.json; expected a HF model directory"
            )
        return local
    check_model(config)
    try:
        code = ["*.py"] if config.trust_remote_code else []
        root = _download(config, ["*.json", "*.jinja", "*.model", "*.txt", *code])
        if not (root / _INDEX).exists():
            return _download(config, ["model.safetensors"])
        weights = json.loads((root / _INDEX).read_text())["weight_map"]
        return _download(config, sorted(set(_shallow_weights(weights, num_layers).values())))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(describe_unreachable(config)) from error


def require_complete(
    config: ModelConfig, report: dict[str, Any], *, allowed: str | None = None
) -> None:
    """Transformers only warns of missing weights and goes on with random ones; we do not.

    Args:
        config: of the model.
        report: of its loading.
        allowed: names that begin with it may be missing.

    Raises:
        UserError: there are.
    """
    missing = sorted(
        key for key in report["missing_keys"] if allowed is None or not key.startswith(allowed)
    )
    mismatched = sorted(str(key) for key in report["mismatched_keys"])
    if missing or mismatched:
        faults = ", ".join((missing + mismatched)[:5])
        raise UserError(
            f"model.path: {config.path} lacks {len(missing)} weights and has {len(mismatched)} of "
            f"another shape than its config.json says: {faults}; give a complete checkpoint"
        )


def _place(
    model: PreTrainedModel, device: torch.device | None, dtype: torch.dtype
) -> PreTrainedModel:
    """Move the weights as they are saved, and cast them where they are computed with.

    Until then they are the file's pages, which the processes of a machine share; a cast before
    would give each of them the whole model in host memory.
    """
    nn.Module.to(model, device or torch.device("cpu"))
    if model.dtype != dtype:
        set_dtype(model, dtype)
    model.eval()
    return model


@contextmanager
def without_load_report() -> Iterator[None]:
    """The deeper layers are left out on purpose: no table of unexpected keys."""
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(before)


def _download(config: ModelConfig, patterns: list[str]) -> Path:
    return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=patterns))


def _read_weights(
    auto_class: Any,
    source: Path,
    dtype: torch.dtype,
    config: ModelConfig,
    architecture: PretrainedConfig | None = None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, in the type it is saved in, and the report of missing and mismatched weights."""
    options = attention_options(config)
    if architecture is not None:
        options["config"] = architecture
    with explained(config.path, "its weights"):
        stored = stored_dtypes(source)
        if len(stored) == 1 and stored <= PLAIN_DTYPES and not is_deepspeed_zero3_enabled():
            (dtype,) = stored  # type: ignore[assignment]  # `_place` casts; ZeRO-3 casts while it deals out
        model, report = auto_class.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            **options,
        )
    return model, report


def attention_options(config: ModelConfig) -> dict[str, Any]:
    """What `from_pretrained` is told of `model.attn_implementation`."""
    if config.attn_implementation is None:
        return {}
    return {"attn_implementation": config.attn_implementation}


def truncate_config(text_config: PretrainedConfig, num_layers: int) -> None:
    """Let a decoder's config say that it has fewer layers."""
    text_config.num_hidden_layers = num_layers
    layer_types = getattr(text_config, "layer_types", None)
    if layer_types is not None:
        text_config.layer_types = list(layer_types)[:num_layers]


def _shallow_weights(weight_map: dict[str, str], num_layers: int | None) -> dict[str, str]:
    """The entries of a checkpoint index that a model of `num_layers` decoder layers needs."""
    if num_layers is None:
        return weight_map
    return {
        name: shard
        for name, shard in weight_map.items()
        if not _HEAD.search(name) and not _is_deeper(name, num_layers)
    }


def _is_deeper(name: str, num_layers: int) -> bool:
    """Deeper decoder layers, and the final norm, which lies beside the last of them."""
    if _BEFORE_DECODER.search(name):
        return False
    found = _DECODER_LAYER.search(name)
    return int(found.group(1)) >= num_layers if found else bool(_FINAL_NORM.search(name))


def _shallow_view(source: Path, num_layers: int | None, folder: Path) -> Path:
    """A directory that shows only the needed shards; `source` itself for an unsharded checkpoint.

    An unsharded safetensors file is memory-mapped, so that its unused tensors are never read.
    """
    index_file = source / _INDEX
    if num_layers is None or not index_file.exists():
        return source
    index = json.loads(index_file.read_text())
    weights = _shallow_weights(index["weight_map"], num_layers)
    for shard in set(weights.values()):
        if Path(shard).name != shard:  # a link would be put wherever it leads
            raise UserError(
                f"model.path: {index_file} names {shard!r}: expected a file beside it; get the "
                "model from somebody else"
            )
        os.symlink((source / shard).resolve(), folder / shard)
    (folder / _INDEX).write_text(json.dumps({**index, "weight_map": weights}))
    for path in (source / "config.json", *source.glob("*.py")):
        os.symlink(path.resolve(), folder / path.name)
    return folder

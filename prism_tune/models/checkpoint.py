"""Checkpoints: what makes one self-contained, proof that it holds what was trained, reloading.

Layout (plain transformers and peft read it): adapter and projector, or full weights; processor and
chat template; `prism_tune.yaml`, the resolved config; `provenance.json`, what it was trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from prism_tune import __version__
from prism_tune.config.load import RECORD_NAME, render_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.models.adapters import (
    ADAPTER_CONFIG,
    PROVENANCE_NAME,
    describe_base,
    point_to_base,
    require_base,
)
from prism_tune.models.damage import explained
from prism_tune.models.devices import cast_parameters
from prism_tune.models.families import final_norm, parts
from prism_tune.models.load import load_model, load_shallow, truncate_config
from prism_tune.processes import is_main
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import write_atomic, write_json

if TYPE_CHECKING:
    from peft import PeftModel


def load_tuned(
    config: Config, checkpoint: Path | None, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model to evaluate.

    Args:
        config: of the run.
        checkpoint: an adapter directory (merged into the base model), a directory with full
            weights, or None for the untuned base model.
        dtype: to compute in.
        device: to compute on.

    Raises:
        UserError: `checkpoint` is neither an adapter nor a model directory, or it is an adapter
            of another base model.
    """
    if checkpoint is None:
        return load_model(config.model, dtype=dtype, device=device)
    if not (checkpoint / ADAPTER_CONFIG).exists():
        tuned = config.model.model_copy(update={"path": str(checkpoint), "revision": None})
        return load_model(tuned, dtype=dtype, device=device)
    adapted = load_unmerged(config, checkpoint, dtype=dtype, device=device)
    with explained(checkpoint, "its adapter", "adapter"):
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    cast_parameters(merged, dtype)
    tuned_model: PreTrainedModel = merged.eval()
    return tuned_model


def load_unmerged(
    config: Config, adapter: Path, *, dtype: torch.dtype, device: torch.device
) -> PeftModel:
    """The base model with an adapter on it.

    Raises:
        UserError: it is an adapter of another base model.
    """
    from peft import PeftModel  # a third of a second that few selections need

    require_base(adapter, config.model)
    base = load_model(config.model, dtype=dtype, device=device)
    with explained(adapter, "its adapter", "adapter"):
        adapted: PeftModel = PeftModel.from_pretrained(base, str(adapter))
    return adapted


def load_shallow_tuned(
    config: Config,
    checkpoint: Path | None,
    num_layers: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> PreTrainedModel:
    """The base model up to decoder layer `num_layers`, as `load_shallow` gives it, of a tuned one.

    An adapter is merged into the whole model first: it is loaded, and then cut.

    Raises:
        UserError: as `load_tuned` and `load_shallow`.
    """
    if checkpoint is None:
        return load_shallow(config.model, num_layers, dtype=dtype, device=device)
    found = parts(load_tuned(config, checkpoint, dtype=dtype, device=device))
    decoder: Any = found.language_model
    if num_layers > len(decoder.layers):
        raise UserError(
            f"selection.layer: {num_layers} asked, but {config.model.path} has "
            f"{len(decoder.layers)} decoder layers"
        )
    if num_layers < len(decoder.layers):
        decoder.layers = decoder.layers[:num_layers]
        setattr(decoder, final_norm(decoder), nn.Identity())
        truncate_config(found.base.config.get_text_config(), num_layers)
    return found.base


def complete_checkpoint(directory: Path, config: Config, inputs: Mapping[str, Any]) -> None:
    """Add what transformers does not write, and take out its pickled arguments.

    Args:
        directory: the checkpoint.
        config: of the run.
        inputs: everything the weights depend on; `records` is the fingerprint of the data.
    """
    write_atomic(directory / RECORD_NAME, render_config(config))
    base = describe_base(config.model)
    if (directory / ADAPTER_CONFIG).exists():
        point_to_base(directory, base)
    provenance = {
        "prism_tune": __version__,
        "data_fingerprint": inputs["records"],
        "fingerprint": fingerprint(inputs),
        "base_model": base,
        "inputs": inputs,
    }
    write_json(directory / PROVENANCE_NAME, provenance)
    (directory / "training_args.bin").unlink(missing_ok=True)


def digest_trained(model: nn.Module) -> dict[str, str]:
    """A digest of shape, dtype and bytes of each trained parameter, by name.

    Parameters that ZeRO-3 has partitioned are gathered one at a time: call on every rank. Only the
    main process gets digests, the others an empty dict.
    """
    digests = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with _gathered(parameter):
                if is_main():
                    digests[name] = _digest(parameter.detach())
    return digests


def verify_saved(directory: Path, trained: Mapping[str, str]) -> None:
    """Prove that a checkpoint holds what was trained.

    Args:
        directory: the checkpoint.
        trained: `digest_trained` of the model that was saved.

    Raises:
        UserError: an empty or non-finite tensor, or a trained parameter that is not in the files
            as it is in memory.
    """
    saved = Counter(_digest(tensor) for tensor in _checked_tensors(directory))
    lost = Counter(trained.values()) - saved
    if lost:
        names = [name for name, digest in trained.items() if digest in lost]
        raise UserError(
            f"{directory}: {len(names)} trained parameters were not saved as trained, "
            f"for example {names[0]}"
        )


def _checked_tensors(directory: Path) -> Iterator[torch.Tensor]:
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise UserError(f"{directory}: no safetensors file was saved")
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    yield _checked(tensors.get_tensor(name), f"{path}: {name}")
        except SafetensorError as error:
            raise UserError(f"{path}: not a valid safetensors file: {error}") from error


def _checked(tensor: torch.Tensor, where: str) -> torch.Tensor:
    if tensor.numel() == 0:
        raise UserError(f"{where}: saved empty")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise UserError(
            f"{where}: not finite; lower the learning rate, or use bf16 in place of fp16"
        )
    return tensor


def _digest(tensor: torch.Tensor) -> str:
    flat = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.blake2b(flat.numpy().data, digest_size=16)
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    return digest.hexdigest()


def _gathered(parameter: nn.Parameter) -> AbstractContextManager[object]:
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[object] = deepspeed.zero.GatheredParameters([parameter])
    return gathered

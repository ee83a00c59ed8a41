"""What to compute on, and in: this process's device, its name, and the precision it is good at.

Also the type that weights are saved in, and casting them to another.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from prism_tune.config.sections import DType
from prism_tune.models.cpu import bf16_instructions
from prism_tune.models.damage import explained
from prism_tune.processes import local_rank

logger = logging.getLogger(__name__)

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
PLAIN_DTYPES = frozenset(_DTYPES.values())


def pick_device() -> torch.device:
    """This process's accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        _avoid_attention_plans()
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return torch.device("cpu")


def _avoid_attention_plans() -> None:
    """Keep torch's `scaled_dot_product_attention` from cuDNN's kernels, in this process.

    On Hopper and Blackwell torch prefers them. They are planned anew for every shape, and by every
    thread for itself: 45 to 75 ms a length on an H100 (torch 2.11, benchmarks/RESULTS.md) for what
    then takes 0.2 ms. Our batches and packed records have a new length nearly every time.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def name_device(device: torch.device) -> str:
    """For example "cpu" or "NVIDIA H100"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def resolve_dtype(name: DType, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it, else float16 (CUDA) or float32 (CPU)."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        if dtype is torch.bfloat16 and device.type == "cpu" and not multiplies_bf16(device):
            _warn_of_bf16()
        return dtype
    if multiplies_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def name_dtype(dtype: torch.dtype) -> str:
    """For example "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself.

    For torch every GPU does: before Ampere (T4, V100) it computes in float32 and rounds.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(bf16_instructions())


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights and nothing else.

    `Module.to` would round the buffers as well: rotary frequencies in bfloat16 are other
    positions (by more than a radian beyond 1,000 tokens) than those the model was tuned with.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def set_dtype(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast a model's weights and say so in its configs, those of its parts included."""
    cast_parameters(model, dtype)
    configs: list[Any] = [model.config]
    configs += [getattr(model.config, name, None) for name in ("text_config", "vision_config")]
    for config in configs:
        if config is not None:
            config.dtype = dtype


def stored_dtypes(directory: Path) -> set[torch.dtype | str]:
    """The types of the weights in a directory's safetensors files; other types by their names."""
    found = set()
    for path in directory.glob("*.safetensors"):
        with explained(directory, "its weights", ""), safe_open(path, "pt") as tensors:
            found |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return {_DTYPES.get(name, name) for name in found}


@lru_cache(maxsize=1)
def _warn_of_bf16() -> None:
    logger.warning(
        "bfloat16 was asked for, which this CPU has no instructions for: many times slower than "
        "float32, which auto would choose"
    )

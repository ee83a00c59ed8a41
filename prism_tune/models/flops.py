"""What a model computes: the one formula of every estimate, and the sizes that go into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def estimate_flops(*passes: tuple[int, float]) -> float:
    """2 x parameters x tokens, summed over (parameters, tokens); attention scores are left out.

    A forward pass is one; the way back through the same parameters is another, and the gradient of
    those that are trained a third.
    """
    return 2.0 * sum(num_parameters * num_tokens for num_parameters, num_tokens in passes)


def count_parameters(*modules: nn.Module | torch.Tensor) -> int:
    """How many numbers modules hold, also where ZeRO-3 has partitioned them."""
    total = 0
    for module in modules:
        assert isinstance(module, nn.Module)
        total += sum(int(getattr(p, "ds_numel", p.numel())) for p in module.parameters())
    return total


def count_patches(pixel_values: torch.Tensor, config: Any) -> float:
    """Vision tokens: pixels by patch area; flattened patches count themselves.

    Args:
        pixel_values: of some images, (..., channels, height, width), or (patches, width).
        config: the model's.
    """
    patch = getattr(config.vision_config, "patch_size", None)
    if pixel_values.dim() <= 2 or patch is None:
        return float(len(pixel_values))
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return pixel_values.numel() / (3 * height * width)

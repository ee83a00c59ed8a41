"""What a model computes: the one formula of every estimate, and the sizes that go into it.

Without torch, so that who only plans can use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def estimate_flops(*passes: tuple[int, float]) -> float:
    """2 x parameters x tokens, summed over (parameters, tokens); attention scores are left out.

    A forward pass is one; the way back through the same parameters is another, and the gradient of
    those that are trained a third.
    """
    return 2.0 * sum(num_parameters * num_tokens for num_parameters, num_tokens in passes)


def count_parameters(*modules: Any, trained_only: bool = False) -> int:
    """How many numbers torch modules hold, also where ZeRO-3 has partitioned them."""
    return sum(
        int(getattr(parameter, "ds_numel", parameter.numel()))
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad or not trained_only
    )


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

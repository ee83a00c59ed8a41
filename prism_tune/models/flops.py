"""What a model computes: the one formula of every estimate, and the sizes that go into it.

Without torch, so that who only plans can use it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_EXPERTS = re.compile(r"(^|\.)experts\.")  # not those that are shared, which every token passes


def estimate_flops(*passes: tuple[int, float]) -> float:
    """2 x parameters x tokens, summed over (parameters, tokens); attention scores are left out.

    A forward pass is one; the way back through the same parameters is another, and the gradient of
    those that are trained a third.
    """
    return 2.0 * sum(num_parameters * num_tokens for num_parameters, num_tokens in passes)


def count_parameters(*modules: Any, trained_only: bool = False, active: float = 1.0) -> int:
    """How many numbers torch modules hold (see `count_numbers`).

    What several of them share counts once.

    Args:
        modules: of torch.
        trained_only: without what is frozen.
        active: share of the experts' weights that counts, see `active_share`.
    """
    parameters = {
        id(parameter): (name, parameter)
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad or not trained_only
    }
    sizes = (
        count_numbers(parameter) * (active if is_expert(name) else 1.0)
        for name, parameter in parameters.values()
    )
    return round(sum(sizes))


def count_numbers(parameter: Any) -> int:
    """Also of a weight that ZeRO-3 has partitioned, or bitsandbytes packed: two to a byte."""
    packed = getattr(parameter, "quant_state", None)
    if packed is not None:
        return int(packed.shape.numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def is_expert(parameter_name: str) -> bool:
    """Whether a parameter belongs to experts that a router chooses from."""
    return bool(_EXPERTS.search(parameter_name))


def active_share(text_config: Any) -> float:
    """The share of a decoder's experts that one token passes; 1 where there are none."""
    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        num_experts = getattr(text_config, name, None)
        if num_experts:
            return float(getattr(text_config, "num_experts_per_tok", num_experts)) / num_experts
    return 1.0


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

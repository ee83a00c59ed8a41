"""The one formula, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from prism_tune.models.flops import count_parameters, count_patches, estimate_flops


def test_a_pass_takes_two_operations_a_parameter_and_token():
    assert estimate_flops((10, 3)) == 60.0
    assert estimate_flops((10, 3), (5, 2)) == 80.0


def test_parameters_are_those_of_the_whole_model_where_zero_3_has_parted_it():
    layer = nn.Linear(4, 3)
    assert count_parameters(layer, nn.Linear(2, 2, bias=False)) == 15 + 4
    layer.weight.ds_numel = 1200
    assert count_parameters(layer) == 1203


def test_a_weight_in_four_bits_counts_its_numbers_and_not_its_bytes():
    packed = nn.Parameter(torch.zeros(64 * 64 // 2, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = SimpleNamespace(shape=torch.Size([64, 64]))  # type: ignore[attr-defined]
    layer = nn.Module()
    layer.register_parameter("weight", packed)
    assert count_parameters(layer) == 64 * 64


def test_patches_are_counted_by_area_or_one_by_one():
    square = SimpleNamespace(vision_config=SimpleNamespace(patch_size=14))
    assert count_patches(torch.zeros(2, 3, 28, 28), square) == 2 * 4
    assert count_patches(torch.zeros(5, 588), square) == 5
    oblong = SimpleNamespace(vision_config=SimpleNamespace(patch_size=(7, 14)))
    assert count_patches(torch.zeros(1, 3, 28, 28), oblong) == 8

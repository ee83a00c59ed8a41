"""SmolLM2's rows out of llama.cpp's order."""

import torch

from prism_tune.quickstart.language_model import _halve_rotations


def test_the_two_rows_that_turn_together_are_half_a_head_apart():
    """Two heads of four rows: neighbours 0 and 1 become the first row of each half."""
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    expected = torch.tensor([0.0, 2, 1, 3, 4, 6, 5, 7])[:, None].expand(8, 3)
    assert torch.equal(_halve_rotations(rows.contiguous(), 2), expected)

"""Reading blocks of rows: float16 made wider without NumPy's own, slow conversion."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.features.row_blocks import widen


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("finite", [True, False])
def test_every_half_precision_number_is_what_astype_makes_of_it(dtype, finite):
    """All 65,536 patterns of bits: subnormal numbers, signed zeros, infinities and NaN."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    block = every[np.isfinite(every)] if finite else every
    expected = block.astype(dtype)
    found = widen(block.reshape(-1, 8), np.dtype(dtype)).ravel()
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def test_columns_and_other_orders_of_bytes_are_read_as_they_lie():
    block = np.linspace(-2, 2, 24).astype(np.float16).reshape(4, 6)
    for other in (block[:, ::2], block[::-1], block.T, block.astype(">f2")):
        np.testing.assert_array_equal(widen(other, np.dtype("f4")), other.astype("f4"))
    assert widen(block[:0], np.dtype("f4")).shape == (0, 6)


def test_the_block_itself_stays_as_it_was():
    block = np.ones((2, 2), dtype=np.float32)
    widen(block, np.dtype("f4"))[:] = 7
    assert block.tolist() == [[1, 1], [1, 1]]

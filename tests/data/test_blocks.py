"""What several processes find of many records is what one finds, mistakes included."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.data.encoding import blocks
from prism_tune.data.encoding.blocks import find_of_all
from prism_tune.errors import ConfigError

WRONG = "model.template: refuses record 7"


def square(indices):
    return np.array([index**2 for index in indices], dtype=np.int64)


def refuse(indices):
    if 7 in indices:
        raise ConfigError(WRONG)
    return square(indices)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_RECORDS", 3)


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_in_the_order_of_the_records(num_workers):
    found = find_of_all(square, [9, 1, 8, 2, 7, 3, 6], num_workers)
    assert found.tolist() == [81, 1, 64, 4, 49, 9, 36]
    assert find_of_all(square, [], num_workers).tolist() == []


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_mistake_is_told_as_it_was(num_workers):
    with pytest.raises(ConfigError) as told:
        find_of_all(refuse, range(9), num_workers)
    assert str(told.value) == WRONG

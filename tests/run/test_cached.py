"""An array that takes long to make: kept, and made again where what was kept is none."""

from __future__ import annotations

import numpy as np
import pytest
from support.permissions import read_only

from prism_tune.run.cached import cached_array


def find(path, made):
    return cached_array(path, lambda: made.append(1) or np.arange(3), 3, "int64").tolist()


@pytest.mark.parametrize(
    "kept",
    [np.zeros(2, int), np.zeros((3, 1), int), np.zeros(3), np.array(["a", "b", "c"])],
    ids=["short", "of two dimensions", "floats", "words"],
)
def test_what_is_not_as_it_was_kept_is_made_again(tmp_path, caplog, kept):
    path, made = tmp_path / "lengths.npy", []
    np.save(path, kept)
    assert [find(path, made), find(path, made), made] == [[0, 1, 2], [0, 1, 2], [1]]
    assert "lengths.npy: damaged (" in caplog.text


def test_in_a_folder_that_may_only_be_read_it_is_made_each_time(tmp_path, caplog):
    path, made = tmp_path / "lengths.npy", []
    with read_only(tmp_path):
        assert [find(path, made), find(path, made), made] == [[0, 1, 2], [0, 1, 2], [1, 1]]
    assert "lengths.npy: cannot be kept (Permission denied)" in caplog.text
    assert not path.exists()

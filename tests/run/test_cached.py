"""An array that takes long to make: kept, and made again where what was kept is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.permissions import read_only

from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.quickstart.assets import wheel_dir
from prism_tune.run.cache_home import cache_home
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


def test_the_cache_lies_where_one_says_or_below_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PRISM_TUNE_CACHE", "/big/cache")
    assert str(cache_home()) == "/big/cache"
    monkeypatch.setenv("PRISM_TUNE_CACHE", "")
    assert str(cache_home()) == "/home/me/.cache/prism_tune"


def test_a_user_without_home_is_told_what_to_set(without_home, monkeypatch, tmp_path):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "pool.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    config = DataConfig(records=str(tmp_path / "pool.json"))
    for needing in (cache_home, wheel_dir, lambda: open_pool(config)):
        with pytest.raises(
            UserError, match=r"no home directory .*set PRISM_TUNE_CACHE to a folder"
        ):
            needing()
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    assert open_pool(config).ids == ["1"]

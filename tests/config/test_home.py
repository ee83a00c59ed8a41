"""A leading `~` in the paths of a config is the home, as in a shell."""

from __future__ import annotations

import pytest

from prism_tune.config.load import load_config
from prism_tune.config.presets import find_file
from prism_tune.config.sections import Config, SelectionConfig

TREE = """
name: trial
output_dir: ~/runs
plugins: [~/own.py]
model: {path: ~/model}
data: {records: ~/pool.json, image_dir: ~/images, image_roots: [~/more, /mnt/images]}
selection:
  scorer: file
  must_keep: ~/keep.txt
  must_drop: ~/drop.txt
  features_file: ~/features.npy
  reference: {model: ~/reference, adapter: ~/adapter}
  options: {path: ~/scores.npy, model: ~/clip}
training: {deepspeed: ~/zero.json}
evaluation:
  data: {exam: {annotations: ~/exam.jsonl, image_dir: ~/exam, metric: exact}}
compare: {selectors: [random], planted: ~/planted.json, before: [~/a.yaml]}
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


def _texts(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def test_every_path_of_a_config_may_begin_at_home(tmp_path, home):
    path = tmp_path / "trial.yaml"
    path.write_text(TREE)
    texts = _texts(load_config(path).model_dump(mode="json"))
    assert not [text for text in texts if "~" in text]
    assert len([text for text in texts if text.startswith(f"{home}/")]) == TREE.count("~/")


def test_so_may_an_override_and_a_base(tmp_path, home):
    (tmp_path / "trial.yaml").write_text(TREE)
    (tmp_path / "mine.yaml").write_text("base: ~/trial.yaml\n")
    loaded = load_config("~/mine.yaml", ["data.records=~/other.json"])
    assert loaded.data.records == f"{home}/other.json"
    assert loaded.output_dir == f"{home}/runs"
    assert str(find_file("~/zero.json", "deepspeed")) == f"{home}/zero.json"


@pytest.mark.parametrize("path", ["owner/name", "a/~b", "~nobody-of-that-name/x", "./~", "/m"])
def test_other_paths_and_hub_ids_stay(path):
    tree = {"name": "x", "model": {"path": path}, "data": {"records": path}}
    config = Config.model_validate(tree)
    assert (config.model.path, config.data.records) == (path, path)
    assert SelectionConfig(options={"alpha": float("inf"), "words": "~"}).options == {
        "alpha": "inf",
        "words": "~",
    }

"""Configs of run folders and checkpoints are records: they resolve nothing and trust nothing."""

from __future__ import annotations

import json

import pytest

from prism_tune.config.load import load_config, read_recorded_model, render_config
from prism_tune.errors import ConfigError

PLAIN = "name: trial\nmodel: {path: some/model}\ndata: {records: pool.json}\n"
TRUSTING = PLAIN.replace("some/model", "some/model, trust_remote_code: true")
CURIOUS = PLAIN.replace("some/model", "'${oc.env:MY_VALUE}/model'")


@pytest.fixture(params=["prism_tune.yaml", "config.yaml"])
def record(request, tmp_path):
    """Writes a config where checkpoints and stages keep theirs."""
    (tmp_path / "stage.json").write_text("{}")

    def write(text: str):
        path = tmp_path / request.param
        path.write_text(text)
        return path

    return write


def test_a_record_resolves_nothing(record, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_VALUE", "of-the-environment")
    path = record(CURIOUS)
    config = load_config(path)
    assert config.model.path == "${oc.env:MY_VALUE}/model"
    path.write_text(render_config(config))  # and what we keep of it neither, wherever it lies
    assert load_config(path) == config
    mine = tmp_path / "elsewhere" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text(render_config(config))
    assert load_config(mine) == config
    mine.write_text(f"base: {path}\n")
    assert load_config(mine) == config
    mine.write_text(CURIOUS)  # one's own config may
    assert load_config(mine).model.path == "of-the-environment/model"


@pytest.mark.parametrize("word", ["true", "'yes'", "1", "'on'", "'${oc.decode:true}'", "'${seed}'"])
def test_a_record_trusts_no_code(record, tmp_path, word):
    path = record(PLAIN.replace("some/model", f"some/model, trust_remote_code: {word}"))
    with pytest.raises(ConfigError, match=r"cannot switch on model\.trust_remote_code"):
        load_config(path)
    assert read_recorded_model(path).trust_remote_code is False
    assert load_config(path, ["trust_remote_code=true"]).model.trust_remote_code
    mine = tmp_path / "elsewhere" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text(f"base: {path}\n")
    with pytest.raises(ConfigError, match=r"cannot switch on model\.trust_remote_code"):
        load_config(mine)
    mine.write_text(f"base: {path}\nmodel: {{trust_remote_code: true}}\n")
    assert load_config(mine).model.trust_remote_code


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("evaluation.serve_command", "sh -c 'touch ran {port}'", "name a program to be started"),
        ("evaluation.base_url", "http://elsewhere/v1", "name a server, which would be sent"),
        ("training.hf.push_to_hub", "yes", "switch on an upload to the hub"),
    ],
)
def test_a_record_starts_and_sends_nothing(record, key, value, says):
    *sections, name = key.split(".")
    tree = {name: value}
    for section in reversed(sections):
        tree = {section: tree}
    path = record(f"{PLAIN}{json.dumps(tree)[1:-1]}\n")
    with pytest.raises(ConfigError, match=f"the record of a run cannot {says}"):
        load_config(path)
    assert read_recorded_model(path).path == "some/model"
    assert load_config(path, [f"{key}=null"]).name == "trial"


@pytest.mark.parametrize(
    ("tree", "said", "mended"),
    [
        (
            {"selection": {"reference": {"warmup": {"hf": {"push_to_hub": True}}}}},
            r"an upload to the hub.*: selection\.reference\.warmup\.hf\.push_to_hub=true",
            "selection.reference.warmup.hf.push_to_hub=false",
        ),
        (
            {"compare": {"rows": [{"name": "a", "model": {"trust_remote_code": True}}]}},
            r"trust_remote_code.*`compare\.rows\[0\]\.model\.trust_remote_code`.*compare=null",
            "compare=null",
        ),
        (
            {"compare": {"rows": ["a"], "variants": [{"name": "b{}", "plugins": ["theirs.py"]}]}},
            r"name plugins.*`compare\.variants\[0\]\.plugins`",
            "compare=null",
        ),
        (
            {"compare": {"before": ["theirs.yaml"]}},
            r"name configs to be trained first.*compare\.before=\[FILE\]",
            "compare.before=[]",
        ),
    ],
)
def test_nor_does_it_at_any_depth(record, tree, said, mended):
    """A grid's rows hold whole sections, and a warm-up options of a training."""
    path = record(f"{PLAIN}{json.dumps(tree)[1:-1]}\n")
    with pytest.raises(ConfigError, match=f"the record of a run cannot .*{said}"):
        load_config(path)
    assert read_recorded_model(path).path == "some/model"
    assert load_config(path, [mended]).name == "trial"


def test_a_record_with_a_grid_is_read(record):
    grid = {"compare": {"rows": [{"name": "a", "training": {"hf": {"learning_rate": 0.1}}}]}}
    path = record(f"{PLAIN}{json.dumps(grid)[1:-1]}\n")
    assert load_config(path).compare.rows[0]["name"] == "a"


def test_a_record_has_no_base(record, tmp_path):
    """Behind which all of that could stand, and be resolved."""
    (tmp_path / "behind.yaml").write_text(TRUSTING.replace("some", "${oc.env:HOME}"))
    path = record("base: behind.yaml\n")
    for read in (load_config, read_recorded_model):
        with pytest.raises(ConfigError, match="the record of a run cannot name a `base`"):
            read(path)


def test_ones_own_config_trusts(tmp_path):
    (tmp_path / "mine.yaml").write_text(TRUSTING)
    assert load_config(tmp_path / "mine.yaml").model.trust_remote_code

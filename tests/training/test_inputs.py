"""What the training reads is checked before it is read, and said by name when it changed."""

from __future__ import annotations

import json

import pytest

from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.stage import Stage
from prism_tune.training.inputs import describe_changes, stage_inputs
from prism_tune.training.train import train


def test_a_subset_that_is_not_the_one_selected_is_refused(make_run, drawn_pool):
    config, run = make_run(records="subset")
    run.selection.mkdir()
    records = json.loads(drawn_pool.read_text())
    run.subset.write_text(json.dumps(records[:12]))
    sha256 = fingerprint_file(run.subset)
    Stage(run.selection).finish({}, config=config, subset_sha256=sha256)
    assert stage_inputs(config, run)["records"] == sha256
    run.subset.write_text(json.dumps(records[:5]))
    with pytest.raises(UserError, match=r"subset\.json: not the file that .*select CONFIG` writes"):
        train(config, run)
    run.subset.unlink()
    with pytest.raises(UserError, match=r"subset\.json: the selection wrote it, and it is gone"):
        train(config, run)
    assert not run.training.exists()


def test_only_what_the_weights_depend_on_counts(make_run):
    before = stage_inputs(*make_run())
    for options in (
        {"tokens_per_batch": 7},
        {"hf": {"logging_steps": 5}},
        {"lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.05}},
    ):
        assert stage_inputs(*make_run(**options)) == before
    for options, name in (
        ({"lora": {"r": 8, "lora_alpha": 8}}, "training.lora.r"),
        ({"hf": {"optim": "sgd"}}, "training.hf.optim"),
        ({"model": {"template": "chatml"}}, "model.template"),
    ):
        after = stage_inputs(*make_run(**options))
        assert {n for n in before.keys() | after if before.get(n) != after.get(n)} == {name}
    full = stage_inputs(*make_run(tuning="full", lora={"r": 8}))
    assert full == stage_inputs(*make_run(tuning="full"))


def test_pictures_that_changed_count(make_run, drawn_pool, tmp_path):
    config, run = make_run()
    before = stage_inputs(config, run)
    image = next((drawn_pool.parent / "images").iterdir())
    content = image.read_bytes()
    try:
        image.write_bytes(content + b"more")
        after = stage_inputs(config, run)
    finally:
        image.write_bytes(content)
    assert {name for name in before if before[name] != after[name]} == {"images"}


def test_changes_are_said_with_values_where_these_are_short():
    before = {"a": 1, "gone": True, "long": "x" * 99, "records": "abc", "same": 0}
    now = {"a": 2, "new": None, "long": "y" * 99, "records": "abd", "same": 0}
    assert describe_changes(before, now).splitlines() == [
        "  a: 1 -> 2",
        "  gone: true -> not set",
        "  long: changed",
        "  new: not set -> null",
        "  records: changed",
    ]

"""What a run wrote of itself and is not as it was: the file is named, with what to do."""

from __future__ import annotations

import json

import pytest

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import read_entries, read_object, write_json
from prism_tune.run.stage import Stage
from prism_tune.run.written import altered_records, read_log


def test_a_key_that_is_not_there_names_the_file_at_any_depth(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"counts": {"rows": [{"kept": 1}]}}')
    rows = read_object(path)["counts"]["rows"]
    assert rows == [{"kept": 1}]
    with pytest.raises(UserError, match=r"manifest\.json: .*no `dropped` in it; another version"):
        rows[0]["dropped"]
    path.write_text('[{"stage": "train"}]')
    with pytest.raises(UserError, match=r"no `seconds` in it"):
        read_entries(path, "stage")[0]["seconds"]


def test_what_was_changed_after_its_stage_is_known(tmp_path):
    config = Config.model_validate(
        {"name": "a", "model": {"path": "m"}, "data": {"records": "r.json"}}
    )
    manifest, stage = tmp_path / "manifest.json", Stage(tmp_path)
    write_json(manifest, {"num": 3})
    stage.finish({"seed": 0}, config=config, metrics={"accuracy": 0.5})
    read_object(manifest), stage.record()
    assert not set(altered_records()) & {manifest, stage.path}
    manifest.write_text('{"num": "three"}')
    assert manifest in altered_records()
    stage.path.write_text(json.dumps({**json.loads(stage.path.read_text()), "outputs": {}}))
    assert stage.path in altered_records()


@pytest.mark.parametrize("line", ["{junk", "3", "null"])
def test_a_line_of_a_log_is_named_and_one_cut_short_left_out(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2')
    assert read_log(path) == [{"step": 1}]
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(UserError, match=r"log\.jsonl: line 2: not as it was written"):
        read_log(path)

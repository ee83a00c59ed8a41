"""Run folders: writes that survive a crash, fingerprints, and when a stage counts as finished."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run import folder
from prism_tune.run import stage as stage_module
from prism_tune.run.fingerprints import fingerprint, fingerprint_model
from prism_tune.run.folder import RunDir, locked, read_json, write_atomic, write_json
from prism_tune.run.stage import Stage, must_run

MIB = 1 << 20


def test_layout(tmp_path):
    run = RunDir(tmp_path / "trial")
    layout = {
        "timings.json": run.timings,
        "log.txt": run.log,
        "selection/evidence/features": run.features,
        "selection/subset.json": run.subset,
        "training/final": run.checkpoint,
        "evaluation/pope": run.benchmark("pope"),
        "tables": run.tables,
    }
    assert {str(path.relative_to(run.root)): path for path in layout.values()} == layout


def test_a_folder_one_stands_in_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "trial" / "training").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "trial")
    assert RunDir(Path()).root == tmp_path.resolve() / "trial"
    monkeypatch.chdir(tmp_path / "trial" / "training")
    assert RunDir(Path("..")).root == tmp_path.resolve() / "trial"
    assert RunDir(Path("../training")).root == Path("../training")  # shown as it was given


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_leaves_the_old_content_and_no_rubbish(tmp_path, monkeypatch, moment):
    path = tmp_path / "scores.json"
    write_atomic(path, "old")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder.os, moment, crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_content_is_complete_before_it_takes_the_name(tmp_path, monkeypatch):
    path = tmp_path / "deep/down/file.txt"
    seen = []
    replace = os.replace

    def spy(source, target):
        seen.append((Path(source).read_text(), target.exists()))
        replace(source, target)

    monkeypatch.setattr(folder.os, "replace", spy)
    write_atomic(path, "content")
    assert seen == [("content", False)]
    assert path.read_text() == "content"


def test_written_files_have_the_users_usual_permissions(tmp_path):
    write_atomic(tmp_path / "atomic", "x")
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_json_takes_numpy_and_is_readable(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"b": np.float64(0.5), "a": np.arange(3), "c": np.int64(2)})
    assert read_json(path) == {"b": 0.5, "a": [0, 1, 2], "c": 2}
    assert path.read_text().startswith('{\n  "b": 0.5')


def test_json_that_cannot_be_read_is_the_users_to_mend(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match=r"x\.json: no such file"):
        read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"x\.json: not valid JSON"):
        read_json(path)


def test_fingerprint_is_sha256_of_canonical_json():
    expected = "43258cff783fe7036d8a43033f830adfc60ec037382473548ac742b888292777"  # {"a":1,"b":2}
    assert fingerprint({"b": 2, "a": 1}) == expected
    assert fingerprint({"b": 2, "a": 1.5}) != expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), VALUES))
def test_fingerprint_ignores_the_order_of_keys(value):
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


class TestFingerprintModel:
    @pytest.fixture
    def model(self, tmp_path):
        """A checkpoint with a large file (3 MiB) and a small one."""
        root = tmp_path / "model"
        root.mkdir()
        (root / "model.safetensors").write_bytes(bytes(3 * MIB))
        (root / "config.json").write_text("{}")
        return root

    def changed(self, model, edit) -> bool:
        before = fingerprint_model(str(model), None)
        edit(model)
        return fingerprint_model(str(model), None) != before

    @pytest.mark.parametrize("offset", [0, MIB - 1, 2 * MIB, 3 * MIB - 1])
    def test_sees_both_ends_of_a_large_file(self, model, offset):
        def flip(root):
            with (root / "model.safetensors").open("r+b") as file:
                file.seek(offset)
                file.write(b"\x01")

        assert self.changed(model, flip)

    def test_sees_size_content_and_names(self, model):
        large = model / "model.safetensors"
        assert self.changed(model, lambda _: large.write_bytes(bytes(3 * MIB + 1)))
        assert self.changed(model, lambda root: (root / "config.json").write_text("{ }"))
        assert self.changed(model, lambda root: (root / "config.json").rename(root / "c.json"))

    @pytest.mark.parametrize(
        "name",
        [
            "README.md",
            ".DS_Store",
            ".git/HEAD",
            "log.txt",
            "images/cat.png",
            "trainer_state.json",
            "optimizer.bin",
            "optimizer.pt",
            "prism_tune.yaml",
            "provenance.json",
            "modeling.py",  # no config names it
            "checkpoint-4/model.safetensors",
        ],
    )
    def test_what_lies_beside_a_model_is_none_of_it(self, model, name):
        (model / name).parent.mkdir(exist_ok=True)
        assert not self.changed(model, lambda root: (root / name).write_text("new"))

    @pytest.mark.parametrize(
        "name",
        [
            "adapter_model.safetensors",
            "adapter_config.json",
            "generation_config.json",
            "tokenizer.json",
            "preprocessor_config.json",
            "chat_template.jinja",
            "additional_chat_templates/tool.jinja",
        ],
    )
    def test_sees_everything_that_makes_the_model(self, model, name):
        (model / name).parent.mkdir(exist_ok=True)
        assert self.changed(model, lambda root: (root / name).write_text("new"))

    def test_sees_code_that_a_config_names(self, model):
        (model / "config.json").write_text('{"auto_map": {"AutoConfig": "modeling.Config"}}')
        assert self.changed(model, lambda root: (root / "modeling.py").write_text("new"))

    def test_sees_pickled_weights_only_where_they_are_the_ones_loaded(self, model):
        pickled = model / "pytorch_model.bin"
        assert not self.changed(model, lambda _: pickled.write_text("old"))
        (model / "model.safetensors").unlink()
        assert self.changed(model, lambda _: pickled.write_text("new"))

    def test_is_the_same_wherever_the_directory_lies(self, model, tmp_path):
        before = fingerprint_model(str(model), None)
        moved = model.rename(tmp_path / "moved")
        assert fingerprint_model(str(moved), None) == before

    def test_of_a_hub_id_depends_on_the_revision(self):
        first, second = (fingerprint_model("org/name", r) for r in (None, "abc"))
        assert first != second


CONFIG = Config.model_validate(
    {"name": "trial", "model": {"path": "m"}, "data": {"records": "pool.json"}}
)
INPUTS = {"pool": "aaa", "selection": {"budget": 0.3, "layers": (1, 2)}}


class TestStage:
    @pytest.fixture
    def stage(self, tmp_path):
        return Stage(tmp_path / "selection")

    def test_new(self, stage):
        assert stage.changed_inputs(INPUTS) is None
        with pytest.raises(UserError, match="not finished; first run `prism-tune select CONFIG`"):
            stage.require("select")

    def test_finished_with_the_same_inputs(self, stage):
        stage.finish(INPUTS, config=CONFIG, subset="abc", num_kept=np.int64(3))
        assert stage.changed_inputs(INPUTS) == []
        assert stage.changed_inputs(dict(reversed(INPUTS.items()))) == []
        record = stage.require("select")
        assert record["outputs"] == {"subset": "abc", "num_kept": 3}
        assert record["fingerprint"] == fingerprint(INPUTS)

    def test_names_every_input_that_changed_came_or_went(self, stage):
        stage.finish(INPUTS, config=CONFIG)
        now = {"selection": {"budget": 0.2, "layers": (1, 2)}, "model": "m"}
        assert stage.changed_inputs(now) == ["model", "pool", "selection"]

    def test_inputs_may_hold_numpy_values(self, stage):
        inputs = {"num_images": np.int64(4), "sizes": np.array([1, 2])}
        stage.finish(inputs, config=CONFIG)
        assert stage.changed_inputs(inputs) == []
        assert stage.changed_inputs({"num_images": 4, "sizes": [1, 3]}) == ["sizes"]

    @pytest.mark.parametrize("damage", ["delete", "cut", "edit"])
    def test_files_that_are_not_as_it_left_them_make_it_run_again(self, stage, caplog, damage):
        caplog.set_level("INFO", logger="prism_tune")
        stage.directory.mkdir(parents=True)
        path = stage.directory / "subset.json"
        path.write_text("[1, 2]")
        stage.finish(INPUTS, config=CONFIG, files=[path])
        assert not must_run("select", stage, INPUTS, force=False)
        if damage == "delete":
            path.unlink()
        else:
            path.write_text("[1]" if damage == "cut" else "[1, 3]")
        assert stage.damaged_files() == ["subset.json"]
        assert must_run("select", stage, INPUTS, force=False)
        assert "select: runs again (not as it left them: subset.json)" in caplog.messages

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"inputs": 3, "outputs": {}}'])
    def test_a_record_that_is_none_says_what_to_do(self, stage, content):
        write_atomic(stage.path, content)
        for read in (stage.config, lambda: stage.require("select"), stage.damaged_files):
            with pytest.raises(UserError, match=r"stage.json: .*restore it, or delete it and run"):
                read()

    def test_a_config_of_another_version_names_the_field(self, stage):
        stage.finish(INPUTS, config=CONFIG)
        record = read_json(stage.path)
        record["config"]["selection"]["moon"] = 1
        write_json(stage.path, record)
        with pytest.raises(UserError, match=r"stage.json: config: unknown key `selection.moon`"):
            stage.config()

    def test_reopened(self, stage):
        stage.finish(INPUTS, config=CONFIG)
        stage.reopen()
        stage.reopen()
        assert stage.changed_inputs(INPUTS) is None

    def test_keeps_the_config_it_finished_with_and_forgets_it_when_reopened(self, stage):
        assert stage.config() is None
        stage.finish(INPUTS, config=CONFIG)
        assert stage.config() == load_config(stage.config_path) == CONFIG
        stage.reopen()
        assert stage.config() is None
        assert not stage.config_path.exists()

    def test_the_config_is_there_before_the_stage_counts_as_finished(self, stage, monkeypatch):
        def crash(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(stage_module, "write_json", crash)
        with pytest.raises(KeyboardInterrupt):
            stage.finish(INPUTS, config=CONFIG)
        assert stage.config() is None


def test_what_the_system_refuses_is_called_as_it_was_to_be_called(tmp_path):
    """Not by the hidden file that it was written to, which is gone."""
    path = tmp_path / "taken.json"
    (path / "more").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as refused:
        write_atomic(path, "x")
    assert (refused.value.filename, refused.value.filename2) == (str(path), None)
    assert list(tmp_path.iterdir()) == [path]
    below = tmp_path / "file" / "x.json"
    below.parent.touch()
    with pytest.raises(FileExistsError) as refused:
        write_atomic(below, "x")
    assert refused.value.filename == str(below.parent)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_once(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(folder, "_without_locks", set())
    for store in ("one", "two"):
        with locked(tmp_path / store / "lock"):
            pass
    assert caplog.messages == [
        f"{tmp_path / 'one'}: a file system without locks: two runs at once that need the same "
        "would both compute it"
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING"]

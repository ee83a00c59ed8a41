"""A subset as hashes: made again from another copy of the pool, whatever its order."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.selection import shared_subset
from prism_tune.selection.shared_subset import export_subset, verify_subset


@pytest.fixture
def run(published_run):
    return published_run


@pytest.fixture
def shared(run):
    path = run.root / "shared.parquet"
    export_subset(run, path)
    return path


@pytest.fixture
def copy(run, tmp_path):
    """Writes somebody else's copy: the pool's records after a change."""

    def write(change=lambda records: None) -> str:
        records = json.loads((run.root.parent / "pool.json").read_text())
        change(records)
        path = tmp_path / "copy.json"
        path.write_text(json.dumps(records))
        return str(path)

    return write


def kept_ids(run: RunDir) -> list[str]:
    return [record["id"] for record in json.loads(run.subset.read_text())]


@pytest.mark.parametrize("seed", range(3))
def test_from_a_shuffled_copy_comes_the_published_file(run, shared, copy, tmp_path, seed):
    made = tmp_path / "subset.json"
    found = verify_subset(shared, copy(random.Random(seed).shuffle), made)
    assert made.read_bytes() == run.subset.read_bytes()
    assert found.is_identical
    assert (found.missing, found.changed, found.extra) == ((), (), ())
    assert found.sha256 == fingerprint_file(run.subset)


def test_missing_changed_and_extra_records_are_named(run, shared, copy, tmp_path):
    gone, altered = kept_ids(run)[2:4]

    def change(records):
        records[:] = [record for record in records if record["id"] != gone]
        for record in records:
            if record["id"] == altered:
                record["conversations"][1]["value"] = "something else"
        records.append({**records[0], "id": "new", "image": "5.png"})

    made = tmp_path / "subset.json"
    found = verify_subset(shared, copy(change), made)
    assert found.missing == (gone,)
    assert found.changed == (altered,)
    assert found.extra == ("new",)
    assert found.sha256 is None
    assert not found.is_identical
    assert not made.exists()
    assert found.describe() == [
        f"1 records are missing: {gone}",
        f"1 records have changed (same id, other images or turns): {altered}",
        "1 records are extra, which changes nothing: new",
        "the subset cannot be made from this copy",
    ]


def test_records_that_were_not_kept_do_not_matter(run, shared, copy):
    kept = set(kept_ids(run))

    def drop_the_others(records):
        records[:] = [record for record in records if record["id"] in kept]

    assert verify_subset(shared, copy(drop_the_others), None).is_identical


def test_other_fields_leave_the_records_and_change_the_bytes(shared, copy, tmp_path):
    def add_a_field(records):
        for record in records:
            record["model"] = "gpt"

    made = tmp_path / "subset.json"
    found = verify_subset(shared, copy(add_a_field), made)
    assert not found.is_identical
    assert found.missing == found.changed == found.extra == ()
    assert fingerprint_file(made) == found.sha256
    assert "other fields, the formatting or the file format differ" in found.describe()[0]


def test_absolute_paths_are_the_same_images(run, shared, copy, tmp_path):
    def move(records):
        for record in records:
            if "image" in record:
                record["image"] = f"/elsewhere/images/{record['image']}"

    moved = copy(move)
    lost = verify_subset(shared, moved, None)
    assert lost.sha256 is None
    assert lost.describe()[-2] == (
        f"images have absolute paths ({lost.outside}): --image-dir names the folder that holds "
        "them all, for records are compared by what images are called inside it"
    )
    assert lost.outside.startswith("/elsewhere/images/")
    called = ["subset", "verify", shared, "--records", moved, "--image-dir", "/elsewhere/images"]
    found = CliRunner().invoke(app, [*map(str, called), "--to", str(tmp_path / "subset.json")])
    assert "with the published images and turns, but SHA-256" in found.output
    made = json.loads((tmp_path / "subset.json").read_text())
    assert [record["id"] for record in made] == kept_ids(run)


def test_what_is_shared_is_small_and_holds_no_text(run, shared):
    table = pq.read_table(shared)
    assert table.schema.names == ["hash", "kept", "id"]
    assert table.schema.field("hash").type == pa.binary(8)
    others = table.filter(pa.compute.invert(table.column("kept")))
    assert others.column("id").null_count == len(others) == len(table) - len(kept_ids(run))


@pytest.mark.parametrize(
    ("path", "published"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("/acme", "acme"),
        ("../acme", "acme"),
        ("acme/weights.tar", "weights.tar"),
        ("home/acme/llava", "llava"),
    ],
)
def test_where_files_lay_is_not_published_though_they_are_here_no_more(
    run, tmp_path, path, published
):
    copied = RunDir(shutil.copytree(run.root, tmp_path / run.root.name))
    stage = Stage(copied.selection)
    moved = stage.config().model_copy(update={"model": ModelConfig(path=path)})
    stage.finish({}, config=moved)
    export_subset(copied, tmp_path / "shared.parquet")
    metadata = pq.read_schema(tmp_path / "shared.parquet").metadata
    assert json.loads(metadata[b"prism_tune.subset"])["model"] == published


def test_hashes_that_agree_in_their_first_half_are_shared_whole(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_subset, "_SHORT_BYTES", 0)  # as if all of them agreed
    path = tmp_path / "shared.parquet"
    export_subset(run, path)
    assert pq.read_table(path).schema.field("hash").type == pa.binary(16)
    assert verify_subset(path, str(run.root.parent / "pool.json"), None).is_identical


def test_refusals(run, shared, copy, tmp_path):
    with pytest.raises(UserError, match=r"x\.jsonl: .* \(json\): expected a name in \.json"):
        verify_subset(shared, copy(), tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="first run `prism-tune select"):
        export_subset(RunDir(tmp_path / "nothing"), tmp_path / "x")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(UserError, match=r"other\.parquet: no shared subset"):
        verify_subset(other, "pool.json", None)
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="cannot be read as a shared subset"):
        verify_subset(tmp_path / "text", "pool.json", None)
    with pytest.raises(UserError, match="absent"):
        verify_subset(tmp_path / "absent", "pool.json", None)


def test_command_line(run, copy, tmp_path):
    def call(*arguments: str | Path):
        return CliRunner().invoke(app, ["subset", *map(str, arguments)])

    shared, made = tmp_path / "shared.parquet", tmp_path / "subset.json"
    assert call("export", run.root, "--to", shared).exit_code == 0
    verified = call("verify", shared, "--records", copy(), "--to", made)
    assert verified.exit_code == 0
    assert f"SHA-256 {fingerprint_file(run.subset)}: as published" in verified.output
    assert made.read_bytes() == run.subset.read_bytes()
    refused = call("verify", shared, "--records", copy(lambda records: records.clear()))
    assert refused.exit_code == 1
    assert "records are missing" in refused.output

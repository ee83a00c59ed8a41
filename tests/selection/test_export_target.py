"""What lies where an export is to go stays; only an earlier export of the same is replaced."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_json
from prism_tune.selection.export.layouts import export_pool, export_run, write_own
from prism_tune.selection.shared_subset import export_subset, verify_subset

pytestmark = pytest.mark.slow


@pytest.fixture
def run(published_run, tmp_path):
    """A copy of a finished run, with its pool and images; what other tests export stays behind."""
    ignore = shutil.ignore_patterns("exports")
    shutil.copytree(published_run.root.parent, tmp_path, dirs_exist_ok=True, ignore=ignore)
    record = tmp_path / "published" / "selection" / "stage.json"
    record.write_text(record.read_text().replace(str(published_run.root.parent), str(tmp_path)))
    return RunDir(tmp_path / "published")


@pytest.fixture
def pool(run):
    return run.root.parent / "pool.json"


@pytest.fixture
def shared(run):
    path = run.root / "shared.parquet"
    export_subset(run, path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_verify_keeps_the_pool_and_whatever_else_lies_there(run, pool, shared):
    before, others = pool.read_bytes(), pool.with_name("mine.json")
    with pytest.raises(UserError, match=r"pool\.json: this is the pool itself, and would be gone"):
        verify_subset(shared, str(pool), pool)
    others.write_text('["mine"]')
    with pytest.raises(UserError, match=r"mine\.json: there already, with another content"):
        verify_subset(shared, str(pool), others)
    assert (pool.read_bytes(), others.read_text()) == (before, '["mine"]')
    made = pool.with_name("subset.json")
    for _ in range(2):  # and again
        assert verify_subset(shared, str(pool), made).is_identical
    assert made.read_bytes() == run.subset.read_bytes()
    assert names(pool.parent) == ["images", "mine.json", "pool.json", "published", "subset.json"]


def test_verify_from_the_command_line(pool, shared):
    before = pool.read_bytes()
    given = ["subset", "verify", str(shared), "--records", str(pool), "--to", str(pool)]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 1
    assert isinstance(done.exception, UserError)
    assert pool.read_bytes() == before


def test_verify_keeps_the_shared_subset(run, shared):
    table = pa.Table.from_pylist([{"messages": [{"role": "user", "content": "q"}]}])
    copy = run.root.parent / "copy.parquet"
    pq.write_table(table, copy)
    before = shared.read_bytes()
    with pytest.raises(UserError):
        verify_subset(shared, str(copy), shared)
    assert shared.read_bytes() == before


@pytest.mark.parametrize("layout", ["llava", "sharegpt", "llamafactory"])
def test_an_export_keeps_the_pool(run, pool, layout):
    before = pool.read_bytes()
    with pytest.raises(UserError, match=r"pool\.json: this is the pool itself, and would be gone"):
        export_run(run, layout, pool)
    assert pool.read_bytes() == before
    assert names(pool.parent) == ["images", "pool.json", "published"]


@pytest.mark.parametrize(
    ("layout", "name"),
    [("llava", "x.json"), ("ms_swift", "x.jsonl"), ("parquet", "x.parquet")],
)
def test_an_export_is_made_again_and_replaces_no_other(run, tmp_path, layout, name):
    to = tmp_path / "out" / name
    for _ in range(2):
        export_run(run, layout, to)
    made = to.read_bytes()
    to.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{name}: there already, with another content, and left"):
        export_run(run, layout, to)
    assert to.read_bytes() == b"mine"
    to.unlink()
    export_run(run, layout, to)
    assert to.read_bytes() == made
    assert names(to.parent) == [name]


def test_a_pool_in_its_own_layout_keeps_its_file(pool):
    opened, before = open_pool(DataConfig(records=str(pool))), pool.read_bytes()
    with pytest.raises(UserError, match=r"pool\.json: this is the pool itself"):
        export_pool(opened, "llava", pool)
    with pytest.raises(UserError, match=r"pool\.json: this is the pool itself"):
        write_own(opened, pool)
    other = pool.with_name("mine.jsonl")
    other.write_text("{}\n")
    with pytest.raises(UserError, match=r"mine\.jsonl: there already"):
        write_own(opened, other)
    assert (pool.read_bytes(), other.read_text()) == (before, "{}\n")


def test_hashes_replace_those_of_the_same_run_only(run, pool, shared, tmp_path):
    before = pool.read_bytes()
    with pytest.raises(UserError, match=r"pool\.json: .* expected a name in \.parquet"):
        export_subset(run, pool)
    assert pool.read_bytes() == before
    export_subset(run, shared)
    mine = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"a": [1]}), mine)
    with pytest.raises(UserError, match=r"mine\.parquet: .* no shared subset of the run published"):
        export_subset(run, mine)
    assert pq.read_table(mine).to_pydict() == {"a": [1]}
    record = run.selection / "stage.json"
    record.write_text(record.read_text().replace('"published"', '"another"'))
    with pytest.raises(UserError, match=r"shared\.parquet: .* no shared subset of the run another"):
        export_subset(run, shared)


@pytest.mark.parametrize("has_file", [True, False])
def test_a_data_set_of_llamafactory_keeps_its_file_and_entry(run, tmp_path, has_file):
    folder = tmp_path / "LF"
    folder.mkdir()
    info = {"a": {"file_name": "a.json", "formatting": "alpaca"}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    if has_file:
        (folder / "a.json").write_text('["mine"]')
    before = names(folder)
    with pytest.raises(UserError, match=r"dataset_info\.json: its entry `a` is of another data"):
        export_run(run, "llamafactory", folder / "a.json")
    assert read_json(folder / "dataset_info.json") == info
    assert names(folder) == before
    if has_file:
        assert (folder / "a.json").read_text() == '["mine"]'
    for _ in range(2):
        export_run(run, "llamafactory", folder / "b.json")
    assert list(read_json(folder / "dataset_info.json")) == ["a", "b"]


@pytest.mark.parametrize("layout", ["llava", "parquet"])
def test_a_folder_in_the_place_of_the_file_is_named(run, tmp_path, layout):
    to = tmp_path / ("x.json" if layout == "llava" else "x.parquet")
    to.mkdir()
    with pytest.raises(UserError, match=f"^{to}: a folder; name the file to write, for example"):
        export_run(run, layout, to)
    assert names(to) == []


@pytest.mark.parametrize(
    ("layout", "file"),
    [("parquet", "published.parquet"), ("trl", "published/train-00000.parquet")],
)
def test_an_export_that_cannot_be_made_leaves_the_one_before(run, layout, file):
    """`select --as`, `export_run` without a target."""
    export_run(run, layout)
    before = (run.exports / layout / file).read_bytes()
    images = run.root.parent / "images"
    images.rename(images.with_name("away"))
    with pytest.raises(UserError, match="No such file"):
        export_run(run, layout)
    assert (run.exports / layout / file).read_bytes() == before
    assert names(run.exports) == [layout]
    images.with_name("away").rename(images)
    export_run(run, layout)
    assert names(run.exports) == [layout]


def test_images_that_records_hold_stand_where_the_rows_say(run, tmp_path):
    export_run(run, "parquet", tmp_path / "held.parquet")
    held = open_pool(DataConfig(records=str(tmp_path / "held.parquet")))
    to = tmp_path / "out" / "mine.jsonl"
    for _ in range(2):
        export_pool(held, "ms_swift", to)
    rows = [json.loads(line) for line in to.read_text().splitlines()]
    images = {image for row in rows for image in row["images"]}
    assert images == {str(path) for path in (to.parent / "mine_images").iterdir()}
    assert names(to.parent) == ["mine.jsonl", "mine_images"]

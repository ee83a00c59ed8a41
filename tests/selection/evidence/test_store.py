"""One store for all runs below an output_dir: computed once, kept by every run that read it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time

import numpy as np
import pytest
from support.ranks import Ranks
from support.tiny import draw_pool

from prism_tune.cli.app import main
from prism_tune.errors import UserError
from prism_tune.results.runs import FinishedRun
from prism_tune.run import partial
from prism_tune.run.folder import RunDir
from prism_tune.selection import select as select_module
from prism_tune.selection.evidence import store as evidence_store
from prism_tune.selection.evidence.store import EvidenceStore

pytestmark = pytest.mark.slow


def in_small_shards():
    """The command line."""
    evidence_store.UNITS_PER_SHARD = 4
    main()


def test_two_runs_at_once_compute_it_once(workplace):
    workplace.use_pool(draw_pool(workplace.root / "large", num_images=80))
    select = ["select", str(workplace.config_file)]
    begun = [
        Ranks([*select, f"name={name}"], workplace.root / f"{name}.txt", program=in_small_shards)
        for name in ("one", "two")
    ]
    for process in begun:
        process.succeed()
    runs = [workplace.read(workplace.run_dir(name=name)) for name in ("one", "two")]
    computed = [run.manifest["evidence"]["features"]["num_computed"] for run in runs]
    assert sorted(computed) == [0, 80]
    waited = runs[computed.index(0)]
    assert "another run computes them; waiting for it" in waited.run.log.read_text()
    assert len(workplace.shards()) == 20
    assert runs[0].scores == runs[1].scores
    costs = [run.manifest["timings"] for run in runs]
    assert costs[0]["evidence_seconds"] == costs[1]["evidence_seconds"]
    # The one that waited is not charged twice for the same seconds.
    own = waited.manifest["timings"]
    assert own["device_seconds"] < 2 * own["evidence_seconds"]


def test_a_run_keeps_links_to_what_it_read_and_to_nothing_else(workplace):
    first = workplace.select()
    (kept,) = first.run.features.glob("shard-*")
    (shard,) = workplace.shards()
    assert kept.stat().st_ino == shard.stat().st_ino
    described = first.manifest["evidence"]["features"]
    assert described["folder"] == str(shard.parent)
    assert described["fingerprint"].startswith(shard.parent.name)
    changed = workplace.select(selection__layer=2)
    (kept,) = changed.run.features.glob("shard-*")
    assert kept.stat().st_ino in {path.stat().st_ino for path in workplace.shards()}
    assert kept.stat().st_ino != shard.stat().st_ino
    other = workplace.select(selection__scorer="perplexity")
    assert [path.name for path in other.run.evidence.iterdir()] == ["answer_losses"]
    none = workplace.select(selection__scorer="random")
    assert list(none.run.evidence.glob("*")) == []


def test_where_links_cannot_be_made_files_are_copied(workplace, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    result = workplace.select()
    (kept,) = result.run.features.iterdir()
    assert kept.read_bytes() == workplace.shards()[0].read_bytes()
    assert kept.stat().st_nlink == 1


def test_a_run_that_is_moved_alone_has_its_features(workplace):
    result = workplace.select()
    before = FinishedRun(result.run).features
    moved = shutil.copytree(result.run.root, workplace.root / "moved")
    rows = before.values_UD[slice(0, 16)].copy()
    shutil.rmtree(workplace.root / "runs")
    after = FinishedRun(RunDir(moved)).features
    np.testing.assert_array_equal(after.values_UD[slice(0, 16)], rows)
    np.testing.assert_array_equal(after.row_N, before.row_N)


def test_a_store_that_was_deleted_is_computed_anew(workplace):
    first = workplace.select()
    shutil.rmtree(workplace.root / "runs/evidence")
    again = workplace.select(selection__budget=0.25)
    assert again.manifest["evidence"]["features"]["num_computed"] == 16
    scores = [[row["score"] for row in result.scores] for result in (first, again)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("moment", ["found", "read"])
def test_shards_that_are_deleted_while_a_run_reads_them(workplace, monkeypatch, moment):
    """Another run's `--force` does so, or a user: the reader has them linked, or looks again."""
    first = workplace.select()
    shards = workplace.shards()
    if moment == "found":
        find, deleted = EvidenceStore.find, []

        def find_in_vain(store, keys):
            found = find(store, keys)
            while shards:
                deleted.append(shards.pop())
                deleted[-1].unlink()
            return found

        monkeypatch.setattr(EvidenceStore, "find", find_in_vain)
    else:
        rank = select_module.rank_pool

        def rank_without_store(*arguments):
            for path in shards:
                path.unlink()
            return rank(*arguments)

        monkeypatch.setattr(select_module, "rank_pool", rank_without_store)
    again = workplace.select(selection__budget=0.25)
    assert [row["score"] for row in again.scores] == [row["score"] for row in first.scores]
    assert again.manifest["evidence"]["features"]["num_computed"] == 16 * (moment == "found")
    assert len(FinishedRun(again.run).features.row_N) == len(again.scores)


def test_a_selection_that_fails_leaves_the_links_of_the_one_before(workplace, monkeypatch):
    first = workplace.select()
    kept = [path.name for path in first.run.features.iterdir()]

    def fail(*_):
        raise UserError("no budget")

    monkeypatch.setattr(select_module, "rank_pool", fail)
    with pytest.raises(UserError, match="no budget"):
        workplace.select(selection__layer=2)
    assert [path.name for path in first.run.features.iterdir()] == kept
    monkeypatch.undo()
    workplace.select(selection__layer=2)
    assert not first.run.next_evidence.exists()


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        ("prism", {"keep": "low", "features": "visual"}),
        ("alignment", {"keep": "low", "features": "pair"}),
        ("perplexity", {"keep": "middle", "features": "visual"}),
        ("length", {"keep": "high", "features": "visual"}),
    ],
)
def test_what_is_recorded_is_what_ran(workplace, scorer, expected):
    """Once `keep: null` stood there, and `features: visual` for an alignment."""
    result = workplace.select(selection__scorer=scorer)
    recorded = json.loads((result.run.selection / "stage.json").read_text())["config"]["selection"]
    assert {key: recorded[key] for key in expected} == expected
    again = workplace.select(
        selection__scorer=scorer, **{f"selection__{key}": value for key, value in expected.items()}
    )
    assert again.manifest == result.manifest  # the config as recorded is the one that has finished


@pytest.mark.parametrize("damage", ["rows", "cut", "no shard", "manifest", "list"])
def test_what_is_damaged_is_made_anew_and_said(workplace, caplog, damage):
    """Evidence is a cache: 100 bytes of a shard's rows once changed a subset without a word."""
    first = workplace.select()
    path = workplace.shards()[0]
    content = path.read_bytes()
    if damage in ("manifest", "list"):
        path = path.with_name("manifest.json")
        path.write_text("" if damage == "manifest" else "[]")
    elif damage == "rows":
        path.write_bytes(content[:-400] + b"\xff" * 100 + content[-300:])
    else:
        path.write_bytes(content[:-400] if damage == "cut" else b"nothing")
    again = workplace.select(selection__budget=0.25, name="again")
    assert f"{path}: damaged, so it is deleted and made anew" in caplog.text
    assert [row["score"] for row in again.scores] == [row["score"] for row in first.scores]
    caplog.clear()
    workplace.select(selection__budget=0.2, name="third")
    assert "damaged" not in caplog.text


def test_what_another_node_may_be_writing_is_not_removed(tmp_path, monkeypatch):
    """Where a lock may be a node's own, a second run came upon the live shards of the first."""
    store = EvidenceStore(str(tmp_path), "features", {})
    for name, minutes in (("live", 50), ("left", 70)):
        folder = store.folder / f".partial-{name}"
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - 60 * minutes,) * 2)
    with monkeypatch.context() as on_a_network:
        on_a_network.setattr(partial, "is_local", lambda path: False)
        store.remove_partial()
    assert [path.name for path in store.folder.iterdir()] == [".partial-live"]
    store.remove_partial()  # by whom holds the lock that every process knows
    assert list(store.folder.iterdir()) == []

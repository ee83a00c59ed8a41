"""T_select: the evidence a selection reads, whoever computed it, and its own work."""

from __future__ import annotations

import time

import pytest

from prism_tune.features.shards import read_shard
from prism_tune.results.runs import FinishedRun
from prism_tune.run.timings import read_timings
from prism_tune.selection import select as select_module
from prism_tune.selection.evidence import store as evidence_store
from prism_tune.selection.evidence.store import EvidenceStore, lock_stores

pytestmark = pytest.mark.slow


def evidence_of(run):
    return {e["evidence"]: e["device_seconds"] for e in read_timings(run) if e["evidence"]}


def own_seconds(run):
    return sum(e["device_seconds"] for e in read_timings(run) if not e["evidence"])


def seconds_on_disk(workplace, kind="features"):
    return sum(read_shard(path).seconds for path in workplace.shards(kind))


class Clock:
    """A second passes whenever somebody looks at it, and more when it is told so."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        self.seconds += 1
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_a_fresh_selection_takes_its_time_and_no_more(workplace, clock):
    result = workplace.select()
    taken = clock.seconds
    assert evidence_of(result.run) == {"features": pytest.approx(seconds_on_disk(workplace))}
    total = FinishedRun(result.run).total("selection")
    assert seconds_on_disk(workplace) < total < taken
    assert result.manifest["timings"]["device_seconds"] == pytest.approx(
        total, abs=1
    )  # one look later


@pytest.mark.parametrize("change", [{"selection__budget": 0.25}, {"name": "second"}])
def test_who_finds_the_evidence_is_charged_for_it_in_full(workplace, change):
    """A rescoring in the same folder, and another run: each as if it had been the only one."""
    first = workplace.select()
    second = workplace.select(**change)
    assert second.manifest["evidence"]["features"]["num_computed"] == 0
    assert evidence_of(second.run) == evidence_of(first.run)
    assert FinishedRun(second.run).total("selection") > seconds_on_disk(workplace)
    assert FinishedRun(second.run).total("selection", "images") == 16
    assert second.manifest["timings"]["num_attempts"] == 1  # an earlier scoring is another's


def test_a_selection_that_comes_back_to_its_features_is_charged_for_them(workplace):
    first = workplace.select()
    between = workplace.select(selection__scorer="perplexity")
    assert evidence_of(between.run).keys() == {"answer_losses"}
    again = workplace.select()
    assert evidence_of(again.run) == {"features": pytest.approx(seconds_on_disk(workplace))}
    assert again.manifest["timings"]["num_images"] == first.manifest["timings"]["num_images"]


def test_d2_is_charged_for_both_kinds_it_reads(workplace):
    """It once said what the losses took, or the features, but never both."""
    features = workplace.select().manifest["timings"]
    losses = workplace.select(selection__scorer="el2n").manifest["timings"]
    both = workplace.select(
        selection__scorer="d2", selection__options="{difficulty: el2n, num_neighbors: 4}"
    )
    assert evidence_of(both.run).keys() == {"features", "answer_losses"}
    assert both.manifest["timings"]["num_images"] == features["num_images"] + losses["num_images"]
    seconds = features["evidence_seconds"] + losses["evidence_seconds"]
    assert both.manifest["timings"]["evidence_seconds"] == pytest.approx(seconds, abs=0.01)
    assert FinishedRun(both.run).total("selection") > seconds


def test_a_killed_attempt_counts_as_far_as_it_got(workplace, monkeypatch):
    """Its shards by what stands in them; its own time beside that of the one that finished."""
    monkeypatch.setattr(evidence_store, "UNITS_PER_SHARD", 4)
    write = EvidenceStore.write_shard

    def kill_third(store, *arguments):
        if len(store.shards()) == 2:
            raise KeyboardInterrupt
        write(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceStore, "write_shard", kill_third)
        with pytest.raises(KeyboardInterrupt):
            workplace.select()
    killed_shards, killed_own = seconds_on_disk(workplace), own_seconds(workplace.run_dir())
    resumed = workplace.select()
    assert resumed.manifest["timings"]["num_attempts"] == 2
    assert resumed.manifest["timings"]["num_images"] == 16
    assert evidence_of(resumed.run)["features"] > killed_shards > 0
    assert own_seconds(resumed.run) > killed_own > 0


def test_a_scoring_that_failed_is_charged_once(workplace, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(select_module, "rank_pool", None)
        with pytest.raises(TypeError):
            workplace.select()
    assert not any(entry["finished"] for entry in read_timings(workplace.run_dir()))
    result = workplace.select()
    entries = read_timings(result.run)
    assert [entry["evidence"] for entry in entries] == [None, "features", None]
    assert entries[1]["device_seconds"] == pytest.approx(seconds_on_disk(workplace))


def test_of_a_shard_that_pools_share_each_is_charged_for_its_own_part(workplace):
    records = workplace.records()
    whole = workplace.select()
    workplace.write_records([r for r in records if r.get("image") in ("0.png", "1.png")])
    part = workplace.select(name="part", selection__budget=1)
    assert part.manifest["evidence"]["features"]["num_computed"] == 0
    assert part.manifest["timings"]["num_images"] == 2
    expected = evidence_of(whole.run)["features"] * 2 / 16
    assert evidence_of(part.run)["features"] == pytest.approx(expected, abs=0.002)


def test_waiting_for_another_run_is_not_charged(workplace, monkeypatch, clock):
    """The lock says how long it took to get; these seconds are in the other run's shards."""
    real = lock_stores

    class Slow:
        def __init__(self, stores):
            self._lock = real(stores)

        def __enter__(self):
            self._lock.__enter__()
            clock.seconds += 1000
            return 1000.0

        def __exit__(self, *error):
            return self._lock.__exit__(*error)

    monkeypatch.setattr("prism_tune.selection.evidence.filling.lock_stores", Slow)
    result = workplace.select(selection__scorer="el2n")
    assert FinishedRun(result.run).total("selection") < clock.seconds - 1000

"""What a record of a run is like, and which dropped ones of a large pool are looked at."""

from __future__ import annotations

import numpy as np
import pytest
from support.drawn_runs import write_drawn_run

from prism_tune.report import relatives
from prism_tune.report.relatives import Relatives, closest_kept
from prism_tune.results.runs import FinishedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return FinishedRun(write_drawn_run(tmp_path_factory.mktemp("relatives")))


def test_the_loneliest_dropped_records_are_found_by_sketches(run, monkeypatch):
    """The half of the 42 dropped ones that sketches name holds the exact three."""
    records = run.records
    dropped = np.flatnonzero(records.is_ranked_N & ~records.selected_N)
    monkeypatch.setattr(relatives, "_LONELIEST", len(dropped) // 2)
    found = Relatives(run, records).find_lonely()
    exact = Relatives(run, records).find(dropped.tolist())
    by_closest = sorted(exact, key=lambda row: closest_kept(exact[row], records))
    assert set(by_closest[:3]) <= set(found) <= set(dropped.tolist())


def test_a_kept_record_of_the_same_image_is_a_relative(run):
    records = run.records
    rows = np.flatnonzero(records.is_ranked_N & ~records.selected_N).tolist()
    for found in Relatives(run, records).find(rows).values():
        shares = any(records.selected_N[row] for row in found.same_image)
        assert (closest_kept(found, records) == 1.0) == shares


def test_without_features_nothing_is_made_up(run):
    config = run.config.model_copy(
        update={"selection": run.config.selection.model_copy(update={"features": "pair"})}
    )
    own = FinishedRun(run.run)
    own.__dict__["config"] = config
    found = Relatives(own, own.records)
    assert found.absent == "This selector compares a record's image with its own text, not records."
    assert found.find([1]) == {}
    assert found.find_lonely() == []
    assert not found.label().group_N.any()

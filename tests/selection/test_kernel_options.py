"""kernel_repulsion's options through the stage: what is read, what is charged, what is refused."""

from __future__ import annotations

import pytest

from prism_tune.errors import UserError
from prism_tune.run.timings import read_timings
from prism_tune.selection.scorers.kernels import gain

pytestmark = pytest.mark.slow

ALL = "{gamma: 2.0, gain_share: 0.5, text_weight: 0.5, deficit: 1.0, quota_power: 0.5}"


@pytest.fixture
def kernel(workplace):
    """Selects with some options."""

    def select(options, **overrides):
        scorer = {"selection__scorer": "kernel_repulsion", "selection__options": options}
        return workplace.select(**scorer, **overrides)

    return select


def test_the_gain_is_measured_on_its_share_and_charged(kernel, monkeypatch):
    """Half of each of two sources of twelve; another seed measures the same records."""
    monkeypatch.setattr(gain, "MIN_R2", -1e9)
    result = kernel(ALL)
    evidence = result.manifest["evidence"]
    computed = {kind: of_kind["num_computed"] for kind, of_kind in evidence.items()}
    assert computed["answer_losses"] == computed["blind_losses"] == 12
    assert set(computed) == {"features", "text_sif", "answer_losses", "blind_losses"}
    assert result.manifest["num_gains_measured"] == 12
    assert result.manifest["num_skipped"] == {}
    assert result.manifest["num_selected"] == 14
    assert set(result.manifest["quota_shares"]) == {"colour", "shape"}
    seconds = {e["evidence"]: e["device_seconds"] for e in read_timings(result.run)}
    assert min(seconds[kind] for kind in computed) > 0
    again = kernel(ALL, seed=1).manifest
    assert all(of_kind["num_computed"] == 0 for of_kind in again["evidence"].values())
    assert again["gain_r2"] == result.manifest["gain_r2"]
    assert again["subset_sha256"] != result.manifest["subset_sha256"]


def test_a_gain_that_cannot_be_predicted_is_refused_and_leaves_what_was_there(kernel):
    before = kernel("{}").manifest["subset_sha256"]
    with pytest.raises(UserError, match=r"cannot be predicted .* 0\.1 is the least"):
        kernel("{gamma: 2.0, gain_share: 0.25}")
    assert kernel("{}").manifest["subset_sha256"] == before

"""kernel_repulsion with each of its options and with all: what every selector promises."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import ConfigError
from prism_tune.selection.evidence.without import BLIND_LOSSES
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.kernels.density import Rbf

GAIN = {"gamma": 2.0, "gain_share": 0.5}
EACH = {
    "gain": GAIN,
    "shuffled": {**GAIN, "shuffle_gain": True},
    "joint": {"text_weight": 0.5},
    "deficit": {"alpha": 1.0, "beta": 0.0, "deficit": 1.0},
    "quota": {"quota_power": 0.5},
    "all": {**GAIN, "alpha": 1.0, "text_weight": 0.5, "deficit": 1.0, "quota_power": 0.5},
}


@pytest.fixture(params=list(EACH))
def options(request):
    return EACH[request.param]


@pytest.fixture
def told(clustered):
    """With texts, and gains that these tell, measured on half of the records."""
    rng = np.random.default_rng(3)
    clustered.texts_ND = rng.normal(size=(120, 6)).astype(np.float32)
    clustered.gain_N = np.where(np.arange(120) % 2, clustered.texts_ND[:, 0], np.nan)
    return clustered


def select(table, **settings):
    return table.select("kernel_repulsion", **settings)


def test_the_subset_owes_nothing_to_the_pools_order(options, told):
    assert select(told.shuffled(1), **options) == select(told, **options)


def test_a_smaller_budget_is_nested_in_a_larger_one(options, told):
    subsets = [select(told, budget=budget, **options) for budget in (0.1, 0.3, 0.9)]
    assert [len(subset) for subset in subsets] == [12, 36, 108]
    assert subsets[0] < subsets[1] < subsets[2]


def test_the_seed_decides_and_the_options_matter(options, told):
    assert select(told, seed=1, **options) != select(told, seed=2, **options)
    assert select(told, seed=1, **options) != select(told, seed=1)


def test_the_number_of_threads_changes_nothing(options, told, monkeypatch):
    wanted = select(told, **options)
    monkeypatch.setattr("prism_tune.features.row_blocks.count_cores", lambda: 5)
    assert select(told, **options) == wanted


def test_a_record_alone_in_its_source_and_one_without_a_feature(options, told):
    told.features_UD[3] = np.nan
    told.sources = ["alone", *told.sources[1:]]
    scored = told.run("kernel_repulsion", **options)
    lacking = told.row_N == 3
    assert (np.isnan(scored.values_M) == lacking).all()
    assert scored.diagnostics["num_non_finite"] == lacking.sum() >= 1


def test_the_kernel_of_images_and_texts_is_its_definition():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(5, 7)), rng.normal(size=(4, 7))
    squares = (left[:, None] - right) ** 2
    of_images = np.exp(-squares[:, :, :4].sum(axis=2) / (2 * 3.0))
    of_texts = np.exp(-squares[:, :, 4:].sum(axis=2) / (2 * 2.0))
    np.testing.assert_allclose(
        Rbf(3.0, 0.3, 2.0, 4)(left, right), of_images * (0.7 + 0.3 * of_texts)
    )
    np.testing.assert_allclose(Rbf(3.0)(left[:, :4], right[:, :4]), of_images)
    halved = Rbf(3.0, 1.0, 2.0, 4).narrow(1.5)
    np.testing.assert_allclose(halved(left, right), (of_images * of_texts) ** 2)


def test_of_records_of_one_image_the_one_that_says_another_thing_stays(make_table):
    """Five images of eight records, seven with the same text: at a quarter the eighth is kept."""
    records = np.arange(40)
    texts = np.eye(10)[2 * (records // 8) + (records % 8 == 7)]
    table = make_table(np.eye(5), records // 8, texts_ND=texts)

    def count_others(**options):
        kept = [
            select(table, budget=0.25, seed=seed, bandwidth=0.1, **options) for seed in range(9)
        ]
        return np.mean([sum(int(uid[4:]) % 8 == 7 for uid in of_seed) for of_seed in kept])

    assert count_others(text_weight=1.0, beta=64.0) > 4.5
    assert count_others(text_weight=0.5) > 3
    assert count_others() < 2


def test_evidence_is_read_as_the_options_ask():
    def names(scorer="kernel_repulsion", **options):
        table = {"scorer": scorer, "options": options}
        return [source.name for source in SCORERS[scorer].reads(make_config(table))]

    assert names() == names("kernel_prism") == ["features"]
    assert names(text_weight=0.5) == names("kernel_prism", text_weight=0.5)
    assert names(text_weight=0.5) == ["features", "text_sif"]
    assert names(**GAIN) == ["features", "text_sif", "answer_losses", BLIND_LOSSES.name]
    assert names(quota_power=0.5, deficit=1.0) == ["features"]


def make_config(selection):
    from prism_tune.config.sections import Config

    values = {"name": "run", "model": {"path": "none"}, "data": {"records": "none.json"}}
    return Config.model_validate({**values, "selection": selection})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": -1}, "`gamma` = -1: expected a number from 0"),
        ({"text_weight": 2}, "`text_weight` = 2: expected a number from 0 to 1"),
        ({"quota_power": 1.5}, "`quota_power` = 1.5: expected a number from 0 to 1"),
        ({"deficit": float("inf")}, "`deficit` = 'inf': expected a number from 0"),
        ({"gain_share": 0.0}, "`gain_share` = 0.0: expected "),
    ],
)
def test_options_are_refused_by_name(wrong, message, clustered):
    with pytest.raises(ConfigError, match=message):
        clustered.run("kernel_repulsion", **wrong)

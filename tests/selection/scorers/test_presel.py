"""presel's quotas and its typical images, against the definition and by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.scorers.clusters.presel import (
    PreselOptions,
    measure_typicality,
    order_typical,
    weigh_sources,
)

pytestmark = pytest.mark.slow

GLOBAL = {
    "selection__scorer": "presel",
    "selection__scope": "global",
    "selection__text_only": "drop",
    "selection__options": "{reference_share: 0.5}",
}


def test_quotas_are_those_of_the_losses(workplace):
    """Of half of each source's records the losses with the question and without it."""
    result = workplace.select(**GLOBAL)
    evidence = result.manifest["evidence"]
    assert evidence["answer_losses"]["num_units"] == evidence["unasked_losses"]["num_units"] == 12
    assert result.manifest["num_skipped"] == {}
    need = result.manifest["loss_ratios"]
    weights = weigh_sources(np.array([need["colour"], need["shape"]]), 2**-0.5)
    quotas = result.manifest["quotas"]
    wanted = min(8, round(12 * weights[0]))
    assert quotas == {"colour": wanted, "shape": 12 - wanted}
    assert {k: v["kept"] for k, v in result.manifest["per_source"].items() if v["kept"]} == quotas


def test_quotas_are_kept_where_tokens_are_counted(workplace):
    """The number of records is not known beforehand; their shares are those of the losses."""
    result = workplace.select(**GLOBAL, selection__budget_of="tokens", selection__budget=0.3)
    shares = result.manifest["quota_shares"]
    need = result.manifest["loss_ratios"]
    weights = weigh_sources(np.array([need["colour"], need["shape"]]), 2**-0.5)
    assert [shares["colour"], shares["shape"]] == pytest.approx(weights)
    kept = {name: of["kept"] for name, of in result.manifest["per_source"].items()}
    assert kept["colour"] == pytest.approx((kept["colour"] + kept["shape"]) * weights[0], abs=0.75)


def losses_by_definition(workplace, records):
    workplace.write_records(records)
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, range(len(pool)), processor, "vicuna_v1", 2048)
    found = []
    for number in range(len(pool)):
        inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples[number].items()}
        with torch.no_grad():
            found.append(model(**inputs).loss.item())
    return np.array(found)


def test_a_source_needs_its_questions_as_the_losses_say(workplace):
    records = [record for record in workplace.records() if "image" in record]
    twins = json.loads(json.dumps(records))
    for twin in twins:
        twin["conversations"][0]["value"] = "<image>"
    unasked = losses_by_definition(workplace, twins)
    ratios = losses_by_definition(workplace, records) / unasked
    whole = {**GLOBAL, "selection__options": "{reference_share: 1.0}"}
    found = workplace.select(**whole).manifest["loss_ratios"]
    sources = np.array([record["source"] for record in records])
    expected = {source: ratios[sources == source].mean() for source in ("colour", "shape")}
    assert found == pytest.approx(expected, rel=1e-4)


def test_inside_a_source_no_loss_is_measured(workplace):
    result = workplace.select(selection__scorer="presel")
    assert set(result.manifest["evidence"]) == {"features"}
    assert result.manifest["num_selected"] == 14


@pytest.mark.parametrize(
    ("need", "temperature", "weights"),
    [((0.5, 0.5), 0.5, (0.5, 0.5)), ((0.5, 1.0), 0.5, (0.7311, 0.2689))],
)
def test_weights_by_hand(need, temperature, weights):
    found = weigh_sources(np.array(need), temperature)
    assert found.tolist() == pytest.approx(weights, abs=5e-5)


def test_typicality_is_that_of_the_definition():
    rows = np.random.default_rng(0).normal(size=(30, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    expected = [np.mean(sorted(np.delete(cosines[i], i))[-5:]) for i in range(30)]
    np.testing.assert_allclose(measure_typicality(rows, 5), expected)
    assert measure_typicality(rows[:1], 5).tolist() == [0.0]
    np.testing.assert_allclose(measure_typicality(rows[:2], 5), [cosines[0, 1]] * 2)


def test_every_cluster_gives_its_share_of_the_typical(make_table):
    """Two bunches of 20 and 10 images, each with one record far off: of 9 kept 6 and 3."""
    rng = np.random.default_rng(1)
    bunches = np.repeat(np.eye(2, 6) * 9, (20, 10), axis=0)
    rows = bunches + rng.normal(size=(30, 6)) * 0.3
    rows[[5, 25], 4] += 4.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    options = PreselOptions(records_per_cluster=15)
    context = SimpleNamespace(config=SimpleNamespace(seed=0))
    order = order_typical(rows, np.arange(30), options, context)
    kept = order[:9]
    assert (kept < 20).sum() == 6
    assert {5, 25} == set(order[-2:].tolist())


def test_order_and_nesting(clustered):
    assert clustered.shuffled(1).select("presel") == clustered.select("presel")
    assert clustered.select("presel", budget=0.1) < clustered.select("presel", budget=0.3)


def test_options_that_do_not_fit_are_refused(workplace):
    with pytest.raises(ConfigError, match="`temperature` = 0"):
        workplace.select(selection__scorer="presel", selection__options="{temperature: 0}")
    with pytest.raises(ConfigError, match="rank: presel has no score for records without image"):
        workplace.select(
            selection__scorer="presel",
            selection__text_only="rank",
            selection__budget_of="rows",
        )

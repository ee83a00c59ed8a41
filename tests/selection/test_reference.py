"""Evidence of another model than the target: named, with an adapter, or warmed up first."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prism_tune.config.sections import WarmupConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.checkpoint import load_tuned
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.timings import read_timings
from prism_tune.selection.reference.draw import draw_records, share_equally
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other_model(tiny_llava_dir, tmp_path_factory):
    """The same architecture with other weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_llava_dir, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({k: 0.9 * v for k, v in weights.items()}, folder / "model.safetensors")
    return folder


def scores(result):
    return {row["id"]: row["score"] for row in result.scores if row["rank"]}


@pytest.mark.parametrize("scorer", ["perplexity", "prism", "datatailor"])
def test_evidence_of_another_model_is_that_of_it_as_the_target(workplace, other_model, scorer):
    asked = {"selection__scorer": scorer}
    reference = json.dumps({"model": str(other_model), "template": "vicuna_v1"})
    own = workplace.select(**asked, name="own")
    read = workplace.select(**asked, selection__reference=reference)
    target = workplace.select(
        **asked, name="t", model__path=str(other_model), output_dir=str(workplace.root / "o")
    )
    assert scores(read) == pytest.approx(scores(target), rel=1e-6)
    assert scores(read) != pytest.approx(scores(own), rel=1e-3)
    assert read.manifest["reference"] == {
        "model": str(other_model),
        "adapter": None,
        "warmup": None,
    }
    assert "reference" not in own.manifest


@pytest.mark.parametrize("scorer", ["perplexity", "prism"])
def test_an_adapter_is_read_merged_and_kept_apart(workplace, adapter, scorer, tmp_path):
    """Against the merged weights as a model of their own; the target's evidence stays its own."""
    config = workplace.config()
    merged = load_tuned(config, adapter, dtype=torch.float32, device=torch.device("cpu"))
    shutil.copytree(config.model.path, tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")
    asked = {"selection__scorer": scorer}
    own = workplace.select(**asked, name="own")
    read = workplace.select(**asked, selection__reference__adapter=str(adapter))
    reference = json.dumps({"model": str(tmp_path / "merged"), "template": "vicuna_v1"})
    whole = workplace.select(**asked, name="whole", selection__reference=reference)
    assert scores(read) == pytest.approx(scores(whole), rel=1e-5)
    assert scores(read) != pytest.approx(scores(own), rel=1e-3)
    kind = "features" if scorer == "prism" else "answer_losses"
    assert len(list((workplace.root / "runs/evidence" / kind).iterdir())) == 3
    again = workplace.select(**asked, name="own", selection__budget=0.25)
    assert again.manifest["evidence"][kind]["num_computed"] == 0


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"model": "./nowhere"}, r"selection.reference.model: ./nowhere: no such directory"),
        ({"adapter": "./nowhere"}, r"selection.reference.adapter: nowhere: no adapter_config.json"),
        ({"revision": "main"}, r"selection.reference.revision: of which model"),
        ({"adapter": "a", "warmup": {}}, r"selection.reference: `adapter` is a LoRA"),
    ],
)
def test_a_reference_that_cannot_be_is_refused_early(workplace, reference, said):
    with pytest.raises(ConfigError, match=said):
        workplace.select(selection__reference=json.dumps(reference))
    assert not (workplace.root / "runs/run").exists()


@pytest.mark.parametrize("more", ["warmup", "adapter"])
def test_a_lora_on_top_of_a_lora_is_refused(workplace, adapter, more):
    """It would be read, or trained, on the base, as if the first were not there."""
    reference = {"model": str(adapter), more: {} if more == "warmup" else str(adapter)}
    with pytest.raises(ConfigError, match=rf"{adapter} is a LoRA itself, which another one"):
        workplace.select(selection__scorer="prism", selection__reference=json.dumps(reference))


WARMUP = {"share": 0.3, "lora_rank": 4, "lora_alpha": 8, "max_steps": 3, "learning_rate": 0.01}
WARMUP["hf"] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "save_steps": 1}


def warm(workplace, *, tune=train, warmup=WARMUP, **overrides):
    """A selection whose evidence is read with a warm-up."""
    asked = {"selection__scorer": "perplexity", **overrides}
    asked["selection__reference"] = json.dumps({"warmup": warmup})
    return workplace.select(tune=tune, **asked)


def no_training(config, run):
    raise AssertionError("trained again")


def folders(workplace):
    return [path for path in (workplace.root / "runs/references").iterdir() if path.is_dir()]


def test_a_few_records_are_learnt_in_more_than_one_step(workplace):
    """As the methods' own warm-ups are: of 128 records a step, these would be a single one."""
    warm(workplace, warmup={"share": 0.5, "lora_rank": 4})
    (folder,) = folders(workplace)
    assert read_json(folder / "training/stage.json")["outputs"]["num_steps"] == 13
    assert {WarmupConfig().records_per_step(n) for n in (1280, 53_000)} == {128}
    assert WarmupConfig().records_per_step(61) == 6
    assert WarmupConfig(batch_size=64).records_per_step(61) == 64


def test_a_single_step_without_a_learning_rate_is_refused_by_the_keys_of_a_warm_up(workplace):
    expected = (
        "selection.reference.warmup: training: its only step .* set "
        "selection.reference.warmup.hf.warmup_steps=0, "
    )
    with pytest.raises(UserError, match=expected):
        warm(workplace, warmup={"share": 0.3, "lora_rank": 4, "batch_size": 128})


def test_a_warm_up_is_trained_read_and_charged(workplace):
    own = workplace.select(selection__scorer="perplexity", name="own")
    result = warm(workplace)
    (folder,) = folders(workplace)
    drawn = read_json(folder / "selection/subset.json")
    # 0.3 of 26 records: 8, of three sources 3 (the largest), 3 and 2.
    assert Counter(record["source"] for record in drawn) == {"shape": 3, "colour": 3, "text": 2}
    assert read_json(folder / "training/stage.json")["outputs"]["num_steps"] == 3
    reference = result.manifest["reference"]
    assert reference["adapter"] == str(folder / "training/final")
    assert reference["warmup"]["num_records"] == 8
    assert scores(result) != pytest.approx(scores(own), rel=1e-4)
    spent = {entry["evidence"]: entry for entry in read_timings(result.run)}
    trained = read_timings(RunDir(folder))
    assert spent["warmup"]["device_seconds"] == sum(e["device_seconds"] for e in trained) > 0
    assert spent["warmup"]["counts"]["flops"] > 0
    timings = result.manifest["timings"]
    assert timings["warmup_seconds"] == spent["warmup"]["device_seconds"]
    total = sum(entry["device_seconds"] for entry in spent.values())
    assert timings["device_seconds"] == pytest.approx(total, abs=0.5)
    assert reference["warmup"]["flops_estimate"] == spent["warmup"]["counts"]["flops"]


def test_a_warm_up_is_shared_by_runs_and_selectors_of_the_same(workplace):
    first = warm(workplace)
    again = warm(workplace, tune=no_training, name="again", selection__budget=0.25)
    other = warm(workplace, tune=no_training, name="other", selection__scorer="el2n")
    assert scores(again) == scores(first)
    assert len(folders(workplace)) == 1
    costs = [result.manifest["timings"]["warmup_seconds"] for result in (first, again, other)]
    assert costs == [costs[0]] * 3
    warm(workplace, tune=no_training)  # finished: skipped
    shutil.rmtree(folders(workplace)[0])
    warm(workplace, tune=no_training)  # nothing of it is wanted again
    with pytest.raises(AssertionError, match="trained again"):
        warm(workplace, tune=no_training, warmup={**WARMUP, "seed": 1}, name="seeded")


def test_a_warm_up_that_was_killed_goes_on_from_its_last_checkpoint(workplace, monkeypatch, caplog):
    step, done = TuningTrainer.training_step, []

    def die(self, *arguments, **options):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    monkeypatch.setattr(TuningTrainer, "training_step", die)
    with pytest.raises(KeyboardInterrupt):
        warm(workplace)
    assert not (workplace.root / "runs/run/selection").exists()
    with caplog.at_level(logging.INFO):
        killed = warm(workplace)
    assert "goes on from" in caplog.text
    assert len(done) == 4  # two steps, the one that died, and the third again
    whole = warm(workplace, output_dir=str(workplace.root / "whole"))
    assert scores(killed) == pytest.approx(scores(whole), rel=1e-5)
    (folder,) = folders(workplace)
    attempts = [e for e in read_timings(killed.run) if e["evidence"] == "warmup"]
    assert len(attempts) == len(read_timings(RunDir(folder))) == 2


def test_a_warm_up_without_who_trains_it_says_so(workplace):
    with pytest.raises(UserError, match="has to be trained first; `prism-tune select` does"):
        warm(workplace, tune=None)


def test_what_reads_no_model_warms_none_up(workplace, caplog):
    """As Random beside a method with a warm-up, of one config."""
    with caplog.at_level(logging.INFO):
        result = warm(workplace, tune=no_training, selection__scorer="random")
    assert "selection.reference: random reads no model; left out" in caplog.text
    assert "reference" not in result.manifest
    assert not (workplace.root / "runs/references").exists()


SIZES = np.array([10, 2, 10])


@pytest.mark.parametrize(
    ("total", "expected"),
    [(9, [4, 2, 3]), (6, [2, 2, 2]), (1, [1, 0, 0]), (30, [10, 2, 10]), (21, [10, 2, 9])],
)
def test_equal_quotas_go_as_far_as_the_sources_do(total, expected):
    assert share_equally(total, SIZES).tolist() == expected


@pytest.mark.parametrize(
    ("per_source", "expected"), [("equal", [3, 2, 3]), ("proportional", [4, 1, 3])]
)
def test_records_are_drawn_by_their_hashes(per_source, expected):
    """8 of 22, whatever their order, other ones under another seed, the smaller share inside."""
    sources = np.repeat(["a", "b", "c"], SIZES)
    uids = [f"uid-{n}" for n in range(len(sources))]
    all_N = np.ones(len(uids), dtype=bool)

    def draw(order=None, **changes):
        order = np.arange(len(uids)) if order is None else order
        asked = WarmupConfig(**{"share": 0.36, "per_source": per_source, **changes})
        drawn = draw_records([uids[n] for n in order], sources[order], all_N, asked)
        return {uids[order[n]] for n in drawn}

    drawn = draw()
    counts = Counter(sources[uids.index(uid)] for uid in drawn)
    assert [counts[name] for name in "abc"] == expected
    assert draw(np.random.default_rng(0).permutation(len(uids))) == drawn
    assert draw(seed=1) != drawn
    assert draw(share=0.14) < drawn

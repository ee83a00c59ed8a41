"""Scores under the whole model against the definitions, record by record; the store's promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence import store as feature_store
from prism_tune.selection.evidence import whole_model
from prism_tune.selection.evidence.gradients.norms import GradientNorms

pytestmark = pytest.mark.slow

SCORERS = ["perplexity", "el2n", "grand"]


def by_definition(workplace, patterns=("layers.2.", "layers.3."), **overrides):
    """(nll, el2n, gradient norm) of every image record: one by one, by the model's own loss."""
    config = workplace.config(**overrides)
    model = load_model(config.model, dtype=torch.float32)
    pool = open_pool(config.data)
    images = [i for i in range(len(pool)) if not pool.is_text_only_N[i]]
    processor = load_processor(config.model)
    examples = TuningDataset(pool, images, processor, "vicuna_v1", config.data.max_length)
    chosen = [
        parameter
        for name, parameter in model.model.language_model.named_parameters()
        if name.startswith(tuple(patterns))
    ]
    found = {}
    for number, index in enumerate(images):
        inputs = {
            key: value if key == "pixel_values" else value[None]
            for key, value in examples[number].items()
        }
        outputs = model(**inputs)
        gradients = torch.autograd.grad(outputs.loss, chosen)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        errors = []
        for place, label in enumerate(inputs["labels"][0].tolist()):
            if label != -100:
                error = outputs.logits[0, place - 1].softmax(dim=-1).detach()
                error[label] -= 1
                errors.append(float(error.norm()))
        found[pool.ids[index]] = (outputs.loss.item(), np.mean(errors), float(norm))
    return found


def scores_of(result):
    return {row["id"]: row["score"] for row in result.scores if row["rank"]}


def lengthen(workplace):
    """Answers of several tokens and turns, so that a mean over tokens is one."""
    records = workplace.records()
    for number, record in enumerate(records):
        turns = record["conversations"]
        turns[1]["value"] += " because of its shape" * (number % 4)
        if number % 3 == 0:
            turns += [{"from": "human", "value": "sure?"}, {"from": "gpt", "value": "yes it is"}]
    workplace.write_records(records)


@pytest.mark.parametrize(("number", "scorer"), enumerate(SCORERS))
def test_scores_are_those_of_the_definition(workplace, number, scorer):
    lengthen(workplace)
    scores = scores_of(workplace.select(selection__scorer=scorer))
    expected = {uid: values[number] for uid, values in by_definition(workplace).items()}
    assert len(scores) == 24
    assert scores == pytest.approx(expected, rel=1e-4)
    assert len({round(score, 6) for score in scores.values()}) > 12


def test_named_parameters_decide_the_gradient(workplace):
    """A norm, one linear layer below the last ones, and the embeddings."""
    names = ("norm.weight", "layers.1.mlp.up_proj.weight", "embed_tokens.weight")
    options = "{parameters: [norm.*, layers.1.mlp.up_proj.*, embed_tokens.*]}"
    result = workplace.select(selection__scorer="grand", selection__options=options)
    expected = {uid: norm for uid, (_, _, norm) in by_definition(workplace, names).items()}
    assert scores_of(result) == pytest.approx(expected, rel=1e-4)


def test_every_parameter_of_the_decoder_can_decide(workplace):
    """GraNd as its own code has it: the gradient with respect to all weights."""
    result = workplace.select(
        selection__scorer="grand", selection__options='{parameters: ["*"]}', selection__budget=1
    )
    expected = {uid: norm for uid, (_, _, norm) in by_definition(workplace, [""]).items()}
    assert scores_of(result) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scorer", SCORERS)
def test_batches_and_blocks_of_logits_change_nothing(workplace, scorer, monkeypatch):
    lengthen(workplace)
    together = workplace.select(selection__scorer=scorer)
    monkeypatch.setattr(whole_model, "_LOGITS_BYTES", 3 * 4 * 320)  # three tokens at a time
    alone = workplace.select(
        selection__scorer=scorer, **workplace.elsewhere(), selection__tokens_per_batch=1
    )
    assert scores_of(alone) == pytest.approx(scores_of(together), rel=1e-5)
    assert alone.manifest["subset_sha256"] == together.manifest["subset_sha256"]


@pytest.mark.parametrize("scorer", SCORERS)
def test_logits_exist_at_answer_tokens_only_and_a_few_at_a_time(workplace, scorer, monkeypatch):
    lengthen(workplace)
    monkeypatch.setattr(whole_model, "_LOGITS_BYTES", 7 * 4 * 320)
    rows, load = [], whole_model.load_model

    def load_and_watch(*arguments, **options):
        model = load(*arguments, **options)
        model.lm_head.register_forward_hook(lambda _, inputs, output: rows.append(len(output)))
        return model

    monkeypatch.setattr(whole_model, "load_model", load_and_watch)
    workplace.select(selection__scorer=scorer)
    assert max(rows) == 7
    num_rows = sum(rows)
    losses = workplace.select(selection__scorer="perplexity", **workplace.elsewhere())
    assert num_rows == losses.manifest["num_answer_tokens"]


def test_answers_are_cut_where_training_cuts_them(workplace):
    records = workplace.records()
    records[0]["conversations"][1]["value"] = "a long answer " * 40
    workplace.write_records(records)
    limit = {"data__max_length": 200}
    scores = scores_of(workplace.select(selection__scorer="perplexity", **limit))
    expected = {uid: values[0] for uid, values in by_definition(workplace, **limit).items()}
    assert scores == pytest.approx(expected, rel=1e-4)
    longer = scores_of(workplace.select(selection__scorer="perplexity", data__max_length=220))
    assert longer["shape-0"] != scores["shape-0"]
    assert longer["shape-1"] == pytest.approx(scores["shape-1"], rel=1e-6)


@pytest.fixture
def no_model(monkeypatch):
    """Call it to make any further loading of a model an error."""
    return lambda: monkeypatch.setattr(whole_model, "load_model", None)


def test_other_budgets_ends_and_scorers_of_the_same_losses_run_no_model(workplace, no_model):
    first = workplace.select(selection__scorer="perplexity")
    seconds = first.manifest["timings"]["evidence_seconds"]
    no_model()
    kept = {first.manifest["subset_sha256"]}
    for change in ({"selection__keep": "low"}, {"selection__keep": "high"}):
        result = workplace.select(selection__scorer="perplexity", **change)
        assert result.manifest["evidence"]["answer_losses"]["num_computed"] == 0
        assert scores_of(result) == scores_of(first)
        kept.add(result.manifest["subset_sha256"])
    assert len(kept) == 3
    small = workplace.select(selection__scorer="perplexity", selection__budget=0.25)
    assert small.manifest["timings"]["wall_seconds"] > seconds  # of the losses, and of rescoring
    assert workplace.select(selection__scorer="el2n").manifest["num_selected"] == 14


def test_budgets_are_nested_at_every_end(workplace):
    for keep in ("low", "middle", "high"):
        subsets = []
        for budget in (0.1, 0.3, 0.7):
            result = workplace.select(
                selection__scorer="el2n", selection__keep=keep, selection__budget=budget
            )
            subsets.append({row["uid"] for row in result.scores if row["selected"]})
        assert subsets[0] < subsets[1] < subsets[2]


def test_a_killed_run_goes_on_from_its_finished_shards(workplace, monkeypatch):
    monkeypatch.setattr(feature_store, "UNITS_PER_SHARD", 5)
    whole = workplace.select(selection__scorer="el2n", **workplace.elsewhere())
    write = feature_store.EvidenceStore.write_shard

    def write_two(store, *arguments):
        if len(store.shards()) == 2:
            raise KeyboardInterrupt
        write(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store.EvidenceStore, "write_shard", write_two)
        with pytest.raises(KeyboardInterrupt):
            workplace.select(selection__scorer="el2n")
    resumed = workplace.select(selection__scorer="el2n")
    assert resumed.manifest["evidence"]["answer_losses"]["num_computed"] == 24 - 10
    assert resumed.manifest["subset_sha256"] == whole.manifest["subset_sha256"]
    assert resumed.scores == whole.scores


def test_a_pool_that_grew_computes_what_is_new(workplace):
    records = workplace.records()
    workplace.write_records(records[:20])
    workplace.select(selection__scorer="perplexity")
    workplace.write_records([*records[::-1], records[3]])
    result = workplace.select(selection__scorer="perplexity")
    found = result.manifest["evidence"]["answer_losses"]
    assert (found["num_units"], found["num_computed"]) == (24, 24 - 18)
    fresh = workplace.select(selection__scorer="perplexity", **workplace.elsewhere())
    assert scores_of(result) == pytest.approx(scores_of(fresh), rel=1e-5)


def test_another_template_is_another_loss(workplace):
    first = workplace.select(selection__scorer="perplexity")
    other = workplace.select(
        name="chatml", selection__scorer="perplexity", model__template="chatml"
    )
    assert other.manifest["evidence"]["answer_losses"]["num_computed"] == 24
    assert scores_of(other) != pytest.approx(scores_of(first), rel=1e-3)


def test_cost_is_metered(workplace):
    forward = workplace.select(selection__scorer="el2n").manifest["timings"]
    backward = workplace.select(selection__scorer="grand", name="back").manifest["timings"]
    shallow = workplace.select(selection__scorer="prism", name="shallow").manifest["timings"]
    assert (forward["num_images"], backward["num_images"], shallow["num_images"]) == (24, 24, 16)
    assert shallow["flops_estimate"] < forward["flops_estimate"] < backward["flops_estimate"]


def test_unusable_records_obey_the_policy(workplace):
    (workplace.images / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image_unreadable: .*shape-3"):
        workplace.select(selection__scorer="el2n")
    result = workplace.select(selection__scorer="el2n", data__policy__image_unreadable="skip")
    assert result.manifest["num_skipped"] == {"image_unreadable": 1}
    assert "shape-3" not in scores_of(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{parameters: [layers.9.*]}", r"'layers\.9\.\*' fits no parameter"),
        ("{parameter: x}", "unknown key `parameter`; did you mean `parameters`"),
        ("{parameters: 3}", "expected a list of parameter names"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(workplace, options, message):
    with pytest.raises((ConfigError, UserError), match=message):
        workplace.select(selection__scorer="grand", selection__options=options)


def test_a_parameter_that_the_output_layer_shares_is_refused(workplace):
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    with pytest.raises(UserError, match=r"gradient of 'embed_tokens\.weight' cannot"):
        GradientNorms(model, load_processor(config.model), ["embed_tokens.*"])

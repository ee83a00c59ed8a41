"""Losses without images or questions, and visual_gain, against twins of the records written out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.without import strip_images, strip_words
from prism_tune.selection.scorers.losses.visual_gain import score

pytestmark = pytest.mark.slow


def turn_losses(workplace, records, **overrides):
    """The mean over the turns of each record's mean loss of a turn, by the whole model's logits."""
    workplace.write_records(records)
    config = workplace.config(**overrides)
    model = load_model(config.model, dtype=torch.float32)
    pool = open_pool(config.data)
    processor = load_processor(config.model)
    examples = TuningDataset(pool, range(len(pool)), processor, "vicuna_v1", config.data.max_length)
    found = {}
    for number, name in enumerate(pool.ids):
        inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples[number].items()}
        labels = inputs.pop("labels")[0].tolist()
        with torch.no_grad():
            log_p = model(**inputs).logits[0].log_softmax(dim=-1)
        turns, before = [], -100
        for place, label in enumerate(labels):
            if label != -100:
                turns += [[]] if before == -100 else []
                turns[-1].append(-float(log_p[place - 1, label]))
            before = label
        found[name] = float(np.mean([np.mean(turn) for turn in turns]))
    return found


def two_turns(workplace):
    """Image records alone, every third of two turns of different lengths."""
    records = [record for record in workplace.records() if "image" in record]
    for number, record in enumerate(records):
        if number % 3 == 0:
            record["conversations"] += [
                {"from": "human", "value": "and is it large or small?"},
                {"from": "gpt", "value": "it is neither, as shapes of its kind go"},
            ]
    return records


def without_images(records):
    twins = []
    for record in records:
        asked = [dict(turn) for turn in record["conversations"]]
        asked[0]["value"] = asked[0]["value"].replace("<image>\n", "")
        twins.append({"id": record["id"], "source": record["source"], "conversations": asked})
    return twins


def test_the_gain_is_that_of_the_definition(workplace):
    records = two_turns(workplace)
    blind = turn_losses(workplace, without_images(records))
    seen = turn_losses(workplace, records)
    result = workplace.select(selection__scorer="visual_gain")
    scores = {row["id"]: row["score"] for row in result.scores}
    assert len(scores) == 24
    assert scores == pytest.approx({name: blind[name] - seen[name] for name in seen}, abs=2e-5)
    kept = {row["id"] for row in result.scores if row["selected"] and row["source"] == "shape"}
    shapes = sorted((name for name in scores if name[0] == "s"), key=scores.get, reverse=True)
    assert kept == set(shapes[:8])


def test_an_answer_that_is_cut_is_cut_blind_too(workplace):
    """The last token that the record keeps, seeing, is the last that is measured blind."""
    records = two_turns(workplace)[:2]
    records[0]["conversations"][3]["value"] = "a long answer " * 40
    limit = {"data__max_length": 200}
    seen = turn_losses(workplace, records, **limit)
    processor = load_processor(workplace.config().model)
    num_image_tokens = (
        len(processor.tokenizer("<image>\n", add_special_tokens=False)["input_ids"]) + 3
    )  # one image is four tokens
    blind = turn_losses(workplace, without_images(records), data__max_length=200 - num_image_tokens)
    workplace.write_records(records)
    asked = {"selection__scorer": "visual_gain", "selection__budget": 1, **limit}
    scores = {row["id"]: row["score"] for row in workplace.select(**asked).scores}
    assert scores == pytest.approx({name: blind[name] - seen[name] for name in seen}, abs=2e-5)


def test_a_blind_pass_is_as_short_as_its_text(workplace):
    timings = workplace.select(selection__scorer="visual_gain").manifest["evidence"]
    assert (timings["answer_losses"]["num_units"], timings["blind_losses"]["num_units"]) == (24, 24)
    costs = {}
    for kind in ("answer_losses", "blind_losses"):
        costs[kind] = [read_shard(path).counts for path in workplace.shards(kind)]
    (seeing,), (blind,) = costs["answer_losses"], costs["blind_losses"]
    assert (seeing["images"], blind["images"]) == (24, 0)
    assert blind["tokens"] < seeing["tokens"] - 4 * 24
    assert blind["flops"] < seeing["flops"]


def test_the_margin_is_that_of_the_likeliest_other_token(workplace):
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, [0], processor, "vicuna_v1", 2048)[0]
    inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples.items()}
    labels = inputs.pop("labels")[0].tolist()
    with torch.no_grad():
        p = model(**inputs).logits[0].softmax(dim=-1).numpy()
    margins = [
        p[place - 1, label] - np.delete(p[place - 1], label).max()
        for place, label in enumerate(labels)
        if label != -100
    ]
    result = workplace.select(selection__scorer="el2n")
    rows = StoredRows([read_shard(path) for path in workplace.shards("answer_losses")])[
        slice(0, 24)
    ]
    el2n = next(row["score"] for row in result.scores if row["id"] == pool.ids[0])
    row = rows[np.abs(rows[:, 1] - el2n).argmin()]
    assert row[2] == pytest.approx(np.mean(margins), rel=1e-4)
    assert row[2] < 0


@pytest.mark.parametrize(
    ("question", "blind", "unasked"),
    [
        ("<image>\nwhat is it?", "what is it?", "<image>"),
        ("what is it?\n<image>", "what is it?", "<image>"),
        ("compare <image> with <image>: which?", "compare  with : which?", "<image><image>"),
        ("is it\n\nred?", "is it\n\nred?", ""),
        ("<image>", "", "<image>"),
    ],
)
def test_what_is_left_of_a_question(question, blind, unasked):
    assert strip_images(question) == blind
    assert strip_words(question) == unasked


def test_gain_by_hand():
    """2.0 nats blind and 0.5 seeing: 1.5, DICS's VIC 4.48; without images 0."""
    context = SimpleNamespace(
        measured={
            "blind_turn_nll": np.array([2.0, 3.0]),
            "turn_nll": np.array([0.5, 1.0]),
            "num_answer_tokens": np.array([1.0, 1.0]),
        },
        pool=SimpleNamespace(is_text_only_N=np.array([False, True])),
        records_M=np.array([0, 1]),
    )
    gains = score(context).values_M
    assert gains.tolist() == [1.5, 0.0]
    assert np.exp(gains[0]) == pytest.approx(4.48, abs=0.005)

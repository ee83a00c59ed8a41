"""Each guard of a model's first use, on a model made to violate it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from support.tiny_processors import build_family

from prism_tune.errors import UserError
from prism_tune.models.families import parts
from prism_tune.models.guards import check_use


@pytest.fixture(scope="module")
def llava():
    """A model that is sound, its parts, and a record with an image and an answer."""
    model, processor = build_family("vipllava")
    image = Image.effect_noise((40, 32), 90).convert("RGB")
    inputs = processor(
        images=[image], text=["<image>\nwhat is it? a red square"], return_tensors="pt"
    )
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, -4:] = inputs["input_ids"][0, -4:]
    return model, parts(model), {**inputs, "labels": labels}


def run(model, **more):
    """The way to run a model that `check_use` takes."""
    return lambda inputs, keep_BL: model(**inputs, **more).logits[keep_BL]


def test_a_sound_model_passes_and_draws_no_random_number(llava):
    model, found, inputs = llava
    state = torch.get_rng_state()
    check_use(run(model), inputs, found)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_processor_of_another_model_is_found_by_the_configs_image_token(llava):
    model, found, inputs = llava
    others = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == 3, 7)}
    with pytest.raises(UserError, match="the processor writes no image token for an image"):
        check_use(run(model), others, found)


def test_a_model_that_does_not_see_is_refused(llava):
    model, found, inputs = llava
    embeddings = model.get_input_embeddings()

    def blind(given, keep_BL):
        return run(model)({"inputs_embeds": embeddings(given["input_ids"])}, keep_BL)

    with pytest.raises(UserError, match="'vipllava' gives two different images the same features"):
        check_use(blind, inputs, found)


def test_a_token_before_the_image_taken_for_the_image_is_refused(llava):
    """What was silent for Gemma 3: its processor names the token that begins an image."""
    model, found, inputs = llava
    first = int(inputs["input_ids"][0, 0])
    if first == found.image_token_id:
        begin = torch.tensor([[9]])
        inputs = {
            **inputs,
            "input_ids": torch.cat([begin, inputs["input_ids"]], dim=1),
            "attention_mask": torch.ones(1, inputs["input_ids"].shape[1] + 1, dtype=torch.long),
            "labels": torch.cat([begin.fill_(-100), inputs["labels"]], dim=1),
        }
        inputs["input_ids"][0, 0] = 9
    wrong = type(found)(**{**vars(found), "image_token_id": int(inputs["input_ids"][0, 0])})
    with pytest.raises(UserError, match="two different images the same features"):
        check_use(run(model), inputs, wrong)


def test_labels_that_leak_through_attention_that_looks_ahead_are_refused(llava):
    """As in PaliGemma: everything sees everything."""
    model, found, inputs = llava
    length = inputs["input_ids"].shape[1]
    both_ways = torch.zeros(1, 1, length, length)

    def look_ahead(given, keep_BL):
        return run(model)({**given, "attention_mask": both_ways}, keep_BL)

    with pytest.raises(UserError, match="moves what predicts its earlier ones .* labels leak"):
        check_use(look_ahead, inputs, found)
    without = {key: value for key, value in inputs.items() if key != "labels"}
    check_use(look_ahead, without, found)  # features are not labelled: the prefix check sees to it

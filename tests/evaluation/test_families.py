"""Batched answers of every family are those of one question at a time."""

from __future__ import annotations

import pytest
from support.tiny import draw_image
from support.tiny_processors import TINY_PROCESSORS, build_family

from prism_tune.data.conversation import image_token
from prism_tune.evaluation.decoding.prompts import Request
from prism_tune.evaluation.generate import Decoder


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(2):
        draw_image(folder / f"{i}.png", 5 * i)
    return [folder / f"{i}.png" for i in range(2)]


@pytest.mark.parametrize("family", sorted(TINY_PROCESSORS))
def test_batched_answers_are_those_of_one_at_a_time(family, paths):
    model, processor = build_family(family)
    token = image_token(processor)
    requests = [
        Request(f"{token}\nwhat shape is it?", (paths[0],)),
        Request(f"{token}\nis it red, or is it blue as the other one was?", (paths[1],)),
    ]

    def answer(batch_size):
        decoder = Decoder(
            lambda: model, processor, template="vicuna_v1", batch_size=batch_size, num_workers=0
        )
        answers = {}
        for found in decoder.answer(requests, max_new_tokens=4):
            answers |= {request: found[request].text for request in found}
        return answers

    together = answer(2)
    assert together == answer(1)
    assert set(together) == set(requests)

"""Every family answers in a batch what it answers alone: with one image, several and none."""

from __future__ import annotations

import pytest
from support.tiny import draw_image
from support.tiny_processors import TINY_PROCESSORS, build_family

from prism_tune.evaluation.decoding.live_rows import can_share
from prism_tune.evaluation.decoding.prompts import Request, encode_batch
from prism_tune.evaluation.generate import Decoder

pytestmark = pytest.mark.slow

SHOWN = ((0,), (0, 1), (), (1,))
WITHOUT_SHARING = {"aya_vision", "gemma3", "qwen3_5", "qwen3_5_moe"}
"""Their layers keep a window of tokens, or a state."""


@pytest.mark.parametrize("family", sorted(TINY_PROCESSORS))
def test_an_answer_does_not_depend_on_the_batch(family, tmp_path):
    model, processor = build_family(family)
    paths = [tmp_path / f"{number}.png" for number in (0, 1)]
    for number, path in enumerate(paths):
        draw_image(path, number)

    def answer(requests):
        decoder = Decoder(lambda: model, processor, template="chatml", batch_size=8, num_workers=0)
        (batch,) = decoder.answer(requests, max_new_tokens=6)
        return batch

    decoder = Decoder(lambda: model, processor, template="chatml", batch_size=8, num_workers=0)
    requests = [
        Request(decoder.render(f"is </s> {number}?", len(shown)), tuple(paths[i] for i in shown))
        for number, shown in enumerate(SHOWN)
    ]
    alone = {request: answer([request])[request] for request in requests}
    assert answer(requests) == alone


@pytest.mark.parametrize("family", sorted(TINY_PROCESSORS))
def test_questions_about_one_image_are_read_once_and_answered_as_alone(family, tmp_path):
    model, processor = build_family(family)
    paths = [tmp_path / f"{number}.png" for number in (0, 1)]
    for number, path in enumerate(paths):
        draw_image(path, number)
    decoder = Decoder(lambda: model, processor, template="chatml", batch_size=16, num_workers=0)
    requests = [
        Request(decoder.render(text, len(shown)), tuple(paths[i] for i in shown))
        for shown in SHOWN
        for text in ("is it red?", f"is {processor.image_token} or </s> or <image> blue?", "hm?")
    ]
    requests.append(Request(decoder.render("of two, the other way round?", 2), tuple(paths[::-1])))
    alone = {}
    for request in requests:
        alone |= next(decoder.answer([request], max_new_tokens=6))
    together = {}
    for batch in decoder.answer(requests, max_new_tokens=6):
        together |= batch
    assert together == alone
    shares = can_share(decoder.model)
    assert shares == (family not in WITHOUT_SHARING)
    heads = encode_batch(processor, requests, shares=shares).heads["input_ids"]
    assert len(heads) == (5 if shares else 13)

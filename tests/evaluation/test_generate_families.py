"""Every family answers in a batch what it answers alone: with one image, several and none."""

from __future__ import annotations

import pytest
from support.tiny import draw_image
from support.tiny_processors import TINY_PROCESSORS, build_family

from prism_tune.evaluation.generate import Decoder, Request

SHOWN = ((0,), (0, 1), (), (1,))


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

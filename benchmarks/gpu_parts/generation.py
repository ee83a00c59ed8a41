"""Answering questions: one at a time, as LLaVA's loop does, and in batches of several sizes."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

from generation import answer_batched, answer_one_by_one, measure
from gpu_parts.meter import on_device, peak_gib

from prism_tune.config.sections import Config
from prism_tune.data.conversation import render_prompt
from prism_tune.evaluation.benchmarks.pope import SUFFIX
from prism_tune.evaluation.decoding.prompts import Request
from prism_tune.evaluation.generate import Decoder
from prism_tune.models.checkpoint import load_tuned
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.processor import load_processor

_OBJECTS = ("dog", "car", "tree", "cup", "chair", "boat", "book", "clock")


def run(work: Path, *, model: str, sizes: list[int], questions: int) -> dict[str, Any]:
    """Questions per second of each way; a batch size gets `questions`, one at a time a sixteenth.

    Args:
        work: the work folder.
        model: of `shapes.draw_model`.
        sizes: of batches.
        questions: how many.
    """
    config = Config.model_validate(
        {
            "name": "generation",
            "model": {"path": str(work / model), "template": "vicuna_v1"},
            "data": {"records": "none.json"},
        }
    )
    device = pick_device()
    processor = load_processor(config.model)
    loaded = load_tuned(config, None, dtype=resolve_dtype("auto", device), device=device)
    requests = _make_requests(processor, work / "mix" / "images", questions)
    num_new_tokens = 16
    found: dict[str, Any] = {"new_tokens": num_new_tokens}

    def decoder(size: int) -> Decoder:
        return Decoder(
            lambda: loaded,
            processor,
            template="vicuna_v1",
            batch_size=size,
            num_workers=on_device().num_workers,
        )

    some = requests[: max(2, questions // 16)]
    asked = decoder(1).model  # with the end tokens that answers stop at
    alone = partial(answer_one_by_one, asked, processor)
    seconds, expected = measure(alone, some, num_new_tokens)
    found["one at a time"] = {"questions_per_second": len(some) / seconds}
    for size in sizes:
        batched = partial(answer_batched, decoder(size))
        seconds, answers = measure(batched, requests, num_new_tokens)
        same = sum(answers[request].text == answer.text for request, answer in expected.items())
        found[f"batches of {size}"] = {
            "questions_per_second": len(answers) / seconds,
            "same_answers": same / len(expected),
        }
    return {**found, "peak_gib": peak_gib()}


def _make_requests(processor: Any, images: Path, number: int) -> list[Request]:
    """So many different pairs of a question and an image."""
    pairs = itertools.product(_OBJECTS, sorted(images.glob("*.jpg")))
    asked = []
    for word, path in itertools.islice(pairs, number):
        question = f"Is there a {word} in the image?{SUFFIX}"
        asked.append(
            Request(render_prompt(question, True, "vicuna_v1", processor), (path,), question)
        )
    return asked

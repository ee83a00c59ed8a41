"""Records whose lengths are mixed as in LLaVA-665K, at a quarter of its size, over drawn images.

Shares are those of the published file's sources. Turns and words are our reading of what these data
sets look like, divided by four, as is the number of image tokens (144 for 576): not measured on it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawn_models import ANSWER, QUESTION
from PIL import Image

WORDS = (QUESTION.format("") + ANSWER.format("")).replace("<image>", "").split()
NUM_IMAGES = 64


@dataclass(frozen=True)
class Source:
    """Mean turns, and mean words of a question and of an answer; a quarter of the real ones."""

    share: float
    turns: float
    question_words: float
    answer_words: float
    has_image: bool = True


MIX = {
    "vqav2 and gqa": Source(0.233, 3, 3, 1),
    "okvqa and aokvqa": Source(0.113, 1, 6, 1),
    "ocrvqa": Source(0.120, 2, 4, 2),
    "textcaps": Source(0.033, 1, 5, 4),
    "refcoco": Source(0.073, 3, 4, 2),
    "vg": Source(0.130, 3, 4, 2),
    "llava instructions": Source(0.237, 1, 5, 35),
    "sharegpt": Source(0.061, 3, 25, 90, has_image=False),  # split at 2,048 tokens: long ones
}


def write_pool(
    folder: Path, num_records: int, *, scale: int = 1, size: tuple[int, int] = (160, 160)
) -> Path:
    """`pool.json` and its images; the same every time.

    Args:
        folder: where.
        num_records: how many.
        scale: times a quarter of LLaVA-665K's words.
        size: of the images, (width, height) in pixels.
    """
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for number in range(NUM_IMAGES):
        pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
    shares = np.array([source.share for source in MIX.values()])
    names = random.choice(list(MIX), num_records, p=shares / shares.sum())
    records = [_record(number, str(name), random, scale) for number, name in enumerate(names)]
    path = folder / "pool.json"
    path.write_text(json.dumps(records))
    return path


def _record(number: int, name: str, random: np.random.Generator, scale: int) -> dict[str, object]:
    source = MIX[name]
    turns = []
    for _ in range(1 + random.poisson(source.turns - 1)):
        turns.append({"from": "human", "value": _text(scale * source.question_words, random)})
        turns.append({"from": "gpt", "value": _text(scale * source.answer_words, random)})
    record: dict[str, object] = {"id": str(number), "source": name, "conversations": turns}
    if source.has_image:
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
        record["image"] = f"{number % NUM_IMAGES}.jpg"
    return record


def _text(mean_words: float, random: np.random.Generator) -> str:
    """Half of the mean for certain, the other half with a long tail."""
    num_words = max(1, round(mean_words / 2 + random.exponential(mean_words / 2)))
    return " ".join(random.choice(WORDS, num_words))

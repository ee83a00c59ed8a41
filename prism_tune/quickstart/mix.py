"""The quickstart's mix, LLaVA-665K in small: seven sources -> a pool, held-out questions, captions.

Every source's examples are drawn once and dealt out, so that no picture and no question about words
alone is in two of the parts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prism_tune.quickstart.sources.animals import draw_animals
from prism_tune.quickstart.sources.charts import draw_charts
from prism_tune.quickstart.sources.counting import draw_scenes
from prism_tune.quickstart.sources.digits import draw_digits
from prism_tune.quickstart.sources.example import Example, Source, Turn
from prism_tune.quickstart.sources.facts import draw_facts
from prism_tune.quickstart.sources.shapes import draw_shapes
from prism_tune.quickstart.sources.words import draw_words
from prism_tune.schema import IMAGE_PLACEHOLDER


@dataclass(frozen=True)
class Share:
    """A source, and how many of its examples are held out, in the pool, and captions.

    `num_spare` are in none of these: a pool with faults is over-full of them.
    """

    draw: Source
    num_test: int
    num_pool: int
    num_captions: int = 0
    num_spare: int = 0


MIX: Mapping[str, Share] = {
    "shapes": Share(draw_shapes, num_test=300, num_pool=45, num_captions=500),
    "animals": Share(draw_animals, num_test=300, num_pool=130, num_captions=700),
    "digits": Share(draw_digits, num_test=300, num_pool=110, num_captions=500, num_spare=100),
    "words": Share(draw_words, num_test=300, num_pool=120, num_captions=1000),
    "charts": Share(draw_charts, num_test=300, num_pool=105, num_captions=700),
    "counting": Share(draw_scenes, num_test=300, num_pool=105, num_captions=700),
    "facts": Share(draw_facts, num_test=150, num_pool=60),
}

Records = list[dict[str, Any]]
Named = dict[str, Example]
"""Examples of a source by their names: `digits-0007`."""

_ASKED_FOR_CAPTION = ("describe the picture", "what do you see?", "write a caption")


@dataclass(frozen=True)
class Mix:
    """The examples of every source, dealt out; by source."""

    test: Mapping[str, Named]
    pool: Mapping[str, Named]
    captions: Mapping[str, Named]
    spare: Mapping[str, Named]


def draw_mix(wheels: Mapping[str, Path], shares: Mapping[str, Share] = MIX) -> Mix:
    """Draw and deal out, the same at every call.

    Args:
        wheels: by package name.
        shares: by source.
    """
    parts: list[dict[str, Named]] = [{}, {}, {}, {}]
    for source, share in shares.items():
        numbers = (share.num_test, share.num_pool, share.num_captions, share.num_spare)
        examples = share.draw(wheels, sum(numbers))
        named = iter({f"{source}-{n:04d}": example for n, example in enumerate(examples)}.items())
        for part, number in zip(parts, numbers, strict=True):
            part[source] = dict(islice(named, number))
    return Mix(*parts)


def image_path(name: str) -> str:
    """Where an example's picture lies, relative to the folder of images."""
    return f"{name.partition('-')[0]}/{name}.png"


def list_images(part: Mapping[str, Named]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the pictures of a part."""
    for named in part.values():
        for name, example in named.items():
            if example.image is not None:
                yield image_path(name), example.image


def build_records(part: Mapping[str, Named]) -> Records:
    """LLaVA records of a part, one for each talk about a picture; the source is the field's."""
    return [
        _make_record(f"{name}-{number}", name, source, example, talk)
        for source, named in part.items()
        for name, example in named.items()
        for number, talk in enumerate(example.talks)
    ]


def build_captions(part: Mapping[str, Named]) -> Records:
    """LLaVA records that say what the pictures of a part show, mixed."""
    rng = random.Random("captions")
    records = [
        _make_record(name, name, source, example, [Turn(asked, example.caption)])
        for source, named in part.items()
        for name, example in named.items()
        for asked in [rng.choice(_ASKED_FOR_CAPTION)]
    ]
    rng.shuffle(records)
    return records


def build_questions(named: Named) -> Records:
    """A source's held-out questions, as a benchmark of one's own has them."""
    questions = []
    for name, example in named.items():
        image = {} if example.image is None else {"image": image_path(name)}
        asked = {"question": example.asked.question, "answer": example.asked.answer}
        questions.append({"question_id": name, **image, **asked})
    return questions


def _make_record(
    key: str, name: str, source: str, example: Example, talk: Sequence[Turn]
) -> dict[str, Any]:
    turns: list[dict[str, str]] = []
    for turn in talk:
        shows = example.image is not None and not turns
        begin = f"{IMAGE_PLACEHOLDER}\n" if shows else ""
        turns.append({"from": "human", "value": begin + turn.question})
        turns.append({"from": "gpt", "value": turn.answer})
    image = {} if example.image is None else {"image": image_path(name)}
    return {"id": key, **image, "source": source, "conversations": turns}

"""Questions without an image: sums, orders and spelling, drawn; none is asked twice."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from prism_tune.quickstart.sources.example import Example, Turn, shuffled, single
from prism_tune.quickstart.sources.words import WORDS

_MAX_TERM = 12
_MAX_COMPARED = 40


def draw_facts(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples in a fixed order; nothing of the wheels is read."""
    return [single(None, "", turn) for turn in shuffled(_list_turns(), "facts")[:num_examples]]


def _list_turns() -> Iterator[Turn]:
    """All there are."""
    terms = range(1, _MAX_TERM + 1)
    yield from (Turn(f"what is {a} plus {b}?", str(a + b)) for a in terms for b in terms)
    for low in range(1, _MAX_COMPARED, 2):
        for high in range(low + 3, _MAX_COMPARED, 9):
            first, second = (low, high) if (low + high) % 4 else (high, low)
            yield Turn(f"which is larger, {first} or {second}?", str(high))
    for letter, following in pairwise(string.ascii_lowercase):
        yield Turn(f"which letter comes after {letter}?", following)
        yield Turn(f"which letter comes before {following}?", letter)
    for word in WORDS:
        yield Turn(f"what is the first letter of {word}?", word[0])
        yield Turn(f"what is the last letter of {word}?", word[-1])
        yield Turn(f"how many letters has the word {word}?", str(len(word)))

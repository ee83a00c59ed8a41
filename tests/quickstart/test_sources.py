"""The mix's sources: what their pictures show is what is said of them."""

from __future__ import annotations

import gzip
import io
import pickle
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from prism_tune.errors import UserError
from prism_tune.quickstart.assets import fetch_wheels
from prism_tune.quickstart.mix import MIX
from prism_tune.quickstart.sources.animals import read_array
from prism_tune.quickstart.sources.charts import draw_charts
from prism_tune.quickstart.sources.counting import draw_scenes
from prism_tune.quickstart.sources.example import COLOURS
from prism_tune.quickstart.sources.facts import draw_facts


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def is_coloured(content: bytes, colour: str) -> np.ndarray:
    return (pixels(content) == COLOURS[colour]).all(-1)


def test_the_tallest_and_the_shortest_bar_are_so():
    for example in draw_charts({}, 40):
        heights = {name: is_coloured(example.image, name).any(1).sum() for name in COLOURS}
        present = {name: height for name, height in heights.items() if height}
        assert len(present) in (3, 4)
        expected = {
            "tallest": max(present, key=present.get),
            "highest": max(present, key=present.get),
            "shortest": min(present, key=present.get),
            "lowest": min(present, key=present.get),
        }
        for turn in example.talks[0]:
            (asked,) = [word for word in expected if word in turn.question]
            assert turn.answer == expected[asked]


def test_a_scene_has_as_many_things_as_are_counted():
    """Things do not touch more than at an edge: their area tells how many there are."""
    for example in draw_scenes({}, 40):
        ((turn,),) = example.talks
        count, colour, form = example.caption.split()
        assert turn.answer == count
        assert count in ("1", "2", "3", "4")
        assert f" {form.rstrip('s')}s" in turn.question
        # A triangle of 9 px has 45 to 50 pixels, a square of 12 px 169.
        assert 40 * int(count) <= is_coloured(example.image, colour).sum() <= 169 * int(count)


def test_facts_are_true_and_asked_once():
    facts = draw_facts({}, 10_000)
    questions = [fact.asked.question for fact in facts]
    assert len(set(questions)) == len(questions) >= MIX["facts"].num_test + MIX["facts"].num_pool
    known = {fact.asked.question: fact.asked.answer for fact in facts}
    assert known["what is 7 plus 8?"] == "15"
    assert known["which letter comes after g?"] == "h"
    assert known["which letter comes before z?"] == "y"
    assert known["what is the last letter of wolf?"] == "f"
    assert known["how many letters has the word sun?"] == "3"
    for question, answer in known.items():
        if question.startswith("which is larger"):
            assert int(answer) == max(map(int, re.findall(r"\d+", question)))


def pack(value: object) -> bytes:
    return gzip.compress(pickle.dumps(value, protocol=4))


def test_an_array_is_read_out_of_a_pickle_without_running_it():
    array = np.arange(300, dtype=np.uint8)
    assert read_array(pack(array)) == array.tobytes()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("held", [[], [b"a" * 300, b"b" * 300], Bomb()])
def test_a_pickle_of_anything_else_is_refused(held):
    with pytest.raises(UserError, match="expected one byte string in it"):
        read_array(pack(held))


@pytest.fixture(scope="module")
def wheels():
    return fetch_wheels()


@pytest.mark.slow
@pytest.mark.parametrize("source", MIX)
def test_every_source_has_enough_that_is_different_and_the_same_at_every_call(source, wheels):
    share = MIX[source]
    number = share.num_test + share.num_pool + share.num_captions + share.num_spare
    examples = share.draw(wheels, number)
    assert len(examples) == number
    if source != "facts":
        assert len({example.image for example in examples}) == number
        assert all(example.caption for example in examples)
    answers = Counter(example.asked.answer for example in examples)
    assert answers.most_common(1)[0][1] < 0.35 * number  # no answer that is right by itself
    assert share.draw(wheels, 20) == examples[:20]


@pytest.mark.slow
def test_animals_and_digits_have_the_labels_of_their_files(wheels):
    animals = MIX["animals"].draw(wheels, 10_000)
    counts = Counter(example.asked.answer for example in animals)
    assert counts.total() == 9716  # of 10,000, the others being copies
    assert (counts["bird"], counts["elephant"], counts["zebra"]) == (812, 1000, 1000)
    digits = Counter(example.asked.answer for example in MIX["digits"].draw(wheels, 1797))
    assert digits == {
        **{"0": 178, "1": 182, "2": 177, "3": 183, "4": 181},
        **{"5": 182, "6": 181, "7": 179, "8": 174, "9": 180},
    }

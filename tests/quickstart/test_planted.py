"""The planted pool: what is drawn, what is copied, and that a copy is what it says."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw

from prism_tune.quickstart.planted import build_planted_pool, copy_image, copy_name, plan_images
from prism_tune.quickstart.pool import DrawingQuestion


@pytest.fixture(scope="module")
def questions() -> list[DrawingQuestion]:
    """2,000 drawings, every second red; each is asked its colour and whether it is a circle."""
    colours = {i: "red" if i % 2 else "blue" for i in range(2000)}
    asked = [DrawingQuestion("what color is the shape?", c, i) for i, c in colours.items()]
    return [*asked, *(DrawingQuestion("is there a circle?", "no", i) for i in range(2000))]


@pytest.fixture(scope="module")
def images(questions):
    return plan_images(questions, range(700))


@pytest.fixture
def drawing() -> bytes:
    image = Image.new("RGB", (64, 64), (250, 250, 250))
    ImageDraw.Draw(image).ellipse((20, 20, 50, 50), fill=(200, 30, 30))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=float)


def test_the_images_are_those_of_a_pool_of_700_and_the_same_at_every_call(questions, images):
    copied = [image for group in images.copied.values() for image in group]
    assert (len(images.originals), len(copied), len(images.over)) == (280, 105, 105)
    assert len(images.originals) + 3 * len(copied) + len(images.over) == 700
    assert len(set(copied)) == 105
    assert set(copied) <= set(images.originals) <= set(range(700))
    assert not set(images.over) & set(images.originals)
    assert all(image % 2 for image in images.over)  # red, and not in the pool twice
    assert plan_images(questions, range(700)) == images


def test_a_copied_record_says_the_same_about_another_file(questions, images):
    records, planted = build_planted_pool(questions, images)
    by_id = {record["id"]: record for record in records}
    assert len(by_id) == len(records) == 2 * 700
    assert Counter(item["kind"] for item in planted.values()) == {
        "exact": 210,
        "recoded": 210,
        "cropped": 210,
        "over": 210,
    }
    assert len({record["image"] for record in records}) == 700
    for key, item in planted.items():
        if item["kind"] == "over":
            assert item["of"] is None
            continue
        copy, original = by_id[key], by_id[item["of"]]
        assert item["of"] not in planted
        assert copy["conversations"] == original["conversations"]
        assert copy["source"] == original["source"]
        assert copy["image"] != original["image"]
    image = images.copied["recoded"][0]
    assert f"{image}-recoded-2.jpg" in {record["image"] for record in records}


def test_an_exact_copy_has_the_same_bytes(drawing):
    assert copy_image(drawing, "exact", 1) == drawing


@pytest.mark.parametrize("kind", ["recoded", "cropped"])
def test_a_near_copy_is_another_file_of_a_picture_much_alike(drawing, kind):
    copies = [copy_image(drawing, kind, number) for number in range(3)]
    assert len({drawing, *copies}) == 4
    offs = [np.abs(pixels(copy) - pixels(drawing)).mean() for copy in copies]
    assert [pixels(copy).shape for copy in copies] == [(64, 64, 3)] * 3
    assert offs == sorted(offs)  # worse from copy to copy
    assert offs[0] > 0
    assert offs[2] < 20


def test_files_are_named_by_kind_and_number():
    assert copy_name(12, "exact", 0) == "12-exact-0.png"
    assert copy_name(12, "recoded", 2) == "12-recoded-2.jpg"

"""Where the images of a record stand in its text.

Turns and images go in; turns with one `<image>` for each image come out, at its official place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prism_tune.data.layouts.image_values import ONLY_IMAGES, NamedImage
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import IMAGE_PLACEHOLDER, Turn

Slot = NamedImage | int | None
Slots = tuple[Slot, ...]
"""One for each `<image>` of the turns, in order: the image that stands there, its number in the
record's own column, or None."""

_FOREIGN = (
    r"<(?:image|img)(?:[ _]?\d+)?>|<image_?(?:here|placeholder)>|\[img\]"
    r"|<\|(?:image|img|vision)(?:_[a-z]+)?(?:_\d+)?\|>"
)
_FOREIGN_IMAGE = re.compile(_FOREIGN, re.IGNORECASE)
_FOREIGN_AT_AN_END = re.compile(
    rf"\A\s*({_FOREIGN}|<video>|<audio>)|({_FOREIGN}|<video>|<audio>)\s*\Z", re.IGNORECASE
)
"""What other trainers write where an image, a video or a sound stands."""
_OF_OBJECTS = ("<ref-object>", "<bbox>")


def fill_slots(images: Sequence[NamedImage], slots: Slots) -> tuple[NamedImage, ...]:
    """The record's images in the order of the text.

    Args:
        images: of the record's own column, in order.
        slots: of its turns. Those without an image of their own take the next of the column.

    Raises:
        BadRecordError: too few or too many.
    """
    if slots.count(None) == len(slots):
        return tuple(images)
    named = {slot.name for slot in slots if isinstance(slot, NamedImage)}
    numbered = {slot for slot in slots if isinstance(slot, int)}
    remaining = [image for number, image in enumerate(images) if number not in numbered]
    filled: list[NamedImage] = []
    for slot in slots:
        if isinstance(slot, NamedImage):
            filled.append(slot)
        elif slot is not None and slot < len(images):
            filled.append(images[slot])
        elif slot is None and remaining:
            filled.append(remaining.pop(0))
        else:
            raise _miscounted(len(slots), len(images) + len(named))
    # A column that only repeats what the turns name is no further image.
    if any(image.name not in named for image in remaining):
        raise _miscounted(len(slots), len(filled) + len(remaining))
    return tuple(filled)


def place_images(turns: tuple[Turn, ...], num_placed: int, num_images: int) -> tuple[Turn, ...]:
    """The turns, with an `<image>` for each image; before the first question where none is.

    Args:
        turns: question, answer, ...
        num_placed: how many the questions have.
        num_images: how many they should have.

    Raises:
        BadRecordError: some, but another number; or what other trainers write instead.
    """
    if num_placed:
        if num_placed == num_images:
            return turns
        raise _miscounted(num_placed, num_images)
    _refuse_foreign(turns, num_images)
    if not num_images:
        return turns
    first = replace(turns[0], text=f"{IMAGE_PLACEHOLDER}\n" * num_images + turns[0].text)
    return (first, *turns[1:])


def _refuse_foreign(turns: tuple[Turn, ...], num_images: int) -> None:
    """Refuse placeholders of other trainers where none of ours is.

    Without an image only at the ends of a question without markup: elsewhere it may be about HTML.
    """
    for number, turn in enumerate(turns):
        if turn.role == "gpt" or not ("<" in turn.text or "[" in turn.text):
            continue
        found = _FOREIGN_AT_AN_END.search(turn.text)
        if found and not num_images and "</" in turn.text:
            continue
        if num_images and not found:
            found = _FOREIGN_IMAGE.search(turn.text)
        if not found:
            continue
        mark = found[0].strip()
        if mark.lower() in ("<video>", "<audio>"):
            raise BadRecordError("unsupported_medium", f"turn {number}: {mark}; {ONLY_IMAGES}")
        where = f"{mark} in turn {number}, {num_images} images"
        raise BadRecordError("image_count", f"{where}; expected {IMAGE_PLACEHOLDER} for each image")


def refuse_objects(raw: Mapping[str, Any], turns: Sequence[Turn]) -> None:
    """Refuse ms-swift's grounding: places in the text that its `objects` would fill.

    Raises:
        BadRecordError: naming the place.
    """
    if "objects" not in raw or not raw["objects"]:
        return
    for number, turn in enumerate(turns):
        for mark in _OF_OBJECTS:
            if mark in turn.text:
                wrong = f"turn {number}: {mark} is not filled from `objects`; write out the text"
                raise BadRecordError("bad_field", wrong)


def move_to_front(turns: tuple[Turn, ...], num_images: int) -> tuple[Turn, ...]:
    """The turns as LLaVA trains on them: `<image>` on a line of its own before the question.

    LLaVA's `preprocess_multimodal` moves it to the front of its turn, always. Records of several
    images, which may speak of each where it stands, keep theirs; so do turns that begin with it.
    The same object where nothing moves.
    """
    if num_images != 1:
        return turns
    for number, turn in enumerate(turns):
        if IMAGE_PLACEHOLDER in turn.text:
            if turn.text.lstrip().startswith(IMAGE_PLACEHOLDER):
                return turns
            rest = turn.text.replace(IMAGE_PLACEHOLDER, "").strip()
            moved = replace(turn, text=f"{IMAGE_PLACEHOLDER}\n{rest}")
            return (*turns[:number], moved, *turns[number + 1 :])
    return turns


def misplaced(number: int, where: str) -> BadRecordError:
    """Placeholders where no image can be shown."""
    return BadRecordError(
        "image_count", f"{number} {IMAGE_PLACEHOLDER} in {where}; expected in a question"
    )


def _miscounted(num_placed: int, num_images: int) -> BadRecordError:
    found = f"{num_placed} {IMAGE_PLACEHOLDER} in the turns, {num_images} images"
    return BadRecordError("image_count", f"{found}; expected as many placeholders as images")

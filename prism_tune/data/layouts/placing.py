"""Where the images of a record stand in its text.

Turns and images go in; turns with one `<image>` for each image come out, at its official place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prism_tune.data.layouts.image_values import NamedImage
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import IMAGE_PLACEHOLDER, Turn

Slots = tuple[NamedImage | None, ...]
"""One for each `<image>` of the turns, in order: the image that stands there, or None."""


def fill_slots(images: Sequence[NamedImage], slots: Slots) -> tuple[NamedImage, ...]:
    """The record's images in the order of the text.

    Args:
        images: of the record's own column, in order.
        slots: of its turns. Those without an image of their own take the next of the column.

    Raises:
        BadRecordError: too few or too many.
    """
    if not any(slots):
        return tuple(images)
    named = {slot.name for slot in slots if slot is not None}
    remaining = list(images)
    filled = []
    for slot in slots:
        if slot is None and not remaining:
            raise _miscounted(len(slots), len(images) + sum(s is not None for s in slots))
        filled.append(slot or remaining.pop(0))
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
        BadRecordError: some, but another number.
    """
    if num_placed == num_images:
        return turns
    if num_placed:
        raise _miscounted(num_placed, num_images)
    first = replace(turns[0], text=f"{IMAGE_PLACEHOLDER}\n" * num_images + turns[0].text)
    return (first, *turns[1:])


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

"""What a turn says besides role and text: its loss, images of its own, and what nothing reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism_tune.data.layouts.columns import Columns, is_null
from prism_tune.data.layouts.image_values import NamedImage, read_images, shorten
from prism_tune.data.layouts.media import refuse_media, refuse_unread
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import Role

LOSS_KEYS = ("loss", "weight", "train", "training")
"""ms-swift's, OpenAI's and OpenChat's, and axolotl's: whether a turn is learnt."""

IMAGE_KEYS = ("image", "images")
"""Of a turn, as in Ollama's messages."""


@dataclass(frozen=True)
class Further:
    """`unread`: keys that say something that is not read."""

    has_loss: bool
    images: tuple[NamedImage, ...]
    unread: tuple[str, ...]


def read_further(item: Mapping[str, Any], where: str, role: Role, columns: Columns) -> Further:
    """Read a turn's other keys.

    Args:
        item: the turn.
        where: its number, for messages.
        role: whose it is.
        columns: which keys hold role and text.

    Raises:
        BadRecordError: it calls tools, shows a video, or says of its loss something else than yes
            or no.
    """
    for key in ("tool_calls", "function_call"):
        if item.get(key):
            raise BadRecordError("tool_turn", f"{where}: it calls tools (`{key}`)")
    known = {columns.key("role", item), columns.key("text", item), *LOSS_KEYS, *IMAGE_KEYS}
    others = {
        key: value
        for key, value in item.items()
        if key not in known and not is_null(value) and value not in ("", [], {})
    }
    if others:
        refuse_media(others, columns, f"{where}: ")
        refuse_unread(others, frozenset(), f"{where}: ")
    return Further(
        _has_loss(item, where, role), _read_own_images(item, where), tuple(map(str, others))
    )


def _read_own_images(item: Mapping[str, Any], where: str) -> tuple[NamedImage, ...]:
    found = [read_images(item.get(key), f"{where}: `{key}`") for key in IMAGE_KEYS]
    given = [images for images in found if images]
    if len({tuple(image.name for image in images) for images in given}) > 1:
        both = f"{where}: `image` and `images` hold different images"
        raise BadRecordError("bad_field", f"{both}; name all of them in `images`")
    return given[0] if given else ()


def _has_loss(item: Mapping[str, Any], where: str, role: Role) -> bool:
    for key in LOSS_KEYS:
        value = item.get(key)
        if is_null(value) or role != "gpt":
            continue
        if value not in (0, 1):
            expected = f"{where}: `{key}`: expected true or false"
            raise BadRecordError("bad_field", f"{expected}, got {shorten(value)}")
        if not value:
            return False
    return True


def is_number(value: Any) -> bool:
    """Whether a value is a number, which may stand for its text; NaN is none."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and not is_null(value)

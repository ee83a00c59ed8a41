"""The content of one turn, as text with an `<image>` for each image, and the images it names.

Content is text, or a list of parts as OpenAI, Qwen, Anthropic and Hugging Face write them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prism_tune.data.layouts.columns import is_null
from prism_tune.data.layouts.image_values import (
    ONLY_IMAGES,
    is_unicode,
    read_image,
    shorten,
)
from prism_tune.data.layouts.media import refuse_unread
from prism_tune.data.layouts.placing import Slot, Slots
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import IMAGE_PLACEHOLDER

_TEXT_TYPES = {"text", "input_text", "output_text"}
_IMAGE_TYPES = {"image", "image_url", "input_image", "image_path"}
PART_KEYS = ("image", "image_url", "url", "path", "base64", "bytes", "source", "image_path")
"""Of a part that is an image."""
_MEDIA_KEYS = ("video", "video_url", "audio", "audio_url", "input_audio")
_TOOL_TYPES = ("tool", "function")

IMAGE_TAG = "<img>"
_TAGGED = re.compile(rf"{IMAGE_TAG}([^<>\n]+)</img>|{IMAGE_PLACEHOLDER}")


def read_content(content: Any, where: str, *, reads_tags: bool = False) -> tuple[str, Slots]:
    """A turn's text, and what stands at each of its placeholders.

    Args:
        content: text, or a list of parts.
        where: the turn and its keys, for messages.
        reads_tags: whether Qwen-VL's `<img>path</img>` in a text is an image.

    Raises:
        BadRecordError: parts that are neither text nor image.
    """
    if isinstance(content, str):
        if not is_unicode(content):
            raise _no_text(content, where)
        if reads_tags and IMAGE_TAG in content:
            return _read_tags(content, where)
        return content, (None,) * content.count(IMAGE_PLACEHOLDER)
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise _no_text(content, where)
    texts: list[str] = []
    slots: list[Slot] = []
    for part in content:
        text, filled = _read_part(part, where)
        texts.append(text)
        slots.extend(filled)
    return "".join(texts), tuple(slots)


def _read_tags(text: str, where: str) -> tuple[str, Slots]:
    """The text with `<image>` in place of each `<img>path</img>`."""
    slots = tuple(read_image(named, where) if named else None for named in _TAGGED.findall(text))
    return _TAGGED.sub(IMAGE_PLACEHOLDER, text), slots


def _read_part(part: Any, where: str) -> tuple[str, Slots]:
    """An image part is `<image>` on its own line."""
    if isinstance(part, str):
        return read_content(part, where)
    if not isinstance(part, dict):
        raise _no_text(part, where)
    kind = part.get("type")
    if not isinstance(kind, str) or not kind:
        kind = _guess_type(part)
    if kind in _TEXT_TYPES:
        return _read_text(part, where)
    if kind in _IMAGE_TYPES:
        if any(_is_filled(part.get(key)) for key in ("text", *_MEDIA_KEYS)):
            both = f"{where}: a part of an image and something else: {shorten(part)}"
            raise BadRecordError("bad_field", f"{both}; expected a part for each")
        return f"{IMAGE_PLACEHOLDER}\n", (_read_image(part, where),)
    if kind and kind.removeprefix("input_").startswith(("video", "audio")):
        raise BadRecordError("unsupported_medium", f"{where}: a part `{kind}`; {ONLY_IMAGES}")
    if kind and kind.startswith(_TOOL_TYPES):
        raise BadRecordError(
            "tool_turn", f"{where}: a part `{kind}`; only text and images are read"
        )
    raise BadRecordError(
        "bad_field", f"{where}: expected parts of text and images, got {shorten(part)}"
    )


def _guess_type(part: Mapping[str, Any]) -> str | None:
    """Qwen's parts may go without a type: {"image": ...}, {"text": ...}.

    Where a table gives every part all of the keys, the one that says something counts.
    """
    for key in ("image", "image_url", *_MEDIA_KEYS):
        if _is_filled(part.get(key)):
            return key
    return next((key for key in ("text", "image", "image_url") if part.get(key) is not None), None)


def _is_filled(value: Any) -> bool:
    """Also an object of nothing but nulls says nothing."""
    if isinstance(value, dict):
        return any(map(_is_filled, value.values()))
    return not is_null(value) and value not in ("", [])


def _read_text(part: Mapping[str, Any], where: str) -> tuple[str, Slots]:
    """A part that is text, and holds no image or video beside it."""
    text = part.get("text")
    if not isinstance(text, str):
        raise _no_text(text, where)
    others = {key: value for key, value in part.items() if key not in ("type", "text")}
    refuse_unread(others, frozenset(), f"{where}: ")
    return read_content(text, where)


def _read_image(part: Mapping[str, Any], where: str) -> Slot:
    """The image a part names; its number, or None, where it is the record's column that does."""
    for key in PART_KEYS:
        value = part.get(key)
        if is_null(value) or value == "":
            continue
        return read_image({key: value} if key == "base64" else value, where)
    index = part.get("index")
    return index if type(index) is int and index >= 0 else None


def _no_text(content: Any, where: str) -> BadRecordError:
    return BadRecordError("bad_field", f"{where}: expected text, got {shorten(content)}")

"""What a record holds and nothing here can read: video and sound, and images under other keys.

Such a record must not pass for one of text only: its answer is about something that the model is
never shown. A raw record goes in; an error with the reason comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from prism_tune.data.layouts.columns import Columns, is_null
from prism_tune.data.layouts.image_values import EMBEDDED, MEDIA_SUFFIXES, ONLY_IMAGES, shorten
from prism_tune.data.policy import BadRecordError

UNREAD_BYTES = "bytes:"
"""Begins what stands in place of bytes under a key that is not read."""

_MEDIA = frozenset({"video", "videos", "audio", "audios"})
_MEDIA_WORDS = {"video", "videos", "audio", "audios", "speech", "mp4", "wav"}
_IMAGE_WORDS = {
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"),
    *("jpg", "jpeg", "png", "webp", "pixels", "screenshot", "figure"),
}
_ABOUT = {
    *("id", "ids", "size", "sizes", "width", "height", "num", "count", "has", "is", "type", "hash"),
    *("caption", "captions", "description", "source", "license", "dir", "root", "tokens", "token"),
    *("sha256", "md5", "duration", "length", "fps", "folder", "text", "prompt"),
}
"""Words of keys that say something about an image or a video, instead of holding it."""

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_LONGEST_PATH = 4096
_PATH_KEYS = ("bytes", "path", "url")
_WORD_END = re.compile(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+|(?<=[A-Za-z])(?=\d+$)")


def refuse_media(raw: Mapping[str, Any], columns: Columns) -> None:
    """Refuse a record with `video`, `videos`, `audio` or `audios`.

    Raises:
        BadRecordError: naming the key.
    """
    if _MEDIA.isdisjoint(raw):
        return
    for key in sorted(raw.keys() & _MEDIA):
        named = any(key in keys for keys in columns.keys.values())
        if raw[key] and not is_null(raw[key]) and not named:
            raise _unsupported(key, raw[key])


def refuse_unread(raw: Mapping[str, Any], read_keys: frozenset[str]) -> None:
    """Refuse a record without image that holds an image, or a video, under a key that is not read.

    Args:
        raw: the record.
        read_keys: those that are.

    Raises:
        BadRecordError: naming the key.
    """
    for key, value in raw.items():
        if key in read_keys or not isinstance(value, str | list | dict) or not value:
            continue
        paths = _list_paths(value)
        if not paths:
            continue
        words = {word.lower() for word in _WORD_END.split(str(key)) if word}
        is_about = bool(words & _ABOUT)
        if _ends(paths, MEDIA_SUFFIXES) or (words & _MEDIA_WORDS and not is_about):
            raise _unsupported(key, value)
        if _are_images(paths) or (words & _IMAGE_WORDS and not is_about):
            raise BadRecordError(
                "image_unread",
                f"`{key}` holds an image that nothing reads: {shorten(value)}; "
                f"data.columns.image={key} reads it",
            )


def _unsupported(key: str, value: Any) -> BadRecordError:
    return BadRecordError("unsupported_medium", f"`{key}`: {shorten(value)}; {ONLY_IMAGES}")


def _list_paths(value: Any) -> list[str]:
    """The texts that may name files, or stand for their bytes: of a value, a list or a `path`."""
    paths: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        given = [item.get(key) for key in _PATH_KEYS] if isinstance(item, dict) else [item]
        paths += [text for text in given if isinstance(text, str) and text]
    return paths


def _are_images(paths: list[str]) -> bool:
    is_held = any(text.startswith((EMBEDDED, UNREAD_BYTES, "data:image")) for text in paths)
    return is_held or _ends(paths, _IMAGE_SUFFIXES)


def _ends(paths: list[str], suffixes: tuple[str, ...]) -> bool:
    """Whether one of the texts is a file of such a kind, and not a sentence about one."""
    return any(
        len(text) <= _LONGEST_PATH
        and not any(letter.isspace() for letter in text)
        and text.partition("?")[0].lower().endswith(suffixes)
        and PurePosixPath(text).suffix
        for text in paths
    )

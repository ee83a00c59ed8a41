"""What a record holds and nothing here can read: video, sound, tools, images under other keys.

Such a record must not pass for one of text only: its answer is about something that the model is
never shown. A raw record goes in; an error with the reason comes out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from prism_tune.data.layouts.columns import Columns, is_null
from prism_tune.data.layouts.image_values import EMBEDDED, MEDIA_SUFFIXES, ONLY_IMAGES, shorten
from prism_tune.data.policy import BadRecordError

_UNREAD_BYTES = "bytes:"

_MEDIA = frozenset({"video", "videos", "audio", "audios"})
_TOOLS = frozenset({"tools", "functions"})
_UNREADABLE = _MEDIA | _TOOLS
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

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_LONGEST_PATH = 4096
_PATH_KEYS = ("bytes", "path", "url")
_IDS = {"id", "ids"}
_DEEPEST = 2
_WORD_END = re.compile(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+|(?<=[A-Za-z])(?=\d+$)")


def stand_for(content: bytes) -> str:
    """What stands in place of bytes that are not read, and tells of them."""
    return _UNREAD_BYTES + hashlib.blake2b(content, digest_size=16).hexdigest()


def refuse_media(raw: Mapping[str, Any], columns: Columns, where: str = "") -> None:
    """Refuse a record with `video`, `videos`, `audio` or `audios`, or with definitions of tools.

    Raises:
        BadRecordError: naming the key.
    """
    if _UNREADABLE.isdisjoint(raw):
        return
    for key in sorted(raw.keys() & _TOOLS):
        if raw[key] and not is_null(raw[key]) and raw[key] not in ("[]", "{}", "null"):
            raise BadRecordError(
                "tool_turn",
                f"{where}`{key}`: {shorten(raw[key])}; definitions of tools are not read",
            )
    for key in sorted(raw.keys() & _MEDIA):
        named = any(key in keys for keys in columns.keys.values())
        if raw[key] and not is_null(raw[key]) and not named:
            raise _unsupported(f"{where}`{key}`", raw[key])


def refuse_unread(raw: Mapping[str, Any], read_keys: frozenset[str], where: str = "") -> None:
    """Refuse what has no image, and holds an image, or a video, under a key that is not read.

    Args:
        raw: a record, or a turn.
        read_keys: those that are.
        where: of a turn its number, for messages.

    Raises:
        BadRecordError: naming the key.
    """
    for key, value in raw.items():
        if key in read_keys or is_null(value) or isinstance(value, bool):
            continue
        for name, words, paths in _walk(str(key), value):
            is_about = bool(words & _ABOUT)
            if _ends(paths, MEDIA_SUFFIXES) or (words & _MEDIA_WORDS and not is_about):
                raise _unsupported(f"{where}`{name}`", value)
            if _are_images(paths) or (words & _IMAGE_WORDS and not is_about):
                remedy = f"data.columns.image={name} reads it"
                if where or name != key:
                    remedy = "name it in the record's `image`"
                held = f"{where}`{name}` holds an image that nothing reads: {shorten(value)}"
                raise BadRecordError("image_unread", f"{held}; {remedy}")
            if words & _IMAGE_WORDS and words & _IDS and not words - _IMAGE_WORDS - _IDS:
                raise BadRecordError(
                    "image_unread",
                    f"{where}`{name}` says which image it is about: {shorten(value)}; name its "
                    "file in the record's `image`, or remove the key",
                )


def refuse_siblings(raw: Mapping[str, Any], read_keys: frozenset[str]) -> None:
    """Refuse a record with images that holds another under a numbered key, which is not read.

    `image` and `image_2` are the images of one record; without the second its text is about
    something that the model is never shown. What stands beside under names of its own (a mask, a
    thumbnail) is left alone.

    Raises:
        BadRecordError: naming the key.
    """
    for key in [key for key in raw if key not in read_keys]:
        words = {word.lower() for word in _WORD_END.split(key) if word}
        numbers = {word for word in words if word.isdigit()}
        if not numbers or not words & _IMAGE_WORDS or words - numbers - _IMAGE_WORDS:
            continue
        if any(paths for _, _, paths in _walk(key, raw[key])):
            raise BadRecordError(
                "image_unread",
                f"`{key}` holds an image that nothing reads, beside those of the record: "
                f"{shorten(raw[key])}; name all of them in `image`, as a list",
            )


def _unsupported(where: str, value: Any) -> BadRecordError:
    return BadRecordError("unsupported_medium", f"{where}: {shorten(value)}; {ONLY_IMAGES}")


def _walk(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, set[str], list[str]]]:
    """Keys, the words that they are made of, and the texts there that may name files.

    Of lists and objects inside as well; a path or bytes in an object go by the object's own key.
    """
    paths: list[str] = []
    has_number = False
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            paths += [item] * bool(item)
        elif isinstance(item, bytes):
            paths.append(stand_for(item))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            has_number |= item >= 0
        elif isinstance(item, dict):
            paths += [text for key in _PATH_KEYS if (text := _read_path(item.get(key)))]
            inner = [key for key in item if key not in _PATH_KEYS] if depth < _DEEPEST else []
            for key in inner:
                yield from _walk(f"{name}.{key}", item[key], depth + 1)
    words = {word.lower() for word in _WORD_END.split(name.rpartition(".")[2]) if word}
    if paths or (has_number and words & _IDS):
        yield name, words, paths


def _read_path(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _are_images(paths: list[str]) -> bool:
    is_held = any(text.startswith((EMBEDDED, _UNREAD_BYTES, "data:image")) for text in paths)
    return is_held or _ends(paths, IMAGE_SUFFIXES)


def _ends(paths: list[str], suffixes: tuple[str, ...]) -> bool:
    """Whether one of the texts is a file of such a kind, and not a sentence about one."""
    return any(
        len(text) <= _LONGEST_PATH
        and not any(letter.isspace() for letter in text)
        and text.partition("?")[0].lower().endswith(suffixes)
        and PurePosixPath(text).suffix
        for text in paths
    )

"""How a record says which image it means: a path, a URI, a dictionary of both, or the bytes.

A raw value goes in; a name comes out, and the content where the value holds it. Such an image is
named by its content, so that it is one image however often it is given (see `embedded_images`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from prism_tune.data.layouts.columns import Columns, is_null
from prism_tune.data.policy import BadRecordError

EMBEDDED = "embedded:"
"""Begins the name of an image that a record holds itself."""

MEDIA_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus", ".aac"),
)
"""Of files that are video or sound."""

_SIGNATURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_IN_DICTIONARY = ("bytes", "base64", "data", "path", "url", "image", "image_url", "file_name")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URI = re.compile(r"file:(//localhost(?=/)|//|(?=/))", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s_-]+={0,2}\s*")
_URL_SAFE = str.maketrans("-_", "+/")
_LONGEST_FILE_NAME = 255


class NamedImage(NamedTuple):
    """An image of a record; `content` where the record holds it.

    `path`: what such an image is called beside its content, or "".
    """

    name: str
    content: bytes | None = None
    path: str = ""


def read_column(raw: Mapping[str, Any], columns: Columns) -> tuple[NamedImage, ...]:
    """The images of the record's own column.

    Raises:
        BadRecordError: what stands there is no image, or two of its keys hold different ones.
    """
    value, key = columns.find_filled("image", raw), columns.keys["image"][-1]
    images = read_images(value, columns.name("image"))
    second = raw.get(key)
    if second and second is not value and not is_null(second):
        others = {image.name for image in read_images(second, columns.name("image"))}
        if others and others != {image.name for image in images}:
            raise differing_columns(columns)
    return images


def differing_columns(columns: Columns) -> BadRecordError:
    """Of two image columns each holds images of its own."""
    return BadRecordError(
        "bad_field",
        f"{columns.name('image')}: they hold different images; remove one, or name the one that "
        f"counts, for example data.columns.image={columns.keys['image'][-1]}",
    )


def read_images(value: Any, where: str) -> tuple[NamedImage, ...]:
    """The images of one value, or of a list of them.

    Args:
        value: None where there is none.
        where: its keys, for messages.

    Raises:
        BadRecordError: what stands there is no image.
    """
    if not value:
        return ()
    if type(value) is str:
        return (_read_text(value, where),)
    items = value if isinstance(value, list) else [value]
    images = tuple(read_image(item, where) for item in items)
    if not any(images):
        return ()
    if not all(images):
        raise BadRecordError("bad_field", f"{where}: {images.count(None)} of the images are null")
    return tuple(image for image in images if image is not None)


def read_image(value: Any, where: str) -> NamedImage | None:
    """One image; None for null and "", also where these are all that a dictionary holds.

    Raises:
        BadRecordError: a web address, a video, a broken data URI, or no image at all.
    """
    if isinstance(value, str) and value:
        return _read_text(value, where)
    if isinstance(value, bytes) and value:
        return name_content(value)
    if isinstance(value, dict):
        return _read_dictionary(value, where)
    if is_null(value) or value == "":
        return None
    raise _no_image(value, where)


def name_content(content: bytes) -> NamedImage:
    """An image by its content: `embedded:<BLAKE2b-128>.<suffix of its kind>`."""
    suffix = next((end for start, end in _SIGNATURES.items() if content.startswith(start)), ".bin")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return NamedImage(f"{EMBEDDED}{digest}{suffix}", content)


def _read_dictionary(value: Mapping[str, Any], where: str) -> NamedImage | None:
    """`datasets`' {bytes, path}, OpenAI's {url}, and their like; bytes count before a path."""
    for key in _IN_DICTIONARY:
        given = value.get(key)
        if is_null(given) or given == "":
            continue
        if key in {"base64", "data"} and isinstance(given, str) and not given.startswith("data:"):
            return name_content(_decode(given, where))
        image = read_image(given, where)
        path = value.get("path")
        if image and isinstance(path, str) and is_unicode(path):
            return image._replace(path=path)
        return image
    if any(key in value for key in _IN_DICTIONARY):
        return None
    raise _no_image(value, where)


def _read_text(value: str, where: str) -> NamedImage:
    scheme = value[:5].lower()
    if scheme == "data:":
        return _read_data_uri(value, where)
    if scheme == "file:" and (found := _FILE_URI.match(value)):
        path = unquote(value[found.end() :])
        value = path[1:] if re.match(r"/[A-Za-z]:[\\/]", path) else path
    elif "://" in value and _REMOTE.match(value):
        raise BadRecordError(
            "image_remote",
            f"{where}: {value[:80]!r} is an address; expected a file, none is fetched from the web",
        )
    elif len(value) > _LONGEST_FILE_NAME and "." not in value and _BASE64.fullmatch(value):
        return name_content(_decode(value, where))
    if not value or not is_unicode(value):
        raise _no_image(value, where)
    if value.lower().endswith(MEDIA_SUFFIXES):
        raise BadRecordError("unsupported_medium", f"{where}: {value!r} is no image; {ONLY_IMAGES}")
    return NamedImage(value)


ONLY_IMAGES = "only images and text are read"


def _read_data_uri(value: str, where: str) -> NamedImage:
    header, comma, data = value.partition(",")
    if not comma:
        raise BadRecordError("bad_field", f"{where}: a data URI without content: {value[:40]!r}")
    if header.lower().startswith(("data:video", "data:audio")):
        medium = f"{where}: {header[:40]!r} is no image; {ONLY_IMAGES}"
        raise BadRecordError("unsupported_medium", medium)
    is_base64 = header.endswith(";base64")
    content = _decode(unquote(data), where) if is_base64 else unquote_to_bytes(data)
    if not content:
        raise BadRecordError("bad_field", f"{where}: a data URI without content: {value[:40]!r}")
    return name_content(content)


def _decode(text: str, where: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()).translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRecordError(
            "bad_field", f"{where}: not base64 ({error}): {text[:40]!r}"
        ) from error


def is_unicode(text: str) -> bool:
    """False for text with a lone surrogate, which no tokenizer accepts and no file is called."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_image(value: Any, where: str) -> BadRecordError:
    return BadRecordError(
        "bad_field", f"{where}: expected a path or a list of paths, or bytes: {shorten(value)}"
    )


def shorten(value: Any) -> str:
    """A value as it stands in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Which file of a sample is which image of its record, and where the record holds it.

Images by what each is called in its sample (`png`, `0.jpg`) and the sample's record go in; the
record holds the images, in its own order, where it named them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeGuard

from prism_tune.data.layouts.columns import Column, Columns, is_null
from prism_tune.data.layouts.image_values import differing_columns
from prism_tune.data.layouts.media import IMAGE_SUFFIXES
from prism_tune.data.policy import BadRecordError

Images = dict[str, bytes]

FILE_SUFFIXES = (
    *IMAGE_SUFFIXES,
    *(".jpe", ".jfif", ".apng", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
    *(".ico", ".dib", ".pcx", ".heic", ".heif", ".jxl", ".psd"),
)
"""Of files that are images, whatever stands in them."""

_SPOKEN: tuple[Column, ...] = ("conversations", "question")
_NUMBER = re.compile(r"\d+")
_LONGEST_NUMBER = 20
_LONGEST_NAME = 1024
_HOLDING = ("image", "images", "image_url", "image_path", "source")
_NAMING = ("path", "url", "file_name", *_HOLDING)
_PART_TYPES = ("image", "image_url", "input_image", "image_path")


class _Place(NamedTuple):
    """Where a turn names an image: `holder[at]`."""

    holder: Any
    at: Any
    name: str


def place_files(record: dict[str, Any], images: Images, key: str, columns: Columns) -> None:
    """Put the images of a sample into its record: into the image column, or where turns name them.

    Args:
        record: it is changed.
        images: the content of each, by what it is called in the sample.
        key: the sample's.
        columns: which keys hold what.

    Raises:
        BadRecordError: the record names others, or nothing tells their order.
    """
    own = columns.keys["image"][0]
    is_file = own in images or f".{own}".lower().endswith(FILE_SUFFIXES)
    if "image" in columns.configured and is_file:
        if own not in images:
            wrong = f"of its images ({', '.join(images)}) none is `{own}` (data.columns.image)"
            raise BadRecordError("image_unread", wrong)
        record[own] = _hold(images[own], None)
        return
    named = _take_named(record, columns)
    turns = [columns.find(column, record) for column in _SPOKEN]
    places = list(_find_places(turns))
    names = named or list(dict.fromkeys(place.name for place in places))
    if not names:
        record[own] = [_hold(images[called], None) for called in _order(images)]
        return
    files = _pair(names, images, key)
    if named:
        record[own] = [_hold(images[file], name) for file, name in zip(files, names, strict=True)]
    meant = dict(zip(names, files, strict=True))
    by_stem = {_stem(name): file for name, file in meant.items() if name}
    for place in places:
        file = meant.get(place.name) or by_stem.get(_stem(place.name))
        if file is not None:
            place.holder[place.at] = _hold(images[file], place.name)


def _hold(content: bytes, name: str | None) -> dict[str, Any]:
    return {"bytes": content, "path": name}


def _take_named(record: dict[str, Any], columns: Columns) -> list[str | None]:
    """What the record's own image columns call its images; they are taken out of it."""
    given = [_as_list(record.pop(key)) for key in columns.keys["image"] if key in record]
    given = [items for items in given if any(not is_null(item) and item != "" for item in items)]
    if len(given) > 1 and given[0] != given[1]:
        raise differing_columns(columns)
    return [_read_name(item) for item in given[0]] if given else []


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read_name(value: Any) -> str | None:
    if isinstance(value, dict):
        value = next((value[key] for key in _NAMING if isinstance(value.get(key), str)), None)
    return value if _is_name(value) else None


def _is_name(value: Any) -> TypeGuard[str]:
    is_text = isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME
    return is_text and not value.startswith("data:")


def _find_places(value: Any, *, in_image: bool = False) -> Iterator[_Place]:
    """Every name of an image in turns, or in parts of their content."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, dict):
        in_image = in_image or value.get("type") in _PART_TYPES
        items = value.items()
    for at, item in items:
        names = (at in _NAMING if in_image else at in _HOLDING) or isinstance(value, list)
        if isinstance(item, list | dict):
            yield from _find_places(item, in_image=in_image or at in _HOLDING)
        elif names and (in_image or isinstance(value, dict)) and _is_name(item):
            yield _Place(value, at, item)


def _pair(names: Sequence[str | None], images: Images, key: str) -> list[str]:
    """The file of each name: the one that is called so, or else the one of its place."""
    if len(names) != len(images):
        held = ", ".join(sorted(images, key=_by_number))
        noun = "image" if len(names) == 1 else "images"
        wrong = f"the JSON names {len(names)} {noun}, the tar holds {len(images)} ({held})"
        hint = _hint(images) if len(names) < len(images) else ""
        raise BadRecordError("image_count", wrong + hint)
    by_name: dict[str, str] = {}
    for called in images:
        inner = called.rpartition(".")[0]
        full = PurePosixPath(key).name + (f".{inner}" if inner else "")
        by_name |= {inner: called, full: called}
    found = [by_name.get(_stem(name)) for name in names if name]
    meant = [called for called in found if called is not None]
    if len(set(meant)) == len(names) == len(meant):
        return meant
    return _order(images)


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).stem


def _order(images: Images) -> list[str]:
    """By their numbers: the images belong to the text's `<image>` in this order.

    Of several all but one have a number, and the rest of their names in common; one without any is
    the first of numbers alone (`7.jpg`, `7.1.jpg`).
    """
    ordered = sorted(images, key=_by_number)
    inner = [called.rpartition(".")[0] for called in ordered]
    kinds = {_NUMBER.sub("0", name) for name in inner}
    of_numbers = kinds == {"", "0"} or (len(kinds) == 1 and _NUMBER.search(inner[0]))
    if len(images) > 1 and not (of_numbers and len(set(map(_pad, inner))) == len(inner)):
        raise BadRecordError(
            "bad_field",
            f"several images whose order nothing tells ({', '.join(ordered)}): expected numbers "
            f"(0.png, 1.png), or their names in the JSON{_hint(images)}",
        )
    return ordered


def _by_number(called: str) -> tuple[bool, str, str]:
    """`2.jpg` before `10.jpg`, and `jpg` before both."""
    inner = called.rpartition(".")[0]
    return bool(inner), _pad(inner), called


def _pad(name: str) -> str:
    return _NUMBER.sub(lambda found: found[0].zfill(_LONGEST_NUMBER), name)


def _hint(images: Images) -> str:
    return f"; data.columns.image={min(images, key=_by_number)} reads that one alone"

"""A sample of a webdataset as one record: its JSON, with the images beside it.

In: a row of its files (`files/tars`), or one with a column for each, as `datasets` makes them. Out:
the record, its images under the key that is read; or why it cannot be one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prism_tune.data.files.json_text import explain
from prism_tune.data.files.tars import split_name
from prism_tune.data.layouts.columns import Columns
from prism_tune.data.layouts.image_values import MEDIA_SUFFIXES, ONLY_IMAGES, shorten
from prism_tune.data.layouts.sample_images import FILE_SUFFIXES, Images, place_files
from prism_tune.data.policy import BadRecordError

_KEY, _MEMBERS = "__key__", "__members__"
_JSON = ("json", "jsn")
_TEXTS = ("txt", "text", "transcript")
_NUMBERS = ("cls", "cls2", "index", "inx", "id")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8")
"""Of images whose suffix says nothing."""


class RefusedSample(NamedTuple):
    """A sample that is no record; `described`: what is known of it."""

    described: dict[str, Any]
    error: BadRecordError


@dataclass
class _Sample:
    """`record`: of its JSON. `further`: its other files, by what each is called in it."""

    key: str
    has_json: bool = False
    record: Any = None
    images: Images = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)


def join_sample(row: Mapping[str, Any], columns: Columns) -> Mapping[str, Any] | RefusedSample:
    """The record of a sample; any other row as it is.

    `7.json` with `7.jpg` (or `7.0.jpg`, `7.1.jpg`): the images are those that the JSON names, in
    its order, or else in the order of their numbers.
    """
    if _KEY not in row:
        return row
    sample = _Sample(str(row[_KEY]))
    try:
        if row.get(_MEMBERS) is not None:
            for member in row[_MEMBERS]:
                _add_file(sample, member["path"], member["bytes"])
        else:
            _add_columns(sample, row)
        return _join(sample, columns)
    except BadRecordError as error:
        own = sample.record if isinstance(sample.record, dict) else {}
        return RefusedSample({_KEY: sample.key, **sample.further, **own}, error)


def _join(sample: _Sample, columns: Columns) -> dict[str, Any]:
    if sample.has_json and not isinstance(sample.record, dict):
        wrong = f"{sample.key}.json: expected a JSON object, got {shorten(sample.record)}"
        raise BadRecordError("not_an_object", wrong)
    joined = {_KEY: sample.key, **sample.further, **(sample.record or {})}
    if sample.images:
        place_files(joined, sample.images, sample.key, columns)
    return joined


def _add_file(sample: _Sample, name: str, content: bytes) -> None:
    parted = split_name(name)
    called = parted[1] if parted else name
    suffix = called.rpartition(".")[2].lower()
    if f".{suffix}".endswith(MEDIA_SUFFIXES):
        raise BadRecordError("unsupported_medium", f"{name}; {ONLY_IMAGES}")
    if called.lower() in _JSON and not sample.has_json:
        sample.record, sample.has_json = _parse(content, name), True
    elif f".{suffix}" in FILE_SUFFIXES or content.startswith(_SIGNATURES):
        _add_image(sample, called, content, name)
    elif suffix in _JSON:
        sample.further[called] = _parse(content, name)
    elif suffix in _TEXTS:
        sample.further[called] = _read_text(content, name)
    elif suffix in _NUMBERS:
        sample.further[called] = _read_number(content, name)
    else:
        sample.further[called] = content


def _add_columns(sample: _Sample, row: Mapping[str, Any]) -> None:
    """A column for each file, which is null where other samples have one."""
    for called, value in row.items():
        is_file = isinstance(value, dict) and value.keys() == {"bytes", "path"}
        name = f"{sample.key}.{called}"
        if called in (_KEY, _MEMBERS, "__url__"):
            continue
        if called == "json":
            sample.record = _parse(value, name) if isinstance(value, str | bytes) else value
            sample.has_json = value is not None
        elif is_file and f".{called}".lower().endswith(MEDIA_SUFFIXES):
            if value["bytes"] is not None or value["path"]:
                raise BadRecordError("unsupported_medium", f"{name}; {ONLY_IMAGES}")
        elif is_file and value["bytes"] is not None:
            _add_image(sample, called, value["bytes"], name)
        else:
            sample.further[called] = value


def _add_image(sample: _Sample, called: str, content: bytes, name: str) -> None:
    if not content:
        raise BadRecordError("image_empty", f"{name}: the file is empty")
    sample.images[called] = content


def _parse(content: bytes | str, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        wrong = f"not UTF-8: {error}" if isinstance(error, UnicodeError) else explain(error)
        raise BadRecordError("bad_field", f"{name}: {wrong}") from error


def _read_text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeError as error:
        raise BadRecordError("bad_field", f"{name}: not UTF-8: {error}") from error


def _read_number(content: bytes, name: str) -> int:
    try:
        return int(content)
    except ValueError as error:
        wrong = f"{name}: expected a whole number, got {shorten(content)}"
        raise BadRecordError("bad_field", wrong) from error

"""A sample of a webdataset, a column for each of its files, as one record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from prism_tune.data.layouts.image_values import MEDIA_SUFFIXES

_KEY = "__key__"
_NUMBER = re.compile(r"\d+")
_LONGEST_NUMBER = 20


def join_sample(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON of a sample, with its images; any other row as it is.

    `7.json` with `7.jpg` (or `7.0.jpg`, `7.1.jpg`): the images are those of the record, in the
    order of their numbers, and what its JSON calls them tells their folder.
    """
    if _KEY not in row:
        return row
    images = {key: value for key, value in row.items() if _is_image(key, value)}
    described = {key: value for key, value in row.items() if key not in images and key != "json"}
    record = row.get("json")
    joined = {**described, **(record if isinstance(record, dict) else {})}
    joined.pop("__url__", None)
    if images:
        named = joined.pop("image", None) or joined.pop("images", None)
        paths = named if isinstance(named, list) else [named]
        joined["image"] = [
            {**images[key], "path": path if isinstance(path, str) else None}
            for key, path in zip_longest(sorted(images, key=_by_number), paths[: len(images)])
        ]
    return joined


def _is_image(key: str, value: Any) -> bool:
    is_file = isinstance(value, dict) and value.keys() == {"bytes", "path"}
    return is_file and bool(value["bytes"]) and not f".{key}".lower().endswith(MEDIA_SUFFIXES)


def _by_number(key: str) -> tuple[str, str]:
    """`2.jpg` before `10.jpg`: the images belong to the text's `<image>` in this order."""
    return _NUMBER.sub(lambda found: found[0].zfill(_LONGEST_NUMBER), key), key

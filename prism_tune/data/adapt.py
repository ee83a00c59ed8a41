"""One raw record of any accepted layout -> its id, source, images, turns and system line.

The layouts are told apart by their keys (`layouts/columns.py`); `data.columns` names other ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from prism_tune.config.pool_paths import find_image_dir
from prism_tune.config.sections import DataConfig
from prism_tune.data.layouts.columns import Columns, build_columns, is_null
from prism_tune.data.layouts.further import IMAGE_KEYS, LOSS_KEYS
from prism_tune.data.layouts.image_values import EMBEDDED, NamedImage, read_column
from prism_tune.data.layouts.llava_mix import name_dataset
from prism_tune.data.layouts.media import refuse_media, refuse_siblings, refuse_unread
from prism_tune.data.layouts.placing import (
    fill_slots,
    move_to_front,
    place_images,
    refuse_objects,
)
from prism_tune.data.layouts.preferences import find_rejected
from prism_tune.data.layouts.samples import RefusedSample
from prism_tune.data.layouts.turns import (
    check_filled,
    find_items,
    list_read_columns,
    read_conversation,
)
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import Turn

OF_TURNS = "turns."
"""Begins the names of keys that turns have."""
UNREADABLE = "(unreadable)"
"""In place of a source."""


class Adapted(NamedTuple):
    """A record's content, before it has a uid.

    Attributes:
        id: its own, or "".
        source: what it says itself, or "".
        images: names, with the content of those that it holds itself.
        turns: with an `<image>` for each image, where the record has it.
        system: its system line, or "".
        unlearnt: numbers of the answers that carry no loss.
        num_placed: of the images, how many had no `<image>` and were put before the first question.
        unread: keys of its turns, and of answers that were rejected, which are not read.
    """

    id: str
    source: str
    images: tuple[NamedImage, ...]
    turns: tuple[Turn, ...]
    system: str = ""
    unlearnt: tuple[int, ...] = ()
    num_placed: int = 0
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How the records of a pool are read.

    Attributes:
        columns: which keys hold what.
        read_keys: all of these together.
        image_dirs: spellings of the image folder; absolute paths in it become relative to it.
        roots: those of the other folders that absolute paths may lead to.
        moves_images: `<image>` goes to the front of its turn.
        drops_system: the system line is left out.
    """

    columns: Columns
    read_keys: frozenset[str]
    image_dirs: tuple[str, ...]
    roots: tuple[str, ...]
    moves_images: bool
    drops_system: bool

    def arrange(self, adapted: Adapted) -> tuple[Turn, ...]:
        """The turns as a model sees them; the same object where nothing is moved."""
        if not self.moves_images:
            return adapted.turns
        return move_to_front(adapted.turns, len(adapted.images))


def build_reading(config: DataConfig) -> Reading:
    """What the config says about it.

    Raises:
        ConfigError: `data.columns` names something that is not a column.
    """
    columns = build_columns(config)
    return Reading(
        columns,
        columns.list_read(),
        _spell(find_image_dir(config)),
        tuple(name for root in config.image_roots for name in _spell(Path(root))),
        config.image_place == "front",
        config.system == "drop",
    )


def adapt_record(raw: Any, reading: Reading) -> Adapted:
    """Read a raw record; its text is kept as it is.

    Raises:
        BadRecordError: with the reason and what was expected.
    """
    if isinstance(raw, RefusedSample):
        raise raw.error
    if not isinstance(raw, dict):
        raise BadRecordError("not_an_object", f"expected a JSON object, got {type(raw).__name__}")
    columns = reading.columns
    refuse_media(raw, columns)
    own = read_column(raw, columns)
    spoken = read_conversation(raw, columns, drops_system=reading.drops_system)
    images = fill_slots(own, spoken.slots)
    _refuse_left_over(raw, images, reading)
    images = tuple([_relate(image, reading) for image in images])
    turns = place_images(spoken.turns, len(spoken.slots), len(images))
    check_filled(turns)
    refuse_objects(raw, turns)
    rejected = find_rejected(raw, reading.read_keys)
    return Adapted(
        read_id(raw, columns),
        _read_source(raw, columns),
        images,
        turns,
        spoken.system,
        spoken.unlearnt,
        0 if turns is spoken.turns else len(images),
        spoken.unread + rejected,
    )


def find_extras(raw: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The keys that are not read, those of turns as `turns.<key>`; null counts as nothing.

    Args:
        raw: a record that can be used.
        columns: which keys hold what.
    """
    read = {columns.key(column, raw) for column in list_read_columns(raw, columns)}
    extras = {key: value for key, value in raw.items() if key not in read and not is_null(value)}
    for item in find_items(raw, columns):
        known = {columns.key("role", item), columns.key("text", item), *LOSS_KEYS, *IMAGE_KEYS}
        further = {key: item[key] for key in item if key not in known and not is_null(item[key])}
        extras |= {f"{OF_TURNS}{key}": value for key, value in further.items()}
    return extras


def read_id(raw: Any, columns: Columns) -> str:
    """The record's own id as text; "" where it has none."""
    raw = raw.described if isinstance(raw, RefusedSample) else raw
    value = columns.find("id", raw) if isinstance(raw, dict) else None
    return read_label(value)


def name_source(adapted: Adapted, config: DataConfig, reading: Reading, folder: str = "") -> str:
    """The record's source: its field or what its image tells, renamed by the config.

    That is the image's first folder or, with `llava_mix`, the dataset; without one the `folder` of
    the record's file, and without that "images", or "text" where it has none.
    """
    source = "" if config.source == "image_folder" else adapted.source
    if not source:
        source = _image_folder(adapted.images[0], reading) if adapted.images else ""
        source = source or folder or ("images" if adapted.images else "text")
        if config.source == "llava_mix":
            source = name_dataset(source, adapted.turns)
    return config.source_names.get(source, source)


def guess_source(raw: Any, config: DataConfig, reading: Reading, folder: str = "") -> str:
    """The source of a record that cannot be used; "(unreadable)" where that cannot be read."""
    columns = reading.columns
    described = raw.described if isinstance(raw, RefusedSample) else raw
    if not isinstance(described, dict):
        return UNREADABLE
    try:
        if isinstance(raw, RefusedSample):
            raise raw.error
        refuse_media(raw, columns)
        images = read_column(raw, columns)
        _refuse_left_over(raw, images, reading)
    except BadRecordError:
        own = None if config.source == "image_folder" else columns.find("source", described)
        source = read_label(own) or folder or UNREADABLE
        return config.source_names.get(source, source)
    images = tuple(_relate(image, reading) for image in images)
    adapted = Adapted("", _read_source(raw, columns), images, _guess_turns(raw, reading))
    return name_source(adapted, config, reading, folder)


def _guess_turns(raw: Mapping[str, Any], reading: Reading) -> tuple[Turn, ...]:
    """The turns of a record that cannot be used, where at least they can be read."""
    try:
        return read_conversation(raw, reading.columns, drops_system=reading.drops_system).turns
    except BadRecordError:
        return ()


def _refuse_left_over(
    raw: Mapping[str, Any], images: Sequence[NamedImage], reading: Reading
) -> None:
    """Images that a record holds and nothing reads: all of them, or some beside those read."""
    refuse = refuse_siblings if images else refuse_unread
    refuse(raw, reading.read_keys)


def _read_source(raw: Mapping[str, Any], columns: Columns) -> str:
    """What the record says of its source itself, or its first pair does (The Cauldron's)."""
    own = columns.find("source", raw)
    turns = columns.find("conversations", raw) if own is None else None
    if isinstance(turns, list) and turns and isinstance(turns[0], dict) and "user" in turns[0]:
        own = turns[0].get("source")
    return read_label(own)


def read_label(value: Any) -> str:
    """A value as text; a lone surrogate, which no file can hold, as its escape."""
    if type(value) is str and value.isascii():
        return value
    return "" if value is None else str(value).encode(errors="backslashreplace").decode()


def _image_folder(image: NamedImage, reading: Reading) -> str:
    path = image.path if image.name.startswith(EMBEDDED) else image.name
    name = _strip(path, reading.roots).replace("\\", "/")
    folder, _, rest = name.partition("/")
    if folder and folder[0] != "." and rest:
        return folder
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else ""


def _relate(image: NamedImage, reading: Reading) -> NamedImage:
    """An absolute path inside the image folder as what it is called there."""
    if image.name[0] != "/":
        return image
    return image._replace(name=_strip(image.name, reading.image_dirs))


def _strip(name: str, folders: tuple[str, ...]) -> str:
    """A path relative to the first of `folders` it leads into; the name where there is none."""
    if not name.startswith("/") or "/../" in name:
        return name
    folder, _, file = name.rpartition("/")
    for path in (name, f"{_follow(folder)}/{file}"):
        for outer in folders:
            inside = path.removeprefix(outer).lstrip("/") if path.startswith(outer) else ""
            if inside:
                return inside
    return name


@lru_cache(maxsize=4096)
def _follow(folder: str) -> str:
    return os.path.realpath(folder)


def _spell(folder: Path) -> tuple[str, ...]:
    """A folder's absolute path with a slash behind it, as it is written and as it is."""
    spelt = (f"{str(path).rstrip('/')}/" for path in (folder.absolute(), folder.resolve()))
    return tuple(dict.fromkeys(spelt))

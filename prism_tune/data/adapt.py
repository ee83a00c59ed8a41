"""One raw record of any accepted layout -> its id, source, images and turns.

LLaVA/ShareGPT (`conversations` of `from`/`value`) and `messages` (of `role`/`content`) are
recognised by their keys; `data.columns` names other keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from prism_tune.config.sections import DataConfig
from prism_tune.data.policy import BadRecordError
from prism_tune.errors import ConfigError
from prism_tune.schema import IMAGE_PLACEHOLDER, Role, Turn

Column = Literal["id", "source", "image", "conversations", "role", "text"]
COLUMNS: tuple[Column, ...] = get_args(Column)

UNREADABLE = "(unreadable)"
"""In place of a source."""

_KEYS: dict[Column, tuple[str, ...]] = {
    "id": ("id",),
    "source": ("source",),
    "image": ("image", "images"),
    "conversations": ("conversations", "messages"),
    "role": ("from", "role"),
    "text": ("value", "content"),
}
_ROLES: dict[str, Role] = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


@dataclass(frozen=True)
class Adapted:
    """A record's content, before it has a uid; `source` is what it says itself, or ""."""

    id: str
    source: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Columns:
    """Which keys of a raw record hold what; the first one present counts."""

    keys: Mapping[Column, tuple[str, ...]]

    def find(self, column: Column, raw: Mapping[str, Any]) -> Any:
        """The value of `column`, None where the record has none."""
        key = self.key(column, raw)
        return None if key is None else raw[key]

    def key(self, column: Column, raw: Mapping[str, Any]) -> str | None:
        """The key of `column` in the record, None where it has none."""
        return next((key for key in self.keys[column] if raw.get(key) is not None), None)

    def name(self, column: Column) -> str:
        """The keys of `column`, for messages."""
        return " or ".join(f"`{key}`" for key in self.keys[column])


def build_columns(config: DataConfig) -> Columns:
    """The configured keys over the default ones.

    Raises:
        ConfigError: `data.columns` names something that is not a column.
    """
    unknown = sorted(config.columns.keys() - set(COLUMNS))
    if unknown:
        raise ConfigError(f"data.columns: unknown `{unknown[0]}`; known: {', '.join(COLUMNS)}")
    configured = {
        column: (config.columns[column],) for column in COLUMNS if column in config.columns
    }
    return Columns({**_KEYS, **configured})


def adapt_record(raw: Any, columns: Columns) -> Adapted:
    """Read a raw record.

    Text is kept as it is: LLaVA puts `<image>` at the beginning or at the end of the first turn.

    Raises:
        BadRecordError: with the reason and what was expected.
    """
    if not isinstance(raw, dict):
        raise BadRecordError("not_an_object", f"expected a JSON object, got {type(raw).__name__}")
    images = _read_images(raw, columns)
    turns = _read_turns(raw, columns)
    _check_turns(turns, len(images))
    source = columns.find("source", raw)
    return Adapted(read_id(raw, columns), _read_label(source), images, turns)


def find_extras(raw: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The keys that are not read, those of turns as `turns.<key>`; null counts as nothing."""
    read = {columns.key(column, raw) for column in COLUMNS}
    extras = {key: value for key, value in raw.items() if key not in read and value is not None}
    for item in columns.find("conversations", raw):
        read = {columns.key("role", item), columns.key("text", item)}
        extras |= {f"turns.{key}": item[key] for key in item if key not in read}
    return extras


def read_id(raw: Any, columns: Columns) -> str:
    """The record's own id as text; "" where it has none."""
    value = columns.find("id", raw) if isinstance(raw, dict) else None
    return _read_label(value)


def name_source(adapted: Adapted, config: DataConfig) -> str:
    """The record's source: its field or its image's first folder, renamed by the config.

    Without field or folder it is "images"; without image, "text".
    """
    source = adapted.source if config.source == "field" else ""
    if not source:
        source = _image_folder(adapted.images[0]) if adapted.images else "text"
    return config.source_names.get(source, source)


def guess_source(raw: Any, columns: Columns, config: DataConfig) -> str:
    """The source of a record that cannot be used; "(unreadable)" where that cannot be read."""
    try:
        images = _read_images(raw, columns) if isinstance(raw, dict) else None
    except BadRecordError:
        images = None
    if images is None:
        return UNREADABLE
    source = columns.find("source", raw)
    return name_source(Adapted("", _read_label(source), images, ()), config)


def _read_label(value: Any) -> str:
    """A value as text; a lone surrogate, which no file can hold, as its escape."""
    return "" if value is None else str(value).encode(errors="backslashreplace").decode()


def _image_folder(image: str) -> str:
    parts = PurePosixPath(image).parts
    return parts[0] if len(parts) > 1 else "images"


def _read_images(raw: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    value = columns.find("image", raw)
    names = value if isinstance(value, list) else [value] if value else []
    for name in names:
        if not isinstance(name, str) or not name or not _is_unicode(name):
            raise BadRecordError(
                "bad_field",
                f"{columns.name('image')}: expected a path or a list of paths: {name!r}",
            )
    return tuple(names)


def _read_turns(raw: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    items = columns.find("conversations", raw)
    if not isinstance(items, list) or not items:
        expected = f"{columns.name('conversations')}: expected a non-empty list of turns"
        raise BadRecordError("no_conversations", f"{expected}, got {_shorten(items)}")
    return tuple(_read_turn(number, item, columns) for number, item in enumerate(items))


def _read_turn(number: int, item: Any, columns: Columns) -> Turn:
    if not isinstance(item, dict):
        raise BadRecordError(
            "bad_field", f"turn {number}: expected an object, got {_shorten(item)}"
        )
    role = columns.find("role", item)
    if not isinstance(role, str) or role not in _ROLES:
        expected = f"{columns.name('role')}: expected one of {', '.join(_ROLES)}"
        raise BadRecordError("unknown_role", f"turn {number}: {expected}, got {_shorten(role)}")
    text = _join_content(columns.find("text", item))
    if not isinstance(text, str) or not _is_unicode(text):
        expected = f"{columns.name('text')}: expected text"
        raise BadRecordError("bad_field", f"turn {number}: {expected}, got {_shorten(text)}")
    return Turn(_ROLES[role], text)


def _join_content(content: Any) -> Any:
    """A `messages` content list as LLaVA text: an image part is `<image>` on its own line."""
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image":
            parts.append(f"{IMAGE_PLACEHOLDER}\n")
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        else:
            return content
    return "".join(parts)


def _check_turns(turns: tuple[Turn, ...], num_images: int) -> None:
    expected: tuple[Role, ...] = ("human", "gpt")
    for number, turn in enumerate(turns):
        if turn.role != expected[number % 2]:
            raise BadRecordError(
                "not_alternating",
                f"turn {number}: expected {expected[number % 2]}, got {turn.role}",
            )
        if turn.role == "gpt" and not turn.text.strip():
            raise BadRecordError("empty_answer", f"turn {number}: the answer is empty")
        if turn.role == "human" and not turn.text.strip():
            raise BadRecordError("empty_question", f"turn {number}: the question is empty")
    if len(turns) % 2:
        raise BadRecordError("not_alternating", "the last turn is a question without an answer")
    num_placeholders = sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in turns)
    if num_placeholders != num_images:
        found = f"{num_placeholders} {IMAGE_PLACEHOLDER} in the turns, {num_images} images"
        raise BadRecordError("image_count", f"{found}; expected as many placeholders as images")


def _is_unicode(text: str) -> bool:
    """False for text with a lone surrogate, which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

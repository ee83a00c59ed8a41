"""Which keys of a raw record hold what: the usual ones, under those that `data.columns` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from prism_tune.config.sections import DataConfig
from prism_tune.errors import ConfigError

Column = Literal[
    "id",
    "source",
    "image",
    "conversations",
    "role",
    "text",
    "system",
    "question",
    "input",
    "answer",
    "choices",
    "history",
]
COLUMNS: tuple[Column, ...] = get_args(Column)

_KEYS: dict[Column, tuple[str, ...]] = {
    "id": ("id", "__key__"),
    "source": ("source",),
    "image": ("image", "images"),
    "conversations": ("conversations", "messages", "conversation", "texts"),
    "role": ("from", "role"),
    "text": ("value", "content"),
    "system": ("system", "system_prompt"),
    "question": ("question", "query", "instruction", "prompt"),
    "input": ("input",),
    "answer": ("answer", "response", "output", "completion"),
    "choices": ("choices", "options"),
    "history": ("history",),
}
_OF_TURNS: tuple[Column, ...] = ("role", "text")
_EMPTY: tuple[Any, ...] = ("", [], {})


@dataclass(frozen=True)
class Columns:
    """The keys of each column; of those in a record the first one counts.

    `configured` are the columns that `data.columns` names itself.
    """

    keys: Mapping[Column, tuple[str, ...]]
    configured: frozenset[str] = frozenset()

    def key(self, column: Column, raw: Mapping[str, Any]) -> str | None:
        """The key of `column` in the record, None where it has none."""
        for key in self.keys[column]:
            if not is_null(raw.get(key)):
                return key
        return None

    def find(self, column: Column, raw: Mapping[str, Any]) -> Any:
        """The value of `column`, None where the record has none."""
        for key in self.keys[column]:
            value = raw.get(key)
            if value is not None and not (type(value) is float and value != value):
                return value
        return None

    def find_filled(self, column: Column, raw: Mapping[str, Any]) -> Any:
        """The same, where an empty text or list is none either."""
        for key in self.keys[column]:
            value = raw.get(key)
            if not is_null(value) and value not in _EMPTY:
                return value
        return None

    def build_turn(self, role: str, text: Any) -> dict[str, Any]:
        """A turn of what a record has in other ways, under the keys that turns are read by."""
        return {self.keys["role"][0]: role, self.keys["text"][0]: text}

    def name(self, column: Column) -> str:
        """The keys of `column`, for messages."""
        return self._names[column]

    @cached_property
    def _names(self) -> dict[Column, str]:
        return {
            column: " or ".join(f"`{key}`" for key in keys) for column, keys in self.keys.items()
        }

    def list_read(self) -> frozenset[str]:
        """The keys of a record (not of its turns) that anything reads."""
        return frozenset(
            key for column in COLUMNS if column not in _OF_TURNS for key in self.keys[column]
        )


def is_null(value: Any) -> bool:
    """Whether there is nothing: NaN is how pandas writes null."""
    return value is None or (type(value) is float and value != value)


def build_columns(config: DataConfig) -> Columns:
    """The configured keys over the usual ones.

    Raises:
        ConfigError: `data.columns` names something that is not a column.
    """
    unknown = sorted(config.columns.keys() - set(COLUMNS))
    if unknown:
        raise ConfigError(f"data.columns: unknown `{unknown[0]}`; known: {', '.join(COLUMNS)}")
    configured = {
        column: (config.columns[column],) for column in COLUMNS if column in config.columns
    }
    return Columns({**_KEYS, **configured}, frozenset(configured))

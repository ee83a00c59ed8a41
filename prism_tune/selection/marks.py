"""Records named by people: lists of what has to be kept, and of what has to be left out.

A file goes in: ids or uids, one a line or as a JSON list, or what somebody marked in a report,
`{"keep": [...], "drop": [...], "look_again": [...]}`. Out come the records of the pool.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from prism_tune.config.sections import SelectionConfig
from prism_tune.data.records import Pool
from prism_tune.errors import UserError, list_some
from prism_tune.schema import Skipped

logger = logging.getLogger(__name__)

Mark = Literal["keep", "drop"]

_MARKED = {"keep", "drop", "look_again"}


@dataclass(frozen=True)
class Marks:
    """Indices of the pool's records that have to be kept, and of those that have to go.

    Attributes:
        keep_names: of each name that has to be kept, the records it stands for: one for a uid.
        drop: the records that have to go.
    """

    keep_names: tuple[tuple[int, ...], ...] = ()
    drop: tuple[int, ...] = ()

    @property
    def keep(self) -> tuple[int, ...]:
        """The records that have to be kept, each once."""
        return _flatten(self.keep_names)

    def leave_out(self, pool: Pool, left_out: dict[int, Skipped]) -> dict[int, Skipped]:
        """By index, what is left out: what was before, and what has to go.

        Raises:
            UserError: nothing that can be used goes by a name that has to be kept.
        """
        lost = sorted({own[0] for own in self.keep_names if left_out.keys() >= set(own)})
        if lost:
            listed = [f"{pool.ids[index]} ({left_out[index].reason})" for index in lost]
            raise UserError(
                f"selection.must_keep: {len(lost)} of its records cannot be used: "
                f"{list_some(listed)}; mend them, or take them off the list"
            )
        dropped = {index: _drop(pool, index) for index in self.drop if index not in left_out}
        return {**left_out, **dropped}


def read_marks(selection: SelectionConfig, pool: Pool) -> Marks:
    """The records that the config's lists name.

    Raises:
        UserError: no such file, no list in it, names of no record, or a record on both lists.
    """
    keep = _find(selection.must_keep, "keep", pool)
    drop = _find(selection.must_drop, "drop", pool)
    both = [pool.ids[index] for index in sorted({*_flatten(keep)} & {*_flatten(drop)})]
    if both:
        raise UserError(
            f"selection.must_keep and must_drop: {len(both)} records on both: {list_some(both)}"
        )
    return Marks(keep, _flatten(drop))


def _find(path: str | None, mark: Mark, pool: Pool) -> tuple[tuple[int, ...], ...]:
    """The records that each name of the list stands for."""
    if path is None:
        return ()
    key, names = f"selection.must_{mark}", _read_names(Path(path), mark)
    by_id: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(pool.ids):
        by_id[name].append(index)
    by_uid = {uid: index for index, uid in enumerate(pool.uids)}
    found = {
        name: (by_uid[name],) if name in by_uid else tuple(by_id.get(name, ())) for name in names
    }
    unknown = [name for name, of_name in found.items() if not of_name]
    if unknown:
        raise UserError(
            f"{key}: {path}: {len(unknown)} of {len(names)} names are no id or uid of a usable "
            f"record of {pool.path}: {list_some(unknown)}"
        )
    num_records = len(_flatten(found.values()))
    if num_records > len(names):
        logger.warning(
            "%s: %d names stand for %d records, because ids repeat; a uid names one",
            key,
            len(names),
            num_records,
        )
    return tuple(found.values())


def _flatten(groups: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The records of all names, each once, in the pool's order."""
    return tuple(sorted({index for group in groups for index in group}))


def _read_names(path: Path, mark: Mark) -> list[str]:
    """Each name once, in the order of the file."""
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError as error:
        raise UserError(f"selection.must_{mark}: {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"selection.must_{mark}: {path}: cannot be read: {error}") from error
    if not text.startswith(("[", "{")):
        return _distinct(line.strip() for line in text.splitlines())
    try:
        content: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"selection.must_{mark}: {path}: not valid JSON: {error}") from error
    if isinstance(content, dict) and content.keys() <= _MARKED:
        content = content.get(mark, [])
    if not isinstance(content, list) or not all(isinstance(name, str | int) for name in content):
        raise UserError(
            f"selection.must_{mark}: {path}: expected ids or uids, as a list or as "
            '{"keep": [...], "drop": [...]}'
        )
    return _distinct(str(name) for name in content)


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))


def _drop(pool: Pool, index: int) -> Skipped:
    detail = f"{pool.describe(index)}: named by selection.must_drop"
    return Skipped(pool.uids[index], pool.ids[index], "must_drop", detail)

"""What a layout cannot carry: each row is read again, as a pool would, and compared.

Records and the rows they became go in; how many lose what comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from prism_tune.config.sections import DataConfig
from prism_tune.data.adapt import adapt_record, build_columns
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import Record

_FIELDS = ("id", "source", "images", "turns")
_COLUMNS = build_columns(DataConfig(records=""))


class Losses:
    """Numbers of records that lost something, by what it is."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, record: Record, extras: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Take account of one record.

        Args:
            record: as it was.
            extras: its other keys, by name.
            row: what it became; images by their names.
        """
        self.counts.update(f"key `{key}`" for key in extras if row.get(key) != extras[key])
        try:
            read = adapt_record(row, _COLUMNS)
        except BadRecordError as error:
            self.counts[f"the whole record, which could not be read again ({error})"] += 1
            return
        for field in _FIELDS:
            if getattr(read, field) != getattr(record, field):
                self.counts["line breaks beside `<image>`" if field == "turns" else field] += 1

    def describe(self) -> str:
        """In words, the most frequent first; empty where nothing is lost."""
        return ", ".join(
            f"{what} ({number:,} {'record' if number == 1 else 'records'})"
            for what, number in self.counts.most_common()
        )

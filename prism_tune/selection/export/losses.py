"""What a layout cannot carry: each row is read again, as a pool would, and compared.

Records and the rows they became go in; how many lose what comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from prism_tune.config.sections import DataConfig
from prism_tune.data.adapt import adapt_record, build_reading, read_label
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import Record


class Losses:
    """Numbers of records that lost something, by what it is.

    Args:
        data: how the rows would be read again.
    """

    def __init__(self, data: DataConfig) -> None:
        self.counts: Counter[str] = Counter()
        self._reading = build_reading(data)

    def note(self, record: Record, extras: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Take account of one record.

        Args:
            record: as it was.
            extras: its other keys, by name.
            row: what it became; images by their names, or as {bytes, path}.
        """
        self.counts.update(f"key `{key}`" for key in extras if row.get(key) != extras[key])
        try:
            read = adapt_record(row, self._reading)
        except BadRecordError as error:
            self.counts[f"the whole record, which could not be read again ({error})"] += 1
            return
        texts = [[turn.text for turn in turns] for turns in (read.turns, record.turns)]
        losses = [[turn.has_loss for turn in turns] for turns in (read.turns, record.turns)]
        kept = {
            "id": read.id == record.id,
            "source": read.source == record.source,
            "names of images": tuple(image.name for image in read.images) == record.images,
            "the system line": read.system == record.system,
            "line breaks beside `<image>`": texts[0] == texts[1],
            "answers without loss, which would be learnt": losses[0] == losses[1],
        }
        self.counts.update(what for what, is_kept in kept.items() if not is_kept)

    def describe(self) -> str:
        """In words, the most frequent first; empty where nothing is lost."""
        described = ", ".join(
            f"{what} ({number:,} {'record' if number == 1 else 'records'})"
            for what, number in self.counts.most_common()
        )
        return read_label(described)  # a key may hold what no console can print

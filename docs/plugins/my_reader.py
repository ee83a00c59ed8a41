"""A pool reader: records out of a CSV file with the columns image, question and answer.

The key is the suffix of `data.records`. A record may have any layout that a JSON pool may have;
an image is a path relative to `data.image_dir`, or the bytes of a file.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_csv(path: Path) -> Iterator[dict[str, Any]]:
    """One record a row."""
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            yield {
                "id": f"row-{number}",
                "image": row["image"] or None,
                "conversations": [
                    {"from": "human", "value": row["question"]},
                    {"from": "gpt", "value": row["answer"]},
                ],
            }


READERS = {".csv": read_csv}

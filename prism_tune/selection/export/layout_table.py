"""The layouts a subset goes out in, by name: what a record becomes, and what loads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_tune.config.sections import ExportLayout
from prism_tune.data.files.formats import format_records
from prism_tune.data.records import Pool
from prism_tune.run.folder import write_atomic
from prism_tune.schema import Record
from prism_tune.selection.export.record_rows import (
    Row,
    to_llava,
    to_messages,
    to_parts,
    to_plain_messages,
    to_sharegpt,
)
from prism_tune.selection.export.tables import write_file, write_folder


@dataclass(frozen=True)
class Layout:
    """How one layout is written.

    Attributes:
        shape: a record as a row.
        write: the rows of a pool to a place.
        suffix: of the file; "" where it is a folder.
        load: what loads it, with `{to}`, `{folder}` and `{name}` of it, and `{images}`, the folder
            that the image names are relative to.
        carries_extras: whether a record's other keys go along. Not where the file is read into
            columns of one type each, which a key of mixed types would break.
        holds_images: whether the image files go into it.
        is_named_beside: whether a dataset_info.json beside the file has to name it.
    """

    shape: Callable[[Record], Row]
    write: Callable[[Pool, Iterable[Row], Path], None]
    suffix: str
    load: str
    carries_extras: bool = False
    holds_images: bool = False
    is_named_beside: bool = False


def _write_list(pool: Pool, rows: Iterable[Row], path: Path) -> None:
    write_atomic(path, format_records([_dump(row) for row in rows], "json"))


def _write_lines(pool: Pool, rows: Iterable[Row], path: Path) -> None:
    write_atomic(path, format_records([_dump(row) for row in rows], "jsonl"))


def _dump(row: dict[str, Any]) -> bytes:
    """JSON: readable where the text can stand in a file as it is."""
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate in a key that nobody reads
        return json.dumps(row).encode()


LAYOUTS: dict[ExportLayout, Layout] = {
    "llava": Layout(
        to_llava, _write_list, ".json", "--data_path {to} --image_folder {images}", True
    ),
    "sharegpt": Layout(
        to_sharegpt, _write_list, ".json", "{to}; images are relative to {images}", True
    ),
    "messages": Layout(
        to_messages, _write_lines, ".jsonl", "{to}; images are relative to {images}", True
    ),
    "llamafactory": Layout(
        to_plain_messages,
        _write_list,
        ".json",
        "dataset: {name}\ndataset_dir: {folder}\nmedia_dir: {images}",
        is_named_beside=True,
    ),
    "ms_swift": Layout(
        to_messages, _write_lines, ".jsonl", "ROOT_IMAGE_DIR={images} swift sft --dataset {to}"
    ),
    "trl": Layout(
        to_parts,
        write_folder,
        "",
        'SFTTrainer(train_dataset=load_dataset("{to}", split="train"), '
        "args=SFTConfig(assistant_only_loss=True, max_length=None))",
        holds_images=True,
    ),
    "parquet": Layout(
        to_plain_messages,
        write_file,
        ".parquet",
        'load_dataset("parquet", data_files="{to}", split="train")',
        holds_images=True,
    ),
}

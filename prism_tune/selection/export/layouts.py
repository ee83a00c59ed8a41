"""The layouts a subset goes out in, by name, and how each is written.

In: a pool (the subset itself), the layout's name, and where to. Out: the file or folder; on the
console, what it cannot carry, and what loads it.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from prism_tune.config.sections import DataConfig, ExportLayout
from prism_tune.data.adapt import OF_TURNS
from prism_tune.data.files.formats import format_records
from prism_tune.data.layouts.image_values import EMBEDDED
from prism_tune.data.records import Pool, open_pool, write_subset
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_json, read_object, write_atomic, write_json
from prism_tune.run.log import console
from prism_tune.run.stage import Stage
from prism_tune.run.subset_file import name_column, read_scores, subset_data
from prism_tune.schema import Record
from prism_tune.selection.export.image_names import ImageNames
from prism_tune.selection.export.losses import Losses
from prism_tune.selection.export.record_rows import (
    Row,
    to_llava,
    to_messages,
    to_parts,
    to_plain_messages,
    to_sharegpt,
)
from prism_tune.selection.export.tables import write_file, write_folder

logger = logging.getLogger(__name__)

_LLAMAFACTORY_ENTRY = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
"""Of its dataset_info.json: how the columns of a file are called (its data/README.md)."""


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
    """

    shape: Callable[[Record], Row]
    write: Callable[[Pool, Iterable[Row], Path], None]
    suffix: str
    load: str
    carries_extras: bool = False
    holds_images: bool = False


def export_pool(
    pool: Pool, layout: ExportLayout, to: Path, ids: Sequence[str] | None = None
) -> None:
    """Write all records of a pool in a layout; say what it does not carry, and what loads it.

    `<image>` stays where the file has it, whatever `data.image_place` says. Images that records
    hold themselves become files in `<name>_images/` beside it, but in `trl` and `parquet`.

    Args:
        pool: the records.
        layout: its name.
        to: the file, replaced atomically; for `trl` a new folder.
        ids: of the records, where these are part of another pool: one without an id of its own is
            called by its place there.

    Raises:
        UserError: a name of another format; an image that cannot be read; a folder that is there
            already; a dataset_info.json beside the file that is none.
    """
    chosen = LAYOUTS[layout]
    if chosen.suffix and to.suffix != chosen.suffix:
        raise UserError(f"{to}: {layout} is one file: expected a name in {chosen.suffix}")
    if not chosen.suffix and to.exists():
        raise UserError(f"{to}: already there; name a new folder, or delete that one")
    pool = as_in_file(pool)
    losses = Losses(pool.config.model_copy(update={"records": str(to), "columns": {}}))
    names = ImageNames(pool, to.with_name(f"{to.stem}_images"))
    rows = _shape_rows(pool, chosen, losses, names, ids or pool.ids)
    chosen.write(pool, rows, to)
    logger.info("%s: %d records as %s", to, len(pool), layout)
    if names.num_written:
        logger.info("%s: %d images that the records hold", names.folder, names.num_written)
    if losses.counts:
        logger.warning("%s: not carried by %s: %s", to, layout, losses.describe())
    path, images = to.resolve(), pool.image_dir.resolve()
    loading = chosen.load.format(to=path, folder=path.parent, name=path.stem, images=images)
    console.print(loading, soft_wrap=True, markup=False, highlight=False)


def export_run(
    run: RunDir, layout: ExportLayout, to: Path | None = None, budget: str | None = None
) -> None:
    """Write a run's subset in a layout.

    Args:
        run: its folder.
        layout: as in `export_pool`.
        to: as there; by default in the run's own folder, in place of what is there, and the subsets
            of further budgets with it.
        budget: of `selection.budgets`; None: the run's own.

    Raises:
        UserError: as `export_pool`; the run has not selected, or has cut no such budget.
    """
    if to is not None:
        _export_budget(run, layout, to, budget)
        return
    folder = run.exports / layout
    Stage(run.selection).require("select")
    shutil.rmtree(folder, ignore_errors=True)
    for name in (
        None,
        *read_object(run.selection / "manifest.json", "further_budgets")["further_budgets"],
    ):
        stem = run.root.name if name is None else f"{run.root.name}-{name}"
        _export_budget(run, layout, folder / f"{stem}{LAYOUTS[layout].suffix}", name)


def _export_budget(run: RunDir, layout: ExportLayout, to: Path, budget: str | None) -> None:
    config = Stage(run.selection).config()
    data = subset_data(DataConfig(records="") if config is None else config.data, run, budget)
    pool = open_pool(data.model_copy(update={"image_place": "keep"}))
    column = name_column(budget)
    scores = read_scores(run)
    export_pool(pool, layout, to, list_kept_ids(scores, column))


def list_kept_ids(scores: pa.Table, column: str = "selected") -> list[str]:
    """The ids of a subset as its pool has them, out of the run's scores.parquet."""
    ids: list[str] = scores.filter(scores.column(column)).column("id").to_pylist()
    return ids


def write_own(pool: Pool, path: Path) -> None:
    """Write all records as they stand in their file: JSON (lines) as either, parquet as parquet.

    Raises:
        UserError: a name of another format.
    """
    own = ("json", "jsonl") if pool.format in ("json", "jsonl") else ("parquet",)
    suffix = path.suffix.removeprefix(".")
    if suffix not in own:
        raise UserError(
            f"{path}: these records are kept as {pool.format}: expected a name in "
            f"{' or '.join(f'.{name}' for name in own)}, or one of the layouts "
            f"{', '.join(LAYOUTS)}"
        )
    if suffix == "parquet":
        write_subset(pool, range(len(pool)), path)
    else:
        raws = [pool.raw_bytes(index) for index in range(len(pool))]
        write_atomic(path, format_records(raws, "json" if suffix == "json" else "jsonl"))


def as_in_file(pool: Pool) -> Pool:
    """The pool with `<image>` where the file has it."""
    if pool.config.image_place == "keep":
        return pool
    return open_pool(pool.config.model_copy(update={"image_place": "keep"}))


def _shape_rows(
    pool: Pool, layout: Layout, losses: Losses, names: ImageNames, ids: Sequence[str]
) -> Iterator[Row]:
    for index in range(len(pool)):
        record, extras = replace(pool[index], id=ids[index]), pool.extras(index)
        if layout.holds_images:
            row = layout.shape(record)
            held = [_hold(name) for name in row["images"]]
            losses.note(record, extras, {**row, "images": held})
        else:
            row = layout.shape(replace(record, images=names.translate(record.images)))
            if layout.carries_extras:
                of_record = [key for key in extras if not key.startswith(OF_TURNS)]
                row |= {key: extras[key] for key in of_record if key not in row}
            losses.note(record, extras, row)
        yield row


def _hold(name: str) -> Any:
    """An image as it will be found: bytes count before a path, and so before the file's name."""
    return name if name.startswith(EMBEDDED) else {"bytes": b".", "path": name}


def _write_list(pool: Pool, rows: Iterable[Row], path: Path) -> None:
    write_atomic(path, format_records([_dump(row) for row in rows], "json"))


def _write_lines(pool: Pool, rows: Iterable[Row], path: Path) -> None:
    write_atomic(path, format_records([_dump(row) for row in rows], "jsonl"))


def _write_llamafactory(pool: Pool, rows: Iterable[Row], path: Path) -> None:
    """The records, and their entry in the dataset_info.json beside, among those that are there."""
    info_path = path.with_name("dataset_info.json")
    info = read_json(info_path) if info_path.exists() else {}
    if not isinstance(info, dict):
        raise UserError(f"{info_path}: expected LLaMA-Factory's object, an entry a dataset")
    _write_list(pool, rows, path)
    entry = {"file_name": path.name, **_LLAMAFACTORY_ENTRY}
    write_json(info_path, {**info, path.stem: entry})


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
        _write_llamafactory,
        ".json",
        "dataset: {name}\ndataset_dir: {folder}\nmedia_dir: {images}",
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

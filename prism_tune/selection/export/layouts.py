"""A subset goes out in the layout of another trainer (`layout_table.py`).

In: a pool (the subset itself), the layout's name, and where to. Out: the file or folder; on the
console, what it cannot carry, and what loads it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from prism_tune.config.sections import DataConfig, ExportLayout
from prism_tune.data.adapt import OF_TURNS
from prism_tune.data.files.formats import format_records
from prism_tune.data.layouts.image_values import EMBEDDED
from prism_tune.data.records import Pool, open_pool, write_subset
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_object, write_atomic
from prism_tune.run.log import console
from prism_tune.run.stage import Stage
from prism_tune.run.subset_file import name_column, read_scores, subset_data
from prism_tune.run.writer import scratch_beside
from prism_tune.selection.export.image_names import ImageNames
from prism_tune.selection.export.layout_table import LAYOUTS, Layout
from prism_tune.selection.export.llamafactory import add_entry, read_info
from prism_tune.selection.export.losses import Losses
from prism_tune.selection.export.record_rows import Row
from prism_tune.selection.export_target import require_unread, written_apart

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Export:
    """Records in a layout.

    Attributes:
        pool: the records, with `<image>` where the file has it.
        layout: its name.
        to: the file or folder.
        ids: of the records.
    """

    pool: Pool
    layout: ExportLayout
    to: Path
    ids: Sequence[str]

    @cached_property
    def losses(self) -> Losses:
        """What the layout does not carry, known once it is written."""
        return Losses(self.pool.config.model_copy(update={"records": str(self.to), "columns": {}}))

    @cached_property
    def names(self) -> ImageNames:
        """What the images are called."""
        return ImageNames(self.pool, self.to.with_name(f"{self.to.stem}_images"))

    def write(self, made: Path) -> None:
        """Write it as `made`, which the caller puts in its place."""
        chosen = LAYOUTS[self.layout]
        self.names.written_to = made.with_name(self.names.folder.name)
        rows = _shape_rows(self.pool, chosen, self.losses, self.names, self.ids)
        chosen.write(self.pool, rows, made)

    def announce(self) -> None:
        """Say what is there, what it does not carry, and what loads it."""
        pool, to, losses = self.pool, self.to, self.losses
        logger.info("%s: %d records as %s", to, len(pool), self.layout)
        if self.names.num_written:
            held = (self.names.folder, self.names.num_written)
            logger.info("%s: %d images that the records hold", *held)
        if losses.counts:
            logger.warning("%s: not carried by %s: %s", to, self.layout, losses.describe())
        path, images = to.resolve(), pool.image_dir.resolve()
        load = LAYOUTS[self.layout].load
        loading = load.format(to=path, folder=path.parent, name=path.stem, images=images)
        console.print(loading, soft_wrap=True, highlight=False)


def export_pool(
    pool: Pool, layout: ExportLayout, to: Path, ids: Sequence[str] | None = None
) -> None:
    """Write all records of a pool in a layout; say what it does not carry, and what loads it.

    `<image>` stays where the file has it, whatever `data.image_place` says. Images that records
    hold themselves become files in `<name>_images/` beside it, but in `trl` and `parquet`.

    Args:
        pool: the records.
        layout: its name.
        to: a new file, or the same export again; for `trl` a new folder.
        ids: of the records, where these are part of another pool: one without an id of its own is
            called by its place there.

    Raises:
        UserError: a name of another format; an image that cannot be read; a file, folder or entry
            of another content that is there already; a dataset_info.json beside the file that is
            none.
    """
    chosen = LAYOUTS[layout]
    if chosen.suffix and to.suffix != chosen.suffix:
        raise UserError(f"{to}: {layout} is one file: expected a name in {chosen.suffix}")
    if not chosen.suffix and os.path.lexists(to):
        raise UserError(f"{to}: already there; name a new folder, or delete that one")
    export = _Export(as_in_file(pool), layout, to, ids or pool.ids)
    if not chosen.suffix:
        export.write(to)
    else:
        if chosen.is_named_beside:
            read_info(to)
        with written_apart(to, {"the pool itself": pool.path}) as made:
            export.write(made)
        if chosen.is_named_beside:
            add_entry(to)
    export.announce()


def export_run(
    run: RunDir, layout: ExportLayout, to: Path | None = None, budget: str | None = None
) -> None:
    """Write a run's subset in a layout.

    Args:
        run: its folder.
        layout: as in `export_pool`.
        to: as there; by default in the run's own folder, in place of what is there once all is
            written, and the subsets of further budgets with it.
        budget: of `selection.budgets`; None: the run's own.

    Raises:
        UserError: as `export_pool`; the run has not selected, or has cut no such budget.
    """
    if to is not None:
        pool, ids = _open_budget(run, budget)
        config = Stage(run.selection).config()
        if config is not None:
            require_unread(to, {"the pool itself": Path(config.data.records)})
        export_pool(pool, layout, to, ids)
        return
    Stage(run.selection).require("select")
    manifest = read_object(run.selection / "manifest.json", "further_budgets")
    folder = run.exports / layout
    with scratch_beside(folder) as scratch:
        exports = [
            _export_beside(run, layout, name, scratch / "new")
            for name in (None, *manifest["further_budgets"])
        ]
        if folder.exists():
            os.replace(folder, scratch / "old")
        os.replace(scratch / "new", folder)
    for export in exports:
        export.announce()


def _export_beside(run: RunDir, layout: ExportLayout, budget: str | None, new: Path) -> _Export:
    """Write one of a run's subsets into a folder that will be that of the run's exports."""
    chosen = LAYOUTS[layout]
    stem = run.root.name if budget is None else f"{run.root.name}-{budget}"
    name = f"{stem}{chosen.suffix}"
    pool, ids = _open_budget(run, budget)
    export = _Export(pool, layout, run.exports / layout / name, ids)
    export.write(new / name)
    if chosen.is_named_beside:
        add_entry(new / name)
    return export


def _open_budget(run: RunDir, budget: str | None) -> tuple[Pool, list[str]]:
    """A run's subset with `<image>` where its file has it, and its ids."""
    config = Stage(run.selection).config()
    data = subset_data(DataConfig(records="") if config is None else config.data, run, budget)
    pool = open_pool(data.model_copy(update={"image_place": "keep"}))
    return pool, list_kept_ids(read_scores(run), name_column(budget))


def list_kept_ids(scores: pa.Table, column: str) -> list[str]:
    """The ids of a subset as its pool has them, out of the run's scores.parquet."""
    ids: list[str] = scores.filter(scores.column(column)).column("id").to_pylist()
    return ids


def write_own(pool: Pool, path: Path) -> None:
    """Write all records as they stand in their file: JSON (lines) as either, parquet as parquet.

    Raises:
        UserError: a name of another format, or of something else that is there already.
    """
    own = ("json", "jsonl") if pool.format in ("json", "jsonl") else ("parquet",)
    suffix = path.suffix.removeprefix(".")
    if suffix not in own:
        raise UserError(
            f"{path}: these records are kept as {pool.format}: expected a name in "
            f"{' or '.join(f'.{name}' for name in own)}, or one of the layouts "
            f"{', '.join(LAYOUTS)}"
        )
    with written_apart(path, {"the pool itself": pool.path}) as made:
        if suffix == "parquet":
            write_subset(pool, range(len(pool)), made)
        else:
            raws = [pool.raw_bytes(index) for index in range(len(pool))]
            write_atomic(made, format_records(raws, "json" if suffix == "json" else "jsonl"))


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

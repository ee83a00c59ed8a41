"""A subset small enough to share: which records of a pool, by the hashes of their content.

In: a finished run, out: one compressed file (parquet) with a hash for each record of the pool, in
the pool's order, and whether it was kept; the ids of those kept. In: that file and somebody else's
copy of the pool, in any order; out: what is missing, changed or extra there, and the same subset.

8 of a uid's 16 bytes are shared (all where two records agree in these). A uid is of images' names
and turns: image files are not compared, `prism-tune audit` looks at those.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from prism_tune import __version__
from prism_tune.config.hub_ids import name_publicly
from prism_tune.config.sections import DataConfig
from prism_tune.data.records import Pool, open_pool, write_subset
from prism_tune.errors import UserError, first_line, list_some
from prism_tune.run.folder import SUBSET_SUFFIXES, RunDir, read_object, write_atomic
from prism_tune.run.stage import Stage
from prism_tune.run.subset_file import read_scores
from prism_tune.run.written import mark_written
from prism_tune.selection.export_target import require_file, written_apart

logger = logging.getLogger(__name__)

_KEY = b"prism_tune.subset"
_SHORT_BYTES = 8


@dataclass(frozen=True)
class Verification:
    """What a copy of the pool makes of a shared subset; records by their ids.

    Attributes:
        missing: kept records that are not in the copy.
        changed: of kept records in the copy, those with the same id and other content.
        extra: records of the copy that the published pool has not.
        sha256: of the subset made from the copy; None where it cannot be made.
        published_sha256: of the published subset.
        num_kept: its records.
        outside: an absolute path that leads out of the copy's image folder; None where there is
            none among the records that are extra.
    """

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]
    sha256: str | None
    published_sha256: str
    num_kept: int
    outside: str | None = None

    @property
    def is_identical(self) -> bool:
        """Whether the subset is the published one, byte for byte."""
        return self.sha256 == self.published_sha256

    def describe(self) -> list[str]:
        """What was found, in lines."""
        lines = [
            f"{len(ids):,} records {what}: {list_some(ids)}"
            for what, ids in (
                ("are missing", self.missing),
                ("have changed (same id, other images or turns)", self.changed),
                ("are extra, which changes nothing", self.extra),
            )
            if ids
        ]
        if self.sha256 is None and self.outside is not None:
            lines.append(
                f"images have absolute paths ({self.outside}): --image-dir names the folder that "
                "holds them all, for records are compared by what images are called inside it"
            )
        if self.sha256 is None:
            return [*lines, "the subset cannot be made from this copy"]
        if self.is_identical:
            return [*lines, f"{self.num_kept:,} records, SHA-256 {self.sha256}: as published"]
        return [
            *lines,
            f"{self.num_kept:,} records with the published images and turns, but SHA-256 "
            f"{self.sha256} instead of {self.published_sha256}: other fields, the formatting or "
            "the file format differ",
        ]


def export_subset(run: RunDir, to: Path) -> None:
    """Write a run's subset to a file that can be shared.

    Raises:
        UserError: the run has not selected, or its files are not as the selection left them; `to`
            is a folder, has another name, or is there and no subset of this run.
    """
    require_file(to, "subset.parquet")
    stage = Stage(run.selection)
    stage.require("select")
    config = stage.config()
    assert config is not None
    _require_own(to, config.name)
    if damaged := stage.damaged_files():
        raise UserError(
            f"{run.selection}: not as the selection left them: {', '.join(damaged)}; "
            f"`prism-tune select {stage.config_path}` writes them anew"
        )
    manifest = read_object(run.selection / "manifest.json", "subset_sha256", "pool_fingerprint")
    scores = read_scores(run)
    kept = scores.column("selected").to_pylist()
    ids = scores.column("id").to_pylist()
    hashes = _shorten([bytes.fromhex(uid) for uid in scores.column("uid").to_pylist()])
    header = {
        "prism_tune": __version__,
        "run": config.name,
        "subset_sha256": manifest["subset_sha256"],
        "pool_fingerprint": manifest["pool_fingerprint"],
        "num_pool": len(kept),
        "num_selected": sum(kept),
        "data": {key: getattr(config.data, key) for key in ("columns", "policy", "system")},
        "selection": _name_all_publicly(config.selection.model_dump(mode="json")),
        "seed": config.seed,
        "model": name_publicly(config.model.path),
    }
    table = pa.table(
        {
            "hash": pa.array(hashes, pa.binary(len(hashes[0]))),
            "kept": pa.array(kept),
            "id": pa.array(
                [name if chosen else None for name, chosen in zip(ids, kept, strict=True)]
            ),
        }
    ).replace_schema_metadata({_KEY: orjson.dumps(header)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=19)
    write_atomic(to, sink.getvalue().to_pybytes())
    counts = (to, sum(kept), len(kept), to.stat().st_size)
    logger.info("%s: %d of %d records, %d bytes", *counts)


def verify_subset(
    shared: Path, records: str, to: Path | None, image_dir: Path | None = None
) -> Verification:
    """Find a shared subset in a copy of its pool, and write it where `to` says.

    The records stand in the published order, whatever the copy's.

    Args:
        shared: what `export_subset` wrote.
        records: the copy, as `data.records` names it.
        to: the subset's file; nothing is written where records are missing.
        image_dir: what the copy's images lie in, as `data.image_dir` names it: absolute paths into
            it count as relative to it.

    Raises:
        UserError: `shared` is no such file, the copy cannot be read, or `to` is a name of another
            format than the copy's, or there already with another content.
    """
    table, header = _read_shared(shared)
    hashes = table.column("hash").to_pylist()
    folder = None if image_dir is None else str(image_dir)
    try:
        data = DataConfig(records=records, image_dir=folder, **header["data"])
    except (ValidationError, TypeError) as error:
        raise UserError(f"{shared}: its `data` cannot be read: {first_line(error)}") from error
    pool = open_pool(data)
    suffix = SUBSET_SUFFIXES[pool.format]
    if to is not None and to.suffix != suffix:
        raise UserError(
            f"{to}: the subset is written as its pool is ({pool.format}): expected a name in "
            f"{suffix}"
        )
    place_of = {bytes.fromhex(uid)[: len(hashes[0])]: n for n, uid in enumerate(pool.uids)}
    extra = [place_of[own] for own in place_of.keys() - set(hashes)]
    kept = table.filter(table.column("kept"))
    wanted = list(zip(kept.column("hash").to_pylist(), kept.column("id").to_pylist(), strict=True))
    absent = [name for own, name in wanted if own not in place_of]
    strange = {pool.ids[n] for n in extra}
    sha256 = None
    if not absent:
        with tempfile.TemporaryDirectory() as folder:
            read = {"the pool itself": pool.path, "the shared subset": shared}
            with written_apart(to or Path(folder) / f"subset{suffix}", read) as made:
                sha256 = write_subset(pool, [place_of[own] for own, _ in wanted], made)
    changed = set(absent) & strange
    return Verification(
        missing=tuple(name for name in absent if name not in changed),
        changed=tuple(name for name in absent if name in changed),
        extra=tuple(pool.ids[n] for n in sorted(extra) if pool.ids[n] not in changed),
        sha256=sha256,
        published_sha256=header["subset_sha256"],
        num_kept=len(wanted),
        outside=_find_absolute(pool, extra),
    )


def _find_absolute(pool: Pool, indices: Sequence[int]) -> str | None:
    """The first image of these records that is not called by its place in the image folder."""
    names = (name for index in sorted(indices) for name in pool.images(index))
    return next((name for name in names if name.startswith("/")), None)


def _name_all_publicly(values: Any) -> Any:
    """Settings whose files and folders, wherever they are named, are called as `name_publicly`."""
    if isinstance(values, Mapping):
        return {key: _name_all_publicly(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_name_all_publicly(value) for value in values]
    return name_publicly(values) if isinstance(values, str) else values


def _shorten(uids: Sequence[bytes]) -> list[bytes]:
    short = [uid[:_SHORT_BYTES] for uid in uids]
    return short if len(set(short)) == len(short) else list(uids)


def _read_shared(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read as a shared subset: {error}") from error
    metadata = table.schema.metadata or {}
    if _KEY not in metadata:
        raise UserError(f"{path}: no shared subset; `prism-tune subset export RUN` writes one")
    try:
        header = orjson.loads(metadata[_KEY])
    except orjson.JSONDecodeError:
        header = None
    is_whole = {"hash", "kept", "id"} <= set(table.column_names) and table.num_rows > 0
    if not isinstance(header, dict) or not is_whole:
        raise UserError(f"{path}: damaged; get it again, or write it with `subset export`")
    return table, mark_written(header, path)


def _require_own(to: Path, run: str) -> None:
    """Check that a shared subset can be written there: in no place but that of the same run's.

    Raises:
        UserError: another name, or something else lies there.
    """
    if to.suffix != ".parquet":
        raise UserError(f"{to}: hashes and ids are one parquet file: expected a name in .parquet")
    if not to.exists():
        return
    try:
        header = _read_shared(to)[1]
    except UserError:
        header = {}
    if header.get("run") != run:
        raise UserError(
            f"{to}: there already, and no shared subset of the run {run}; left as it is: name a "
            "new file, or delete that one"
        )

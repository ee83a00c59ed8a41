"""Where each artifact of a run lives; atomic writes, locks and cached arrays.

```
runs/<name>/
  timings.json  log.txt
  audit/       stage.json config.yaml audit.json <reason>.jsonl
  selection/   stage.json config.yaml scores.parquet subset.<format> manifest.json evidence/<kind>/
               exports/<layout>/
  training/    stage.json config.yaml checkpoint-<step>/ final/ log.jsonl
  evaluation/<benchmark>/  stage.json config.yaml predictions.jsonl results.json
  unfinished/  an evaluation while it works, until it replaces a finished one
  tables/
  report/      index.html assets/ data/ thumbs/
```
Each config.yaml is what that stage finished with. Only a stage that really runs writes here:
looking, skipping and failing before the start leave no trace.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prism_tune.errors import UserError
from prism_tune.run.partial import partial_file, take_lock
from prism_tune.run.written import ANEW, mark_written

logger = logging.getLogger(__name__)

SUBSET_SUFFIXES = {
    "json": ".json",
    "jsonl": ".jsonl",
    "parquet": ".parquet",
    "dataset": ".parquet",
}
"""By the pool's format. A dataset's rows are kept as a parquet file."""


@dataclass(frozen=True)
class RunDir:
    """The folder of one run; its path has a name also where it is given as `.` or `..`."""

    root: Path

    def __post_init__(self) -> None:
        if self.root.name in ("", ".."):  # what names a file beside it, or is shown, needs one
            object.__setattr__(self, "root", self.root.resolve())

    @property
    def timings(self) -> Path:
        """What each stage took (see `timings.py`)."""
        return self.root / "timings.json"

    @property
    def log(self) -> Path:
        """Everything logged to the console, and more."""
        return self.root / "log.txt"

    @property
    def audit(self) -> Path:
        """What the audit found."""
        return self.root / "audit"

    @property
    def selection(self) -> Path:
        """Scores, subset and manifest."""
        return self.root / "selection"

    @property
    def evidence(self) -> Path:
        """What the scores rest on, a folder for each kind: links into the store of all runs."""
        return self.selection / "evidence"

    @property
    def next_evidence(self) -> Path:
        """The same of a selection that has not finished, which may replace another."""
        return self.selection / "evidence.next"

    @property
    def features(self) -> Path:
        """The features behind the scores."""
        return self.evidence / "features"

    @property
    def subset(self) -> Path:
        """The kept records, in the format of the pool; subset.json before there are any."""
        paths = [self.subset_in(pool_format) for pool_format in SUBSET_SUFFIXES]
        return next((path for path in paths if path.exists()), paths[0])

    def subset_in(self, pool_format: str) -> Path:
        """The same by the pool's format, which the name says: subset.jsonl holds JSON lines."""
        return self.selection / f"subset{SUBSET_SUFFIXES[pool_format]}"

    @property
    def exports(self) -> Path:
        """The subset in layouts of other trainers, a folder for each."""
        return self.selection / "exports"

    @property
    def training(self) -> Path:
        """Checkpoints and the training log."""
        return self.root / "training"

    @property
    def checkpoint(self) -> Path:
        """The tuned model: an adapter directory or full weights, in HF layout."""
        return self.training / "final"

    @property
    def next_training(self) -> Path:
        """A training in the place of one that has finished, until it has as well."""
        return self.root / "training.next"

    @property
    def evaluation(self) -> Path:
        """One folder a benchmark."""
        return self.root / "evaluation"

    def benchmark(self, name: str) -> Path:
        """Predictions and results of one benchmark."""
        return self.evaluation / name

    @property
    def tables(self) -> Path:
        """Rendered tables."""
        return self.root / "tables"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.root / "report"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader (or a crash) sees the old content or the new, never a part."""
    data = content.encode() if isinstance(content, str) else content
    with naming(path), partial_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system name `path`, not what is hidden beside it, nor nothing (a full disk).

    Args:
        path: what a hidden file or folder beside it is to become.
    """
    try:
        yield
    except OSError as error:
        hidden = os.path.abspath(path.with_name(f".{path.name}."))
        is_hidden = error.filename is None or os.path.abspath(error.filename).startswith(hidden)
        if error.errno is None or not is_hidden:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; numpy scalars and arrays are accepted."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    write_atomic(path, orjson.dumps(value, option=options))


READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Codes of a system that lets something be read only."""
_without_locks: set[int] = set()
"""Devices of which this has been said."""


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """The same of a file that holds one object, with at least these keys.

    Raises:
        UserError: it does not.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not as it was written: expected a JSON object; {ANEW}")
    written: dict[str, Any] = mark_written(content, path)
    for key in keys:
        written[key]
    return written


def read_entries(path: Path, *keys: str) -> list[dict[str, Any]]:
    """The same of a file that holds a list of objects, each with at least these keys.

    Raises:
        UserError: it does not.
    """
    content = read_json(path)
    is_whole = isinstance(content, list) and all(
        isinstance(entry, dict) and entry.keys() >= set(keys) for entry in content
    )
    if not is_whole:
        expected = f"a JSON list of objects with {' and '.join(keys)}"
        raise UserError(f"{path}: not as it was written: expected {expected}; {ANEW}")
    entries: list[dict[str, Any]] = mark_written(content, path)
    return entries


def remove_left_over(beside: Path, mark: str) -> None:
    """Remove what a killed process has left of a new `beside`; nobody else may be making it.

    Args:
        beside: what was to be written.
        mark: the temporary's name is a dot, that of `beside`, this, and what nobody knows.
    """
    for left in beside.parent.glob(f".{glob.escape(beside.name)}{mark}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file, so that others who want to make the same wait; a kill releases it.

    In a folder that may only be read nothing can be made, and nobody waits.

    Args:
        path: the file; it stays there.
        on_wait: called where somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(path)
    if descriptor is None:
        yield
        return
    try:
        if not _wait_for(descriptor, on_wait) and os.access(path, os.W_OK):
            _warn_without_locks(descriptor, path.parent)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, on_wait: Callable[[], None]) -> bool:
    """False where there are no locks."""
    try:
        return take_lock(descriptor, wait=False)
    except BlockingIOError:
        on_wait()
        return take_lock(descriptor, wait=True)


def _warn_without_locks(descriptor: int, folder: Path) -> None:
    device = os.fstat(descriptor).st_dev
    if device not in _without_locks:
        _without_locks.add(device)
        logger.warning(
            "%s: a file system without locks: two runs at once that need the same would both "
            "compute it",
            folder,
        )


def _open_lock(path: Path) -> int | None:
    """The lock file, another user's as well; None where there is none and none can be made."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        return None

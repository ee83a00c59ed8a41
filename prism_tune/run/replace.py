"""A finished folder takes the place of the one before: how results and models are replaced.

In: the folder a stage has worked in, and the place where readers look. Out: the one in the other's
place, whole; a reader finds the old folder or the new one, never files of both.

Linux exchanges two folders in one step, so that the place is never empty, whatever is killed. Where
a file system cannot (NFS), two renames do it; a kill between them leaves the place empty until the
stage's next run, which completes every replacement that was killed. Nothing is removed before the
new folder is in place, and a folder without `stage.json` never replaces anything.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

from prism_tune.run.stage import Stage

logger = logging.getLogger(__name__)

_MARKER = ".replaces"
"""In a folder that takes another's place, so that the two can be told apart after a kill."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def replace_folder(new: Path, old: Path, *, own: Collection[str] = ()) -> None:
    """Put `new`, where a stage has finished in it, in the place of `old`; on one process.

    To be called when the stage has finished, and before it starts: then it completes what was
    killed. Without a finished `new` nothing happens.

    Args:
        new: where the stage works.
        old: where readers look; need not be there.
        own: patterns of the names that the stage itself writes. What others have put into `old`
            (a judge's grades, a user's notes) and `new` has not is kept.
    """
    aside = new.with_name(f"{new.name}.replaced")
    if aside.exists() and not old.exists() and not Stage(new).path.exists():
        os.replace(aside, old)
    if not (old / _MARKER).exists():
        if not Stage(new).path.exists():
            return
        (new / _MARKER).touch()
        _move_in(new, old, aside)
    for replaced in (new, aside):
        if replaced.is_symlink():  # what it leads to may be another run's
            logger.warning(
                "%s led to %s, which stays as it was; what is new lies here",
                old,
                replaced.resolve(),
            )
            replaced.unlink()
        elif replaced.exists():
            _keep_others(replaced, old, own)
            shutil.rmtree(replaced)
    (old / _MARKER).unlink()


def _move_in(new: Path, old: Path, aside: Path) -> None:
    if old.exists():
        if _exchange(new, old):
            return
        os.replace(old, aside)
    old.parent.mkdir(parents=True, exist_ok=True)
    os.replace(new, old)


def _exchange(first: Path, second: Path) -> bool:
    """Two folders change names in one step; False where the system cannot do that."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    paths = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second))
    return bool(rename(*paths, _RENAME_EXCHANGE) == 0)


def _keep_others(source: Path, target: Path, own: Collection[str]) -> None:
    """Move what the stage has not written, without overwriting anything."""
    for path in source.iterdir():
        if path.name == _MARKER or any(fnmatch(path.name, pattern) for pattern in own):
            continue
        place = target / path.name
        if not place.exists():
            os.replace(path, place)
        elif path.is_dir() and place.is_dir():
            _keep_others(path, place, own)

"""A file while it is written: hidden, beside its place, and held as long as its process lives.

The lock is the kernel's and ends with the process, however it dies: what nobody holds was left by
one that was killed, and the next that writes into the folder removes it. Where a file system has no
such locks, it stays.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".prism_tune"
"""How the name of such a file ends."""

_looked_into: set[str] = set()


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A new file beside `path`, for the caller to write and to put in its place; gone at the end.

    It has the permissions that a file of the user's has. What killed processes have left in the
    folder is removed, once a process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path.parent)
    descriptor, temporary = _create(path)
    try:
        os.fchmod(descriptor, 0o666 & ~_umask())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def is_current(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that lies there."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _create(path: Path) -> tuple[int, Path]:
    """Open and held; anew where somebody has taken it for left over before it was held."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=MARK)
        temporary = Path(name)
        if _hold(descriptor) and is_current(descriptor, temporary):
            return descriptor, temporary
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _hold(descriptor: int) -> bool:
    """False where another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is removed either
        pass
    return True


def _remove_left(folder: Path) -> None:
    key = str(folder.absolute())
    if key in _looked_into:
        return
    _looked_into.add(key)
    for left in folder.glob(f".*{MARK}"):
        with suppress(OSError):  # held, without locks, or not ours to remove
            descriptor = os.open(left, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

"""A file while it is written: hidden, beside its place, and held as long as its process lives.

The lock is the kernel's and ends with the process, however it dies: what nobody holds was left by
one that was killed, and the next that writes into the folder removes it. Where a file system has no
such locks, or its nodes may each have their own, it does so only an hour later.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".prism_tune"
"""How the name of such a file ends."""

_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Of a file system without; of NFS where the file may only be read."""
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs"}
_UNTOUCHED_SECONDS = 3600.0

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


def take_lock(descriptor: int, *, wait: bool, by_record: bool = False) -> bool:
    """Hold an open file by a lock of the kernel; False where the file system has none.

    Args:
        descriptor: of the file.
        wait: for another process that holds it.
        by_record: the lock is the process's, not the open file's that a child shares.

    Raises:
        BlockingIOError: another process holds it, and it is not waited for.
    """
    lock = fcntl.lockf if by_record else fcntl.flock
    try:
        lock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def is_left_over(path: Path) -> bool:
    """Whether nobody writes there any more, where no other process is known to hold the lock.

    Where that does not tell, what has been written within the hour may have a living writer.
    """
    with tempfile.TemporaryFile(dir=path.parent, prefix=".") as touched:
        if take_lock(touched.fileno(), wait=False) and is_local(path.parent):
            return True
        now = os.fstat(touched.fileno()).st_mtime  # the server's clock, not this machine's
    return now - path.stat().st_mtime > _UNTOUCHED_SECONDS


def is_local(path: Path) -> bool:
    """Whether a lock here is known to every process that can see the file (containers, too)."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    kinds = {line.rpartition(" - ")[2].split()[0] for line in mounts if line.split()[2] == number}
    return bool(kinds) and kinds <= _LOCAL


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
        is_held = False
        try:
            is_held = _hold(descriptor) and is_current(descriptor, temporary)
        finally:
            if not is_held:
                os.close(descriptor)
                temporary.unlink(missing_ok=True)
        if is_held:
            return descriptor, temporary


def _hold(descriptor: int) -> bool:
    """False where another process holds it."""
    try:
        take_lock(descriptor, wait=False)
    except BlockingIOError:
        return False
    return True


def _remove_left(folder: Path) -> None:
    key = str(folder.absolute())
    if key in _looked_into:
        return
    _looked_into.add(key)
    for left in folder.glob(f".*{MARK}"):
        with suppress(OSError):  # held, or not ours to remove
            descriptor = os.open(left, os.O_RDWR)
            try:
                take_lock(descriptor, wait=False)
                if is_left_over(left):
                    left.unlink()
            finally:
                os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

"""One writer a run folder: who is at work there, and what a second command is told.

The main process of a stage holds `.<run>.writer.json`, beside the folder, by a record lock of the
kernel (also over NFS): that ends with the process, however it dies. The file names host and
process. Where a file system has no such locks, its time tells: the holder renews it, and one that
is not renewed is left over.
"""

from __future__ import annotations

import functools
import getpass
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import orjson

from prism_tune.config.secrets import redact_text
from prism_tune.errors import UserError
from prism_tune.processes import is_main
from prism_tune.run.folder import RunDir, naming, remove_left_over
from prism_tune.run.partial import is_current, is_local, take_lock

logger = logging.getLogger(__name__)

RENEWED_SECONDS = 20.0
"""How often a holder shows that it lives."""
_MISSED = 3
_SCRATCH = ".prism_tune-"

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_held: set[str] = set()


def one_writer(stage: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """A stage, called with its config and its run, that nobody else writes beside."""

    @functools.wraps(stage)
    def call(*given: _Given.args, **options: _Given.kwargs) -> _Result:
        run: Any = given[1]
        with only_writer(run):
            return stage(*given, **options)

    return call


@contextmanager
def only_writer(run: RunDir) -> Iterator[None]:
    """Hold the run folder; on the main process, which alone writes there. It leaves no trace.

    Raises:
        UserError: somebody else does; the message says who.
    """
    if not is_main():
        yield
        return
    path = writer_file(run)
    key = str(path.resolve())
    if key in _held:
        raise UserError(f"{run.root}: this process is at work there already, in another thread")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.parent.stat()
        descriptor = _acquire(path)
    except OSError:  # nothing can be written here: what has to be will say so
        yield
        return
    _held.add(key)
    signed = path.parent.stat().st_mtime_ns
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, done), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        _held.discard(key)
        with suppress(OSError):  # somebody has removed the folder
            _leave(path, before if path.parent.stat().st_mtime_ns == signed else None)
        os.close(descriptor)
        with suppress(OSError):  # something lies there now
            for folder in made:
                folder.rmdir()


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """A hidden folder beside a file or folder to be; gone at the end, or by the next after a kill.

    Raises:
        UserError: somebody else writes there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(RunDir(target)), naming(target):
        remove_left_over(target, _SCRATCH)
        prefix = f".{target.name}{_SCRATCH}"
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as scratch:
            yield Path(scratch)


def _leave(path: Path, before: os.stat_result | None) -> None:
    """Remove the file, and with `before` every trace of it in the folder's time."""
    path.unlink(missing_ok=True)
    if before is not None:
        os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def writer_file(run: RunDir) -> Path:
    """Says who is at work in a run folder; there only while somebody is."""
    return run.root.with_name(f".{run.root.name}.writer.json")


def find_writer(run: RunDir) -> str | None:
    """`at work: process 12 on host, since ...`; None where nobody is. Nothing is waited for."""
    path = writer_file(run)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        holder, seen = _read(descriptor), os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    is_here = holder.get("host") == socket.gethostname()
    is_fresh = time.time() - seen < _MISSED * RENEWED_SECONDS
    if not holder or not (_lives(holder) if is_here else is_fresh):
        return None
    return "at work: process {pid} on {host}, since {since}".format(**holder)


def _acquire(path: Path) -> int:
    """The open file, locked and signed."""
    while True:
        if path.is_symlink():
            raise UserError(f"{path}: a link; the lock of this run is written there: remove it")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            take_lock(descriptor, wait=False, by_record=True)
        except (BlockingIOError, PermissionError):
            holder = _read(descriptor)
            os.close(descriptor)
            raise _taken(path, holder) from None
        if is_current(descriptor, path):
            break
        os.close(descriptor)  # its holder has just left and removed it
    with ExitStack() as unless_taken:
        unless_taken.callback(os.close, descriptor)
        _look_at_holder(path, _read(descriptor))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, orjson.dumps(_describe_self(), option=orjson.OPT_INDENT_2), 0)
        unless_taken.pop_all()
    return descriptor


def _look_at_holder(path: Path, holder: dict[str, Any]) -> None:
    """A name left in the file: of a process that was killed, or on a system without locks.

    Raises:
        UserError: it lives.
    """
    if not holder:
        return
    if holder["host"] == socket.gethostname():
        if _lives(holder):
            raise _taken(path, holder)
        logger.info("%s: left by process %s, which is gone", path, holder["pid"])
        return
    if is_local(path):
        logger.info("%s: left by a process on %s, which is gone", path, holder["host"])
        return
    seen = path.stat().st_mtime
    logger.info(
        "%s: names process %s on %s; waiting to see whether it lives",
        path,
        holder["pid"],
        holder["host"],
    )
    deadline = time.monotonic() + _MISSED * RENEWED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(RENEWED_SECONDS / 10)
        if not path.exists() or path.stat().st_mtime != seen:
            raise _taken(path, holder)


def _taken(path: Path, holder: dict[str, Any]) -> UserError:
    who = "another process"
    if holder:
        who = "process {pid} of {user} on {host}, since {since} ({command})".format(**holder)
    folder = path.with_name(path.name[1:].removesuffix(".writer.json"))
    return UserError(
        f"{folder}: {who} is writing there; wait until it has ended, or give this run another "
        f"`name`; nothing was changed (the lock is {path})"
    )


def _describe_self() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "user": user,
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": redact_text(" ".join(["prism-tune", *sys.argv[1:]]))[:200],
    }


def _lives(holder: dict[str, Any]) -> bool:
    """Whether it is this very process, and not another that has its number by now."""
    started = _start_of(holder["pid"])
    return started is not None and started == holder["started"]


def _start_of(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _read(descriptor: int) -> dict[str, Any]:
    """Who signed; nothing where nobody has, or not wholly."""
    try:
        content = orjson.loads(os.pread(descriptor, 1 << 16, 0))
    except (orjson.JSONDecodeError, OSError):  # a pipe has no place to read at
        return {}
    names = {"host", "pid", "started", "user", "since", "command"}
    is_whole = isinstance(content, dict) and names <= content.keys()
    return content if is_whole and isinstance(content["pid"], int) else {}


def _renew(path: Path, done: threading.Event) -> None:
    while not done.wait(RENEWED_SECONDS):
        with suppress(OSError):  # the folder was removed: its stage will say so
            os.utime(path)

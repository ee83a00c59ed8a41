"""Being asked to end: SIGTERM of a scheduler, SIGINT of a keyboard, SIGHUP of a lost terminal.

So is the death of a launcher. On the command line each of these signals raises `Interrupted` in
the main thread, so that folders and workers are cleaned up on the way out; within `postponed` it
waits for somebody to ask for it. Code that does not come back from a library (a collective whose
peer is gone) is ended by a thread of its own when the grace is over: nothing outlives it. Forked
workers ignore keyboard and terminal, which are their parent's affair, and die with the parent,
however that ends.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from prism_tune.processes import world_size

GRACE_SECONDS = 30.0
LEFT = "ends here, what was complete before is kept"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1
_SAME_REQUEST_SECONDS = 1.0
"""A launcher passes on the SIGINT that its processes get from the terminal as well."""
_WORKER_SECONDS = 60
_AGAIN_SECONDS = 0.05
_REMOVALS = 5
_prctl: Callable[..., int] | None = getattr(ctypes.CDLL(None), "prctl", None)


class Interrupted(BaseException):
    """Somebody asked this process to end. The command line exits with 128 + `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class _Requests:
    """What this process has been asked for."""

    def __init__(self, owner: int = 0) -> None:
        self.reset(owner)

    def reset(self, owner: int) -> None:
        self.owner = owner
        self.signum: int | None = None
        self.at = 0.0
        self.is_postponed = False
        self.grace_seconds = GRACE_SECONDS
        self.left = LEFT
        self.inherited: set[str] = set()


class _Forking(threading.local):
    """What a fork has to know of the process it comes from, which may end before it has begun."""

    parent = 0
    mask: set[int] | None = None

    def begin(self) -> None:
        """A request to end that comes before the worker waits for one would be lost on it."""
        self.parent = os.getpid()
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def end(self) -> None:
        if self.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def become(self) -> None:
        become_worker(self.parent or None)


_requests = _Requests()
_forking = _Forking()


def raise_interrupts() -> None:
    """Let these signals end this process as the module says; once, on the main thread.

    A signal that is ignored already (SIGINT of a job in the background, SIGHUP under nohup) stays
    so. Loaders' workers are forked from here on: a server's, which Python may choose, would outlive
    this process.
    """
    if _requests.owner == os.getpid():
        return
    is_new = _requests.owner == 0
    _requests.reset(os.getpid())
    _requests.inherited = _temporary_folders()
    if is_new:
        if sys.platform == "linux":
            multiprocessing.set_start_method("fork", force=True)
        os.register_at_fork(
            before=_forking.begin, after_in_parent=_forking.end, after_in_child=_forking.become
        )
        sys.unraisablehook = _deliver_again
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_grace, args=(reading,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for signum in SIGNALS:  # last: from here on an interrupt may come at any place
        if signal.getsignal(signum) is not signal.SIG_IGN or not is_new:
            signal.signal(signum, _receive)


def stop_raising() -> None:
    """A signal that comes once everything is done, or has been said, ends the process as it is."""
    if _requests.owner == os.getpid():
        for signum in SIGNALS:
            if signal.getsignal(signum) is _receive and _requests.signum is None:
                signal.signal(signum, _end_as_it_is)


def asked_to_end() -> int | None:
    """The signal that has asked this process to end; None where none has."""
    return _requests.signum


@contextmanager
def postponed(grace_seconds: float) -> Iterator[None]:
    """A signal raises nothing within it: whoever works looks at `asked_to_end`, and leaves in time.

    Raises:
        Interrupted: at the end, where there was one; also where another rank has left by then, and
            a collective fails for that: the error is said, no defect of this one.
    """
    _requests.is_postponed = True
    try:
        with patience(grace_seconds):
            yield
    except RuntimeError as error:
        if _requests.signum is None or world_size() == 1:
            raise
        _tell(_requests.signum, f"another rank may have left before: {error}")
    finally:
        _requests.is_postponed = False
        _requests.left = LEFT
    if _requests.signum is not None:
        raise Interrupted(_requests.signum)


def tell_when_cut_off(left: str) -> None:
    """Within `postponed`: what is said, as it stands, where the grace ends this process."""
    _requests.left = left


@contextmanager
def patience(grace_seconds: float) -> Iterator[None]:
    """Within it this process may take so long to end: it waits for one with that grace."""
    before, _requests.grace_seconds = _requests.grace_seconds, grace_seconds
    try:
        yield
    finally:
        _requests.grace_seconds = before


def patience_seconds() -> float:
    """How long this process waits for those that it has asked to end."""
    return _requests.grace_seconds


def follow_parent(signum: int = signal.SIGTERM, parent: int | None = None) -> None:
    """Get a signal when the parent is gone, also by SIGKILL; one that is named may be already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signum)


def follow_launcher() -> None:
    """The same for what torchrun or DeepSpeed's launcher has started; no shell's job is touched."""
    if "RANK" in os.environ and "LOCAL_RANK" in os.environ and "SLURM_PROCID" not in os.environ:
        follow_parent()


def become_worker(parent: int | None) -> None:
    """In a process that works for another: of a group that is asked to end, the parent sees to it.

    Forked ones call it by themselves; those that are new programs have to. All name the parent,
    which may be gone by then.
    """
    signal.set_wakeup_fd(-1)
    follow_parent(signal.SIGKILL, parent)
    if signal.getsignal(signal.SIGINT) in (_receive, signal.default_int_handler):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_end, args=(os.getppid(),), daemon=True).start()


def _receive(signum: int, frame: FrameType | None) -> None:
    if _requests.owner != os.getpid():
        return
    if _requests.signum is None:
        _requests.signum, _requests.at = signum, time.monotonic()
        if not _requests.is_postponed:
            raise Interrupted(signum)
    elif signum == signal.SIGINT and time.monotonic() - _requests.at > _SAME_REQUEST_SECONDS:
        _end(signum, "interrupted again: ends at once")


def _end_as_it_is(signum: int, frame: FrameType | None) -> None:
    remove_temporary_folders()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def _deliver_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Python ignores what is raised in a finaliser, or around a fork: an interrupt comes anew."""
    if _requests.owner == os.getpid() and isinstance(unraisable.exc_value, Interrupted):
        signum, _requests.signum = unraisable.exc_value.signum, None
        threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signum)).start()
        return
    sys.__unraisablehook__(unraisable)


def _end_after_grace(reading: int) -> None:
    """On its own thread: signals arrive here even while the main one is in a library's hands."""
    while (signum := os.read(reading, 1)[0]) not in SIGNALS:
        continue
    begin = time.monotonic()
    while time.monotonic() - begin < _requests.grace_seconds:
        time.sleep(0.1)
    _end(signum, f"the grace of {_requests.grace_seconds:g} seconds is over; {_requests.left}")


def end_at_once(code: int) -> NoReturn:
    """End without waiting for threads and workers; what this process has put into /tmp goes."""
    with suppress(OSError):  # a terminal that is gone
        sys.stderr.flush()
    remove_temporary_folders()
    os._exit(code)


def remove_temporary_folders() -> None:
    """Those of this process and its libraries, where it ends otherwise than Python does."""
    if _requests.owner != os.getpid():
        return
    for folder in _temporary_folders() - _requests.inherited:
        _remove(folder)
    if multiprocessing.parent_process() is None:  # else it is the other's, with its sockets
        with suppress(OSError):
            _remove(util.get_temp_dir())


def _remove(folder: str) -> None:
    """Under another name: a worker that is about to put a socket there does not find it.

    A file that is made while the folder is emptied would keep it. One that a worker was making
    when the name changed still comes: then it is emptied again.
    """
    gone = f"{folder}.gone"
    with suppress(OSError):
        os.rename(folder, gone)
        for _ in range(_REMOVALS):
            shutil.rmtree(gone, ignore_errors=True)
            if not os.path.lexists(gone):
                return
            time.sleep(_AGAIN_SECONDS)


def _temporary_folders() -> set[str]:
    """Those that this process, or what it was forked from, has; libraries' as well (wandb's)."""
    return {kept.name for kept in gc.get_objects() if type(kept) is TemporaryDirectory}


def _end(signum: int, why: str) -> None:
    _tell(signum, why)
    end_at_once(128 + signum)


def _tell(signum: int, what: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{signal.Signals(signum).name}: {what}\n")


def _wait_for_end(parent: int) -> None:
    """Instead of a handler, which torch replaces in its own workers by one that ends them.

    Where somebody else than the parent asks, the parent was asked as well: it is served while it
    saves its work, and is usually gone before this is due.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not say who has asked
        signal.sigwait({signal.SIGTERM})
    elif signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        time.sleep(_WORKER_SECONDS)
    os._exit(128 + signal.SIGTERM)

"""Permissions that hold: root, as whom containers and CI run tests, may write anywhere."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION_3 = 0x20080522
_OVERRIDES = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in a folder may be changed within it, by this thread and those that it starts."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    modes = [path.stat().st_mode for path in paths]
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode & ~0o222)
    try:
        with permissions_held():
            yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


@contextmanager
def permissions_held() -> Iterator[None]:
    """The permissions of files hold within it, for root as well."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, low and then high
    if libc.capget(head, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    before = sets[0]
    sets[0] = before & ~_OVERRIDES
    if libc.capset(head, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        sets[0] = before
        if libc.capset(head, sets) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

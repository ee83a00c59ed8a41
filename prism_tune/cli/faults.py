"""What other code raises, at the edge of a verb: in one line what, where and how to mend it.

Disks, memory, packages and files that are not as a library expects them are the user's to mend. An
error that comes out of prism_tune's own code is a defect: it is shown whole, and how to report it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path

from prism_tune.config.plugins import blame_plugin
from prism_tune.config.secrets import redact_text
from prism_tune.errors import first_line
from prism_tune.run.written import ANEW, altered_records

SHOW = "PRISM_TUNE_TRACEBACK"
"""Set to 1, a library's error is shown whole as well."""

_PACKAGE = Path(__file__).parents[1]
_FRAME = re.compile(r'File "([^"]+)", line \d+')
_SYSTEM = {
    errno.ENOSPC: "the disk is full: make room, or name another place (output_dir; "
    "PRISM_TUNE_CACHE for the cache)",
    errno.EDQUOT: "your quota is used up: make room, or name another place (output_dir; "
    "PRISM_TUNE_CACHE for the cache)",
    errno.EROFS: "the file system is read-only: name another place (output_dir; PRISM_TUNE_CACHE "
    "for the cache)",
    errno.EACCES: "no permission: change that of the file or folder, or name another place "
    "(output_dir; PRISM_TUNE_CACHE for the cache)",
    errno.EPERM: "no permission: change that of the file or folder, or name another place "
    "(output_dir; PRISM_TUNE_CACHE for the cache)",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter `name` or output_dir",
    errno.ENOTDIR: "a file lies where a folder is needed: remove it, or name another place",
    errno.EISDIR: "a folder lies where a file is expected: remove it, or name another place",
    errno.EEXIST: "something lies there already: remove it, or name another place",
    errno.ENOENT: "it is not there, or was removed meanwhile: see that the folder exists",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n), or lower data.num_workers",
    errno.ENOMEM: "there is not enough memory: lower the batch size or data.num_workers",
    errno.EIO: "the disk or the network file system fails to read or write it",
    errno.EFBIG: "a file may not grow so large here (ulimit -f, or the file system): name another "
    "place (output_dir; PRISM_TUNE_CACHE for the cache)",
    errno.ELOOP: "its symbolic links lead in a circle: remove or mend them",
    errno.ESTALE: "the network file system has lost it: try again",
}
_CODE = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust name an error of the system."""
_MEMORY = re.compile(r"out of memory|can't allocate memory|[Uu]nable to allocate|bad_alloc")
_GONE = re.compile(r"DataLoader worker .* (killed|exited)|Bus error|shared memory|shm")


def explain(error: Exception, verb: str) -> str | None:
    """What to tell the user; None where the error is a defect of ours.

    Args:
        error: as it has left the verb.
        verb: of the command line.
    """
    if isinstance(error, OSError) and error.errno is not None:
        where, said = error.filename or "a file", error.strerror
        return f"{verb}: {where}: {_SYSTEM.get(error.errno, f'the system says: {said}')}"
    blamed = blame_plugin(error)
    if blamed is not None:
        return f"{verb}: {blamed}\n{SHOW}=1 shows the whole"
    said = first_line(error)
    if (code := _CODE.search(said)) and int(code[1]) in _SYSTEM:
        return f"{verb}: {said}: {_SYSTEM[int(code[1])]}"
    if said.startswith("Symlink loop"):  # pathlib's own
        return f"{verb}: {said.rpartition(' ')[2]}: {_SYSTEM[errno.ELOOP]}"
    if isinstance(error, MemoryError) or _MEMORY.search(said):
        return (
            f"{verb}: not enough memory ({said}); lower training.hf.per_device_train_batch_size, "
            "evaluation.batch_size or the tokens_per_batch of selection and training"
        )
    if _GONE.search(said):
        return (
            f"{verb}: a process that reads images was lost ({said}); memory or shared memory "
            "(/dev/shm) ran out: lower data.num_workers, or docker run --shm-size 16g"
        )
    if isinstance(error, ModuleNotFoundError) and not _is_ours(str(error.name)):
        return f"{verb}: the package {error.name} is missing: pip install {error.name}"
    if altered := altered_records():
        return (
            f"{verb}: {', '.join(map(str, altered))}: not as it was written (a value of another "
            f"kind: {type(error).__name__}: {said}): {ANEW}; {SHOW}=1 shows where"
        )
    library = _find_library(error)
    if library is None:
        return None
    return (
        f"{verb}: {library} cannot go on: {type(error).__name__}: {said}\n"
        f"A setting or a file it was given does not suit it; {SHOW}=1 shows where. If nothing of "
        "yours explains it, report it as a defect, with that"
    )


def show(error: Exception) -> None:
    """The whole traceback, without secrets."""
    sys.stderr.write(redact_text("".join(traceback.format_exception(error))))


def show_defect(error: Exception) -> None:
    """The same, and how to report it."""
    show(error)
    sys.stderr.write(
        "\nThis is a defect of prism_tune, not a mistake of yours: please open an issue with all "
        "of the above, the command and its config.\n"
    )


def wants_traceback() -> bool:
    """Whether the user has asked for tracebacks."""
    return os.environ.get(SHOW, "") not in ("", "0")


def _find_library(error: Exception) -> str | None:
    """The package whose code has raised it, also in a loader's worker; None where it is ours."""
    module = type(error).__module__.partition(".")[0]
    if module not in ("builtins", "prism_tune"):  # of a compiled library, which has no frames
        return module
    told = _FRAME.findall(str(error)) if "Original Traceback" in str(error) else []
    frames = traceback.extract_tb(error.__traceback__)
    named = told or [frame.filename for frame in frames]
    files = [name for name in named if not name.endswith((".pyx", ".pxi", ">"))]
    path = Path(files[-1])
    if path.is_relative_to(_PACKAGE):
        return None
    parts = path.parts
    if "site-packages" in parts[:-1]:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "Python"


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "prism_tune"

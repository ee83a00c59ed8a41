"""The file a user has named for an export: it appears whole, and takes nothing's place.

What lies there stays. Where it is the very same export already, that is all; where it is anything
else, the export is refused: records look alike whoever has written them.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.run.writer import scratch_beside


@contextmanager
def written_apart(to: Path, read: Mapping[str, Path]) -> Iterator[Path]:
    """Where to write what is to be `to`; folders written beside that come to lie beside `to`.

    Args:
        to: the file.
        read: what the export is made of, by what it is.

    Raises:
        UserError: `to` is a folder, something that is read, or there with another content.
    """
    require_file(to, f"{to / 'subset'}{to.suffix}")
    require_unread(to, read)
    with scratch_beside(to) as scratch:
        made = scratch / to.name
        yield made
        is_there = os.path.lexists(to)
        if is_there and not (to.is_file() and filecmp.cmp(made, to, shallow=False)):
            raise UserError(
                f"{to}: there already, with another content, and left as it is; name a new file, "
                "or delete that one"
            )
        for folder in [path for path in scratch.iterdir() if path.is_dir()]:
            _add_files(folder, to.with_name(folder.name))
        if not is_there:
            os.replace(made, to)


def require_file(to: Path, example: str) -> None:
    """Check that a file can be written under this name.

    Raises:
        UserError: a folder lies there.
    """
    if to.is_dir():
        raise UserError(f"{to}: a folder; name the file to write, for example {example}")


def require_unread(to: Path, read: Mapping[str, Path]) -> None:
    """Check that a file is nothing that is read.

    Raises:
        UserError: it is.
    """
    for what, path in read.items():
        if to.exists() and path.exists() and to.samefile(path):
            raise UserError(f"{to}: this is {what}, and would be gone; name another file")


def _add_files(folder: Path, target: Path) -> None:
    """Files that are called by their content: one of the same name is the same."""
    target.mkdir(exist_ok=True)
    for file in folder.iterdir():
        os.replace(file, target / file.name)

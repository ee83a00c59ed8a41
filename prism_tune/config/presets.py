"""The presets and DeepSpeed files that ship with prism_tune, found wherever it is installed.

`preset:quickstart` goes in, the path of a file comes out. The files are those of `configs/`, where
people read them; a wheel carries that folder as `prism_tune/configs` (`package_dir` in setup.py).
"""

from __future__ import annotations

import difflib
import os
from itertools import takewhile
from pathlib import Path
from typing import Literal

from prism_tune.errors import ConfigError

Kind = Literal["experiments", "deepspeed"]
"""Configs of experiments and grids, or files for `training.deepspeed`."""

PREFIX = "preset:"
_PACKAGE = Path(__file__).parents[1]
_SUFFIXES: dict[Kind, str] = {"experiments": ".yaml", "deepspeed": ".json"}
_CALLED: dict[Kind, str] = {
    "experiments": "a config",
    "deepspeed": "a DeepSpeed file, for training.deepspeed",
}


def list_presets(kind: Kind) -> dict[str, Path]:
    """The files of a kind by their names: `quickstart`, `tables/main`; `zero2`."""
    folder = _shipped() / kind
    found = sorted(folder.rglob(f"*{_SUFFIXES[kind]}"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def describe_preset(path: Path) -> str:
    """The first sentence of the comment that a preset begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = " ".join(line.lstrip("# ") for line in lines)
    return text.partition(". ")[0].removesuffix(".")


def find_file(named: str | Path, kind: Kind, folder: Path = Path()) -> Path:
    """The file that somebody means.

    Args:
        named: `preset:NAME`, or a path. A path below `configs/` that is not there is the shipped
            file of that name, so that what the documentation names is found without a checkout.
            A leading `~` is the home.
        kind: what it has to be.
        folder: what a relative path is relative to; by default the working directory.

    Returns:
        Where it is; a path that is not there as it was given.

    Raises:
        ConfigError: no such preset; the nearest are named.
    """
    text = os.path.expanduser(named)
    if text.startswith(PREFIX):
        return _find_preset(text, kind)
    path = folder / text
    given = Path(text).parts
    if given[:1] == ("configs",) and not path.exists():
        shipped = _shipped().joinpath(*given[1:])
        return shipped if shipped.is_file() else path
    return path


def suggest_presets(name: str, kind: Kind = "experiments") -> str:
    """`; did you mean preset:a or preset:b?` for a name that is like theirs; else nothing."""
    known = list_presets(kind)
    ends = [preset for preset in known if Path(preset).name == name]
    close = ends or difflib.get_close_matches(name, known, n=2, cutoff=0.75)
    meant = " or ".join(f"{PREFIX}{preset}" for preset in close)
    return f"; did you mean {meant}?" if meant else ""


def _find_preset(text: str, kind: Kind) -> Path:
    name = text.removeprefix(PREFIX)
    found = list_presets(kind).get(name)
    if found is not None:
        return found
    for other, called in _CALLED.items():
        if name in list_presets(other):
            raise ConfigError(f"{text} is {called}; expected {_CALLED[kind]}")
    hint = suggest_presets(name.removesuffix(_SUFFIXES[kind]), kind)
    raise ConfigError(f"{text}: no such preset{hint}\n`prism-tune presets` lists them")


def _shipped() -> Path:
    """`configs/`: inside the package where it came in a wheel, beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"

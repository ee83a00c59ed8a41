"""Plugins: scorers, benchmarks, model families and pool readers out of a user's own files.

A file that `plugins` of the config or `--plugin` names, or a package installed with an entry point
`prism_tune.plugins`, goes in; what its dictionaries `SCORERS`, `BENCHMARKS`, `FAMILIES` and
`READERS` offer comes out, by name. The files named stand in an environment variable, so that every
process a verb starts knows them. Nothing is imported before somebody looks for a name.

Only what the user names counts: a config that is read back (`load.py`, `run/stage.py`) names none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from prism_tune.errors import ConfigError

logger = logging.getLogger(__name__)

Kind = Literal["SCORERS", "BENCHMARKS", "FAMILIES", "READERS"]
"""The dictionaries that a plugin may have, as ours are called."""

VARIABLE = "PRISM_TUNE_PLUGINS"
_BETWEEN = "\n"  # a path may have a colon in it
GROUP = "prism_tune.plugins"
_SINGULAR: dict[Kind, str] = {
    "SCORERS": "scorer",
    "BENCHMARKS": "benchmark",
    "FAMILIES": "model family",
    "READERS": "pool reader",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """One file or package: how it is called, its content or version, and its module."""

    name: str
    fingerprint: str
    module: ModuleType

    def offers(self, kind: Kind) -> Mapping[str, Any]:
        """Its dictionary of this kind; empty where it has none.

        Raises:
            ConfigError: it is no dictionary by name.
        """
        found = getattr(self.module, kind, {})
        if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
            raise ConfigError(f"plugin {self.name}: {kind}: expected a dictionary by name")
        return found


def name_plugins(files: Sequence[str]) -> None:
    """From now on these count as well, here and in the processes that are started.

    Raises:
        ConfigError: no such Python file.
    """
    known = _named()
    for file in files:
        path = Path(file)
        if path.suffix != ".py" or not path.is_file():
            raise ConfigError(
                f"plugins: {file}: no such Python file (relative paths are from the working "
                f"directory, here {Path.cwd()}); installed packages need not be named"
            )
        if str(path.resolve()) not in known:
            known.append(str(path.resolve()))
    if known:
        os.environ[VARIABLE] = _BETWEEN.join(known)


def find_plugged(kind: Kind, name: str, expected: type[T], own: Mapping[str, Any]) -> T | None:
    """What a plugin offers under a name; None where `own` or none has it.

    Args:
        kind: of what.
        name: as a config has it.
        expected: what it has to be an instance of.
        own: what ships with prism_tune, which a plugin cannot replace.

    Raises:
        ConfigError: a plugin that cannot be loaded, offers something else under that name, or a
            name that is taken.
    """
    plugin = _find(kind, name, own)
    if plugin is None:
        return None
    found = plugin.offers(kind)[name]
    if not isinstance(found, expected):
        raise ConfigError(
            f"plugin {plugin.name}: {kind}[{name!r}] is a {type(found).__name__}, expected a "
            f"{expected.__name__} (docs/plugins.md shows one)"
        )
    return found


def describe_plugin(kind: Kind, name: str) -> dict[str, str]:
    """What a result depends on where `name` is a plugin's: its file or package; empty where not."""
    plugin = _find(kind, name, {})
    if plugin is None:
        return {}
    return {f"{_SINGULAR[kind]}'s plugin": f"{Path(plugin.name).name} {plugin.fingerprint}"}


def list_plugged(kind: Kind) -> list[str]:
    """Every name that plugins offer."""
    plugins = [*_load_named(), *_load_installed()]
    return sorted({name for plugin in plugins for name in plugin.offers(kind)})


def blame_plugin(error: BaseException) -> str | None:
    """The plugin's file and line that an error came through, and what was raised; None if none."""
    frames = traceback.extract_tb(error.__traceback__)
    through = [frame for frame in frames if frame.filename in _named()]
    if not through:
        return None
    return f"plugin {through[-1].filename}: {_locate(error, through[-1].filename)}"


def _find(kind: Kind, name: str, own: Mapping[str, Any]) -> Plugin | None:
    named = [plugin for plugin in _load_named() if name in plugin.offers(kind)]
    if (named and name in own) or len(named) > 1:
        other = "prism_tune itself" if name in own else f"plugin {named[1].name}"
        raise ConfigError(
            f"plugin {named[0].name}: {_SINGULAR[kind]} {name!r}: {other} has one of that name; "
            "call yours otherwise"
        )
    if named or name in own:
        return named[0] if named else None
    return next((plugin for plugin in _load_installed() if name in plugin.offers(kind)), None)


def _named() -> list[str]:
    return [path for path in os.environ.get(VARIABLE, "").split(_BETWEEN) if path]


def _load_named() -> list[Plugin]:
    return [_load_file(path, _hash_file(path)) for path in _named()]


def _hash_file(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"plugin {path}: cannot be read: {error.strerror}") from error


@cache
def _load_file(path: str, checksum: str) -> Plugin:
    """The file as a module; a file that changes is another one."""
    name = f"prism_tune_plugin_{Path(path).stem}_{checksum[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"plugin {path}: {_locate(error, path)}") from error
    plugin = Plugin(path, checksum, module)
    kinds = {kind: ", ".join(plugin.offers(kind)) for kind in _SINGULAR if plugin.offers(kind)}
    if not kinds:
        expected = ", ".join(_SINGULAR)
        raise ConfigError(f"plugin {path}: has none of {expected}: nothing to add")
    for kind, names in kinds.items():
        logger.info("plugin %s: %s %s", path, _SINGULAR[kind], names)
    return plugin


@cache
def _load_installed() -> tuple[Plugin, ...]:
    """The plugins of installed packages; one that cannot be loaded is said and left out."""
    loaded = (_load_entry(entry) for entry in entry_points(group=GROUP))
    return tuple(plugin for plugin in loaded if plugin is not None)


def _load_entry(entry: EntryPoint) -> Plugin | None:
    try:
        module = entry.load()
    except Exception as error:  # noqa: BLE001 - somebody's code may raise anything
        logger.warning("plugin %s (%s): %s", entry.name, entry.value, _locate(error, ""))
        return None
    version = entry.dist.version if entry.dist else ""
    return Plugin(entry.name, f"{entry.value} {version}", module)


def _locate(error: BaseException, path: str) -> str:
    """What it raised, and in which of its lines."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    line = f"line {lines[-1]}: " if lines else ""
    return f"{line}{type(error).__name__}: {error}"

"""What values of a config become when it is read: paths at home, numbers that JSON has not."""

from __future__ import annotations

import os
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator


def expand_home(given: str) -> str:
    """A leading `~` or `~user` as a shell reads it; a user that there is not stays as given."""
    return os.path.expanduser(given)


LocalPath = Annotated[str, AfterValidator(expand_home)]
"""The path of a file or folder, or what may be one: a hub id and `preset:NAME` stay as they are."""


def read_options(given: Any) -> Any:
    """A scorer's options; two of them are paths, in our scorers and by custom in others."""
    options = spell_infinity(given or {})
    if isinstance(options, dict):
        paths = {key: options[key] for key in ("path", "model") if key in options}
        home = {key: expand_home(path) for key, path in paths.items() if isinstance(path, str)}
        options = {**options, **home}
    return options


def spell_infinity(given: Any) -> Any:
    """`.inf` as the word `inf`, at any depth: JSON (manifests, fingerprints) has no such number."""
    if isinstance(given, dict):
        return {key: spell_infinity(value) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [spell_infinity(value) for value in given]
    return str(given) if isinstance(given, float) and not isfinite(given) else given

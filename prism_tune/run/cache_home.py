"""Where caches are kept. The doctor asks, so nothing that may be missing is imported here."""

from __future__ import annotations

import os
from pathlib import Path

from prism_tune.errors import UserError


def cache_home() -> Path:
    """The folder of all caches: `$PRISM_TUNE_CACHE`, by default ~/.cache/prism_tune.

    Raises:
        UserError: neither is known, as in a container whose user has no home.
    """
    named = os.environ.get("PRISM_TUNE_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "prism_tune"
    except RuntimeError as error:  # no HOME, and no entry of the user in /etc/passwd
        raise UserError(
            "the user has no home directory to keep the cache in: set PRISM_TUNE_CACHE to a folder "
            "for it, or HOME"
        ) from error

"""A model that is not here: the hub is asked for it, once, before anything waits for it.

transformers tries again for some twenty seconds where there is no network, and says nothing
meanwhile; most of those who wait have mistyped a directory.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError, first_line
from prism_tune.processes import is_main

logger = logging.getLogger(__name__)

_SECONDS = 5.0
_TRIES = 2
_SETTINGS = "config.json"


def check_model(config: ModelConfig) -> None:
    """Refuse what is clearly a path (a hub id has one slash at most) and is not there.

    Raises:
        UserError: no such directory, or it may be a hub id and the hub does not answer.
    """
    path = Path(config.path)
    is_path = path.is_absolute() or config.path.startswith((".", "~")) or len(path.parts) != 2
    if is_path and not path.exists():
        raise UserError(
            f"model.path: {config.path}: no such directory (a hub id would be OWNER/NAME)"
        )
    require_here_or_hub(config.path, config.revision, "model.path")


def describe_unreachable(config: ModelConfig) -> str:
    """What to say where a model is neither here nor found at the hub."""
    return (
        f"model.path: {config.path!r} is neither a directory with a HF checkpoint nor a hub id "
        "that can be reached; give the directory, or check the id, the revision, the network "
        "and HF_TOKEN"
    )


def require_here_or_hub(path: str, revision: str | None, setting: str = "") -> None:
    """Refuse what is no directory here, not in the hub's cache, and cannot be asked for.

    Args:
        path: a directory or hub id.
        revision: of the hub id.
        setting: where the path stands, as a message names it.

    Raises:
        UserError: the hub does not answer. What it answers is for the reader of the model to say.
    """
    if Path(path).exists():
        return
    reason = _ask_hub(path, revision, setting)
    if reason is not None:
        raise UserError(
            f"{_of(setting)}{path!r} is no directory here{_beside(path)}, and the hub cannot be "
            f"asked for a model of that name ({reason}); give the directory, or check the network"
        )


@functools.cache
def _ask_hub(path: str, revision: str | None, setting: str) -> str | None:
    """Why the hub does not answer; None where it does, or need not."""
    try:
        if constants.HF_HUB_OFFLINE or isinstance(
            try_to_load_from_cache(path, _SETTINGS, revision=revision), str
        ):
            return None
        url = hf_hub_url(path, _SETTINGS, revision=revision)
    except HFValidationError:
        return None
    if is_main():
        logger.info("%s%s is no directory here: asking %s", _of(setting), path, constants.ENDPOINT)
    reason = ""
    for _ in range(_TRIES):
        try:
            get_hf_file_metadata(url, timeout=_SECONDS)
        except HfHubHTTPError:  # it has answered
            return None
        except (HTTPError, OSError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
        else:
            return None
    return reason


def _of(setting: str) -> str:
    return f"{setting}: " if setting else ""


def _beside(path: str) -> str:
    """That its folder is one of here, so that it will not be a hub id."""
    folder = Path(path).parent
    return f" ({folder} is one, without it)" if folder.is_dir() else ""

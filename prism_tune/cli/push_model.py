"""A model directory on the hub, with the card that lies in it."""

from __future__ import annotations

import logging
from pathlib import Path

from prism_tune.errors import UserError, first_line

logger = logging.getLogger(__name__)


def push_model(folder: Path, repository: str, *, private: bool) -> None:
    """Send a directory to a model repository, which is made where there is none.

    Args:
        folder: what `export` wrote.
        repository: `owner/name`.
        private: of a repository that has to be made.

    Raises:
        UserError: no token, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    token = require_token(repository)
    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="prism_tune")
    except (HTTPError, HFValidationError, OSError) as error:
        reason = first_line(error).replace(token, "***")
        raise UserError(
            f"{repository}: the hub did not take the model ({type(error).__name__}: {reason}); "
            f"check the name, the network, and that the token may write. {folder} is written"
        ) from None
    logger.info("%s: the model and its card are on the hub", repository)


def require_token(repository: str) -> str:
    """The token that writes there; asked for before anything long begins.

    Raises:
        UserError: none.
    """
    import huggingface_hub

    token = huggingface_hub.get_token()
    if token is None:
        raise UserError(
            f"{repository}: no token for the hub; `hf auth login` keeps one, or set HF_TOKEN to "
            "one that may write"
        )
    return str(token)

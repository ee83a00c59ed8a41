"""Adapter directories: which base model one belongs to, and that it is this one.

`adapter_config.json` names the base as peft does, `provenance.json` knows its fingerprint besides.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_model
from prism_tune.run.folder import read_json, read_object, write_json

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
PROVENANCE_NAME = "provenance.json"


def name_base(config: ModelConfig) -> ModelConfig:
    """The model to load weights and processor of: where `model.path` is an adapter, its base.

    An adapter directory names its base in `adapter_config.json`; everything else in the config
    (dtype, template) stays.

    Raises:
        UserError: the adapter names none, or a directory that is not there.
    """
    adapter = Path(config.path) / ADAPTER_CONFIG
    if not adapter.exists():
        return config
    settings = read_json(adapter)
    if not isinstance(settings, dict):
        raise UserError(f"{adapter}: expected an object; get the adapter again")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        found = repr(base) if base else "missing"
        raise UserError(
            f"{adapter}: base_model_name_or_path: {found}; expected the base model (--base-model "
            "when exporting)"
        )
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise UserError(
            f"{adapter}: base_model_name_or_path: no such directory {base}; set it to where the "
            "base model lies now (--base-model when exporting)"
        )
    return config.model_copy(update={"path": base, "revision": settings.get("revision")})


def describe_base(config: ModelConfig) -> dict[str, Any]:
    """What `provenance.json` keeps of the model that training began with.

    Returns:
        path (absolute, or a hub id), revision and fingerprint.
    """
    local = Path(config.path)
    return {
        "path": str(local.resolve()) if local.is_dir() else config.path,
        "revision": config.revision,
        "fingerprint": fingerprint_model(config.path, config.revision),
    }


def point_to_base(adapter: Path, base: dict[str, Any]) -> None:
    """Let an adapter that peft has just written name its base so that it is found from anywhere.

    Args:
        adapter: its directory.
        base: `describe_base` of the model it was trained on.
    """
    path = adapter / ADAPTER_CONFIG
    named = {"base_model_name_or_path": base["path"], "revision": base["revision"]}
    write_json(path, {**read_object(path), **named})


def read_provenance(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's `provenance.json` says; nothing where there is none.

    Raises:
        UserError: it is not such a file.
    """
    path = checkpoint / PROVENANCE_NAME
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object; delete it, or get the checkpoint again")
    return content


def require_base(adapter: Path, base: ModelConfig) -> None:
    """Check that a model is the one an adapter was trained on; over another it means nothing.

    Adapters of other tools do not say which that was. A directory and a hub id cannot be compared.

    Raises:
        UserError: it is another, whatever its name.
    """
    trained_on = read_provenance(adapter).get("base_model")
    if not isinstance(trained_on, dict) or not trained_on.keys() >= {"path", "fingerprint"}:
        return
    if not all(isinstance(trained_on[key], str) for key in ("path", "fingerprint")):
        raise UserError(
            f"{adapter / PROVENANCE_NAME}: base_model: expected path and fingerprint as texts; "
            "delete the file, or get the checkpoint again"
        )
    given = describe_base(base)
    comparable = Path(trained_on["path"]).is_absolute() == Path(base.path).is_dir()
    if not comparable:
        logger.warning(
            "%s was trained on %s; that %s is the same model is not checked",
            adapter,
            trained_on["path"],
            base.path,
        )
    elif given["fingerprint"] != trained_on["fingerprint"]:
        raise UserError(
            f"{adapter}: trained on {trained_on['path']} (fingerprint "
            f"{trained_on['fingerprint'][:12]}), but {given['path']} is another model (fingerprint "
            f"{given['fingerprint'][:12]}); give the model it was trained on: model.path in the "
            "config, --base-model when exporting"
        )

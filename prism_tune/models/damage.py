"""What is wrong with a model's files, where a library cannot read them: the file, and what to do.

An error of transformers, peft, safetensors or tokenizers goes in; a `UserError` that names the file
comes out. An interrupted download is the usual reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError, safe_open

from prism_tune.errors import UserError, first_line

# tokenizers raises `Exception` itself, so that both functions below have to catch that, and let go
# what is neither of these nor just that.
_RAISED = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ImportError),
    *(RuntimeError, AssertionError, SafetensorError, HFValidationError, StrictDataclassError),
    *(UnpicklingError, re.error),
)


@contextmanager
def explained(folder: Path | str, what: str, setting: str = "model.path") -> Iterator[None]:
    """Reading a model, or a part of it, by a library.

    Args:
        folder: the model, as the config names it.
        what: is read, for the message: "its weights".
        setting: of the config or command that names it; may be empty.

    Raises:
        UserError: it cannot be read.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if not isinstance(error, _RAISED) and type(error) is not Exception:
            raise
        raise UserError(_describe(Path(folder), what, setting, error)) from error


def require_parts(folder: Path) -> None:
    """A part that is null in config.json would be the library's default, of billions of weights.

    Raises:
        UserError: it is.
    """
    file = folder / "config.json"
    written = json.loads(file.read_bytes())
    for part in ("text_config", "vision_config"):
        if written.get(part, {}) is None:
            raise UserError(
                f"model.path: {file}: {part}: expected an object, found null: the file is not the "
                "model's; get it again"
            )


def require_converted(path: str, settings: dict[str, Any]) -> None:
    """Refuse the layout of the original LLaVA code, whose config names a tower and has none.

    Args:
        path: the model's, as the config names it.
        settings: its config.json.

    Raises:
        UserError: it is.
    """
    if "mm_vision_tower" in settings and "vision_config" not in settings:
        raise UserError(
            f"model.path: {path} is in the layout of the original LLaVA code (config.json has "
            "`mm_vision_tower`): get it as a folder, and name what `prism-tune export FOLDER --to "
            "NEW` makes of it"
        )


@contextmanager
def reraised_if_damaged(folder: Path | str, setting: str = "model.path") -> Iterator[None]:
    """The same where a file is to blame; what else is raised goes to whoever can explain it.

    Raises:
        UserError: a file of the model's is damaged.
        ValueError: a library's own kinds of errors, which it has no base for.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        damaged = find_damaged(Path(folder))
        if damaged:
            raise UserError(_describe(Path(folder), "", setting, error)) from error
        if isinstance(error, OSError | ValueError | ImportError):
            raise
        if not isinstance(error, _RAISED) and type(error) is not Exception:
            raise
        raise ValueError(f"{type(error).__name__}: {first_line(error)}") from error


def find_damaged(folder: Path) -> str:
    """The first file of a model that is cut short or no such file; empty where all can be read."""
    if not folder.is_dir():
        return ""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{path.name} is damaged or not whole ({first_line(error)})"
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            return f"{path.name} is damaged or not whole ({first_line(error)})"
        if not isinstance(content, dict):
            return f"{path.name} holds {type(content).__name__}, expected an object"
        if path.name.endswith(".index.json") and (fault := _find_fault(folder, content)):
            return f"{path.name} {fault}"
    return ""


def _find_fault(folder: Path, index: dict[str, Any]) -> str:
    """What an index of several weight files names and is not there; empty where all is."""
    weights = index.get("weight_map")
    if not isinstance(weights, dict):
        return "is damaged or not whole (no `weight_map`)"
    missing = sorted({str(name) for name in weights.values() if not (folder / str(name)).is_file()})
    return f"names {missing[0]}, which is not there" if missing else ""


def _describe(folder: Path, what: str, setting: str, error: Exception) -> str:
    said = first_line(error)
    if "attn_implementation" in said or "Attention" in said:
        return (
            f"model.attn_implementation: {said}; null leaves the choice to transformers, and "
            "`sdpa` and `eager` need no package"
        )
    where = f"{setting}: {folder}" if setting else str(folder)
    if "trust_remote_code" in str(error) or "custom code" in said:
        return (
            f"{where} needs code of its own; read it, and if you trust it: "
            "model.trust_remote_code=true (export: --trust-remote-code)"
        )
    if isinstance(error, ModuleNotFoundError):
        return f"{where}: {what} needs the package {error.name}: pip install {error.name}"
    if isinstance(error, UnpicklingError):
        return (
            f"{where}: {what} are pickled and hold more than tensors, or are damaged: they were "
            "not read, as they could run any code; ask for safetensors files"
        )
    damaged = find_damaged(folder)
    if damaged:
        return f"{where}: {damaged}; an interrupted download? get that file again"
    return (
        f"{where}: {what} cannot be read: {type(error).__name__}: {said}; get its files again, or "
        "name another model"
    )

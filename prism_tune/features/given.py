"""Numbers that somebody else has computed, in any of the forms people hold them.

In: arrays, memory maps, torch tensors, lists. Out: an array of floats, and its file.

Shape legend: N rows, D width.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_tune.errors import UserError

_BLOCK_ROWS = 4096


def as_floats(given: ArrayLike, what: str, num_dimensions: int = 2) -> NDArray[Any]:
    """Numbers in any form as an array of floats; arrays and memory maps of floats as they are.

    Args:
        given: an array, a memory map, a torch tensor, or (nested) lists.
        what: these are, for messages.
        num_dimensions: 2 of a matrix (N, D), 1 of a number a row (N,).

    Raises:
        UserError: no numbers, none at all, or of another shape.
    """
    values: Any = given
    if hasattr(values, "detach"):  # a torch tensor, of a type that numpy may not have
        values = values.detach().cpu()
        values = values.float().numpy() if values.element_size() < 4 else values.numpy()
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise UserError(f"{what}: not a table of numbers: {error}") from error
    if array.ndim != num_dimensions or 0 in array.shape or array.dtype.kind not in "fiub":
        expected = "rows and columns of numbers" if num_dimensions == 2 else "one number a row"
        raise UserError(
            f"{what}: expected {expected}, got the shape {array.shape} of {array.dtype}"
        )
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def keep_array(array: NDArray[Any], folder: Path) -> Path:
    """The .npy file of an array: the one that it maps whole, or a new one named by its content.

    A map that can be written to is copied: it may differ from its file by now, or soon.
    """
    mapped = getattr(array, "filename", None)
    if mapped is not None and getattr(array, "mode", None) == "r" and _is_stored(array, mapped):
        return Path(mapped)
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    for start in range(0, len(array), _BLOCK_ROWS):
        digest.update(array[start : start + _BLOCK_ROWS].tobytes())
    path = folder / f"{digest.hexdigest()}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}-{path.name}"
        np.save(temporary, array)
        os.replace(temporary, path)
    return path


def _is_stored(array: NDArray[Any], file: str | Path) -> bool:
    """Whether a file is the .npy of just these numbers."""
    try:
        stored = np.lib.format.open_memmap(file, mode="r")
    except (ValueError, OSError):  # numbers without a header, or no file any more
        return False
    looks = [(one.shape, one.strides, one.dtype) for one in (stored, array)]
    return looks[0] == looks[1] and all(
        stored[start : start + _BLOCK_ROWS].tobytes()
        == array[start : start + _BLOCK_ROWS].tobytes()
        for start in range(0, len(array), _BLOCK_ROWS)
    )

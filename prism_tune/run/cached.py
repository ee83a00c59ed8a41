"""What is kept because it takes long to make, and is made again where it is not there.

A cache may be damaged, which is said, and may be somebody else's, to be read only.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import first_line
from prism_tune.run.folder import READ_ONLY, write_atomic

logger = logging.getLogger(__name__)


def cached_array(
    path: Path, compute: Callable[[], NDArray[Any]], length: int, dtype: str
) -> NDArray[Any]:
    """The array kept in an .npy file, computed first where there is none, or a damaged one.

    Args:
        path: the file.
        compute: the array, of shape (length,).
        length: of it.
        dtype: as numpy writes it, for example "int64".
    """
    if path.exists():
        try:
            kept = np.asarray(np.load(path))
            if kept.shape != (length,) or kept.dtype != np.dtype(dtype):
                raise ValueError(f"{kept.dtype} of shape {kept.shape}")
            return kept
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s: damaged (%s); it is computed again", path, first_line(error))
    values, buffer = compute(), io.BytesIO()
    np.save(buffer, values)
    with kept_if_writable(path):
        write_atomic(path, buffer.getvalue())
    return values


@contextmanager
def kept_if_writable(path: Path) -> Iterator[None]:
    """Keep within it what can be made again; in a folder that may only be read it is not kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        logger.warning(
            "%s: cannot be kept (%s): it is made again the next time; PRISM_TUNE_CACHE names "
            "another cache",
            path,
            error.strerror,
        )

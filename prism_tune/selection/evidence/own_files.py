"""Files of one's own features and scores, as rows and whose they are.

A matrix (.npy, .safetensors, .parquet) or a column of scores (.npy, .parquet, .csv) goes in; rows
come out, of an .npy or a .safetensors file block by block.

Shape legend: U rows, D width of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from prism_tune.errors import UserError, list_some
from prism_tune.features.row_blocks import RowBlocks

_NAMES = ("uid", "id")


@dataclass(frozen=True)
class OwnRows:
    """Rows of one's own, and whose they are.

    Attributes:
        values_UD: the rows.
        names: the uid or id of each; None: row n is record n of the pool's file.
        by: which of the two these are.
        where: their file or their name, for messages.
    """

    values_UD: RowBlocks
    names: Sequence[str] | None = None
    by: str = "id"
    where: str = "features"


def read_matrix(path: Path) -> OwnRows:
    """Features in a file: an array of two dimensions, or a column of lists beside `uid` or `id`.

    An .npy file and a .safetensors file are read block by block, never whole.

    Raises:
        UserError: no such file, of another kind, or not a matrix of floating-point numbers.
    """
    names: list[str] | None = None
    by, suffix = "row", path.suffix.lower()
    values_UD: RowBlocks
    if suffix == ".npy":
        values_UD = _open_array(path)
    elif suffix == ".safetensors":
        values_UD = _open_tensor(path)
    elif suffix == ".parquet":
        table = _read_table(path)
        names, by = _read_names(path, table)
        values_UD = _stack_lists(path, table)
    else:
        raise UserError(f"{path}: expected features in an .npy, .safetensors or .parquet file")
    check_matrix(values_UD, str(path))
    return OwnRows(values_UD, names, by, str(path))


def check_matrix(values_UD: RowBlocks, where: str) -> None:
    """Refuse what is no feature matrix.

    Raises:
        UserError: not two dimensions, no width, or not floating-point numbers.
    """
    shape, dtype = tuple(values_UD.shape), np.dtype(values_UD.dtype)
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{where}: expected a matrix (records, width), got shape {shape}")
    if not np.issubdtype(dtype, np.floating):
        raise UserError(f"{where}: expected floating-point numbers, got {dtype}")


def read_scores(path: Path, column: str | None) -> OwnRows:
    """Scores in a file, (U, 1): an array of one dimension, or a column of numbers of a table.

    Args:
        path: .npy, .parquet or .csv.
        column: its name; None: `score`, or the only column of numbers.

    Raises:
        UserError: no such file or column, or not numbers.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = _open_array(path)
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.number):
            raise UserError(
                f"{path}: expected one number a record, got {values.dtype} of shape {values.shape}"
            )
        return OwnRows(np.asarray(values, np.float64)[:, None], None, "row", str(path))
    if suffix not in (".parquet", ".csv"):
        raise UserError(f"{path}: expected scores in an .npy, .parquet or .csv file")
    table = _read_table(path)
    name = _choose_column(path, table, column)
    try:
        values = _column(path, table, name).cast(pa.float64()).fill_null(np.nan).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: column {name!r}: not numbers: {error}") from error
    names, by = _read_names(path, table)
    return OwnRows(values[:, None], names, by, str(path))


def _open_array(path: Path) -> NDArray[Any]:
    try:
        loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an array of numbers: {error}") from error
    return loaded


class _TensorRows:
    """A tensor of a safetensors file as rows read block by block; bfloat16 becomes float32."""

    def __init__(self, path: Path, name: str) -> None:
        # torch, because numpy has no bfloat16
        self._slice = safe_open(path, framework="pt").get_slice(name)
        self.shape = tuple(int(side) for side in self._slice.get_shape())
        kinds = {"F64": np.float64, "F16": np.float16, "F32": np.float32, "BF16": np.float32}
        self.dtype = np.dtype(kinds.get(self._slice.get_dtype(), np.int64))

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        values: NDArray[Any] = self._slice[rows].to(_torch_dtype(self.dtype)).numpy()
        return values


def _torch_dtype(dtype: np.dtype[Any]) -> Any:
    import torch

    return getattr(torch, dtype.name)


def _open_tensor(path: Path) -> _TensorRows:
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from error
    if len(names) > 1 and "features" not in names:
        raise UserError(
            f"{path}: tensors {list_some(names)}; expected one, or one that is called `features`"
        )
    if not names:
        raise UserError(f"{path}: no tensor in it")
    return _TensorRows(path, "features" if "features" in names else names[0])


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path)
        import pyarrow.csv as pa_csv  # takes a while, and few have such a file

        as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(_NAMES, pa.string()))
        return pa_csv.read_csv(path, convert_options=as_text)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read as a table: {error}") from error


def _read_names(path: Path, table: pa.Table) -> tuple[list[str] | None, str]:
    for name in _NAMES:
        if name in table.column_names:
            return [str(value) for value in _column(path, table, name).to_pylist()], name
    return None, "row"


def _column(path: Path, table: pa.Table, name: str) -> Any:
    """The column of a name. Raises UserError where there are several."""
    if table.column_names.count(name) > 1:
        raise UserError(f"{path}: {table.column_names.count(name)} columns are called {name!r}")
    return table[name]


def _choose_column(path: Path, table: pa.Table, column: str | None) -> str:
    numbers = [
        field.name
        for field in table.schema
        if field.name not in _NAMES
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]
    asked = column or ("score" if "score" in table.column_names else None)
    if asked is None and len(numbers) == 1:
        asked = numbers[0]
    if asked is None or asked not in table.column_names:
        raise UserError(
            f"{path}: no column {asked or 'score'!r}; it has {', '.join(table.column_names)}; "
            "name the one of the scores with selection.options.column"
        )
    return asked


def _stack_lists(path: Path, table: pa.Table) -> NDArray[Any]:
    """The one column of lists of numbers as a matrix."""
    lists = [
        field.name
        for field in table.schema
        if pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
        or pa.types.is_fixed_size_list(field.type)
    ]
    name = "features" if "features" in lists else lists[0] if len(lists) == 1 else None
    if name is None:
        raise UserError(
            f"{path}: columns {', '.join(table.column_names)}; expected one of lists of numbers, "
            "or one that is called `features`"
        )
    # Piece by piece: Arrow joins no more than 2^31 numbers, which 524,288 rows of 4,096 are.
    column = _column(path, table, name)
    widths = {width for piece in column.chunks for width in np.unique(np.diff(_ends(piece)))}
    if len(widths) > 1 or column.null_count:
        raise UserError(f"{path}: column {name!r}: expected lists of one length, none of them null")
    width = int(next(iter(widths), 0))
    pieces: list[NDArray[Any]] = [
        piece.flatten().to_numpy(zero_copy_only=False).reshape(len(piece), width)
        for piece in column.chunks
    ]
    return np.concatenate(pieces) if pieces else np.empty((0, width))


def _ends(column: Any) -> NDArray[np.int64]:
    if pa.types.is_fixed_size_list(column.type):
        return np.arange(len(column) + 1) * column.type.list_size
    return np.asarray(column.offsets.to_numpy())

"""Encoded units on their way from the processes that make them: several in one buffer.

A dataset goes in; its units come out, in order. Every tensor that passes between processes takes a
file descriptor and a connection, half a millisecond; a small unit is made in two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from prism_tune.run.worker_processes import as_it_is, end_unheard_workers, fit_workers
from prism_tune.selection.evidence.encoding import Encoded

_UNITS = 4
_PREFETCHED = 2  # parcels per worker
_UNIT_BYTES = 4 << 20
"""Of a unit's tensors, about: an image in three tiles of 336 x 336 pixels."""
_LARGE_BYTES = 1 << 18
"""From here on a parcel goes through shared memory; a smaller one through the pipe itself."""
_ALIGNED_BYTES = 8


@dataclass(frozen=True)
class _Outline:
    """A unit without its tensors: `shapes` are of its inputs, `pooled_L` and `instruction_L`."""

    names: tuple[str, ...]
    shapes: tuple[tuple[torch.dtype, tuple[int, ...]], ...]
    has_instruction: bool
    num_images: int
    fault: tuple[str, str] | None


@dataclass(frozen=True)
class Parcel:
    """Units, their tensors one behind the other in `content`."""

    outlines: list[_Outline]
    content: torch.Tensor | NDArray[np.uint8]


def load_units(
    dataset: Dataset[Encoded], num_units: int, num_workers: int, dtype: torch.dtype
) -> Iterator[Encoded]:
    """Encoded units in order, prepared by `num_workers` processes (0: in this one).

    Args:
        dataset: the units.
        num_units: how many.
        num_workers: how many processes.
        dtype: of the image inputs; half the bytes pass between the processes in half precision.
    """
    num_workers = fit_workers(num_workers, _UNITS * _UNIT_BYTES, prefetch=_PREFETCHED)
    if num_workers == 0:
        return (_cast_images(dataset[number], dtype) for number in range(num_units))
    parcels = DataLoader(
        _Parcels(dataset, num_units, dtype),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=as_it_is,
        prefetch_factor=_PREFETCHED,
    )
    # Started now: workers end with the thread that has started them, and others may ask for units.
    return _unpack_all(iter(end_unheard_workers(parcels)))


def _unpack_all(parcels: Iterator[Parcel]) -> Iterator[Encoded]:
    for parcel in parcels:
        yield from unpack(parcel)


class _Parcels(Dataset[Parcel]):
    """The units of a dataset, some at a time."""

    def __init__(self, dataset: Dataset[Encoded], num_units: int, dtype: torch.dtype) -> None:
        self._dataset = dataset
        self._num_units = num_units
        self._dtype = dtype

    def __len__(self) -> int:
        return -(-self._num_units // _UNITS)

    def __getitem__(self, number: int) -> Parcel:
        numbers = range(number * _UNITS, min(self._num_units, (number + 1) * _UNITS))
        return pack([_cast_images(self._dataset[n], self._dtype) for n in numbers])


def pack(units: Sequence[Encoded]) -> Parcel:
    """Put the tensors of units into one buffer."""
    outlines: list[_Outline] = []
    tensors: list[torch.Tensor] = []
    for unit in units:
        of_unit = [*unit.inputs.values(), unit.pooled_L]
        if unit.instruction_L is not None:
            of_unit.append(unit.instruction_L)
        outlines.append(
            _Outline(
                tuple(unit.inputs),
                tuple((tensor.dtype, tuple(tensor.shape)) for tensor in of_unit),
                unit.instruction_L is not None,
                unit.num_images,
                unit.fault,
            )
        )
        tensors += of_unit
    content = torch.zeros(sum(_room(tensor.nbytes) for tensor in tensors), dtype=torch.uint8)
    start = 0
    for tensor in tensors:
        content[start : start + tensor.nbytes] = tensor.reshape(-1).view(torch.uint8)
        start += _room(tensor.nbytes)
    return Parcel(outlines, content if content.nbytes >= _LARGE_BYTES else content.numpy())


def unpack(parcel: Parcel) -> Iterator[Encoded]:
    """The units, whose tensors are views of the buffer."""
    content = torch.as_tensor(parcel.content)
    start = 0
    for outline in parcel.outlines:
        tensors = []
        for dtype, shape in outline.shapes:
            num_bytes = math.prod(shape) * dtype.itemsize
            tensors.append(content[start : start + num_bytes].view(dtype).view(shape))
            start += _room(num_bytes)
        instruction_L = tensors.pop() if outline.has_instruction else None
        pooled_L = tensors.pop()
        inputs = dict(zip(outline.names, tensors, strict=True))
        yield Encoded(inputs, pooled_L, outline.num_images, outline.fault, instruction_L)


def _room(num_bytes: int) -> int:
    """So that the next tensor begins where any kind may."""
    return num_bytes + -num_bytes % _ALIGNED_BYTES


def _cast_images(unit: Encoded, dtype: torch.dtype) -> Encoded:
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in unit.inputs.items()}
    return replace(unit, inputs=cast)

"""What is computed once: the distinct (images, prompt) of a pool.

The pool and its image hashes go in; units, and the unit of each record, come out. With prefix
prompts a unit is normally one distinct image, however many records and file names share it.

Shape legend: N records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.data.image_index import ImageIndex
from prism_tune.data.records import Pool
from prism_tune.schema import Skipped


@dataclass(frozen=True)
class Units:
    """`records[u]` is the first record of the unit with key `keys[u]`; keys are sorted.

    `unit_N` is each record's unit, -1 for text-only and for skipped records.
    """

    keys: list[str]
    records: list[int]
    unit_N: NDArray[np.int64]
    skipped: tuple[Skipped, ...]


def find_units(
    pool: Pool,
    digests_N: NDArray[np.bytes_],
    images: ImageIndex,
    left_out: Mapping[int, Skipped],
) -> Units:
    """Group the image records by the content of their images and their prompt.

    Args:
        pool: the records.
        digests_N: hashes of their prompts.
        images: hashes of their images.
        left_out: by index, the records that are skipped already, with reasons.
    """
    hashes_of, skipped = usable_images(pool, images, left_out)
    keys = {index: _key(hashes, digests_N[index]) for index, hashes in hashes_of.items()}
    first: dict[str, int] = {}
    for index, key in keys.items():
        first.setdefault(key, index)
    ordered = sorted(first)
    place = {key: number for number, key in enumerate(ordered)}
    unit_N = np.full(len(pool), -1, dtype=np.int64)
    for index, key in keys.items():
        unit_N[index] = place[key]
    return Units(ordered, [first[key] for key in ordered], unit_N, skipped)


def usable_images(
    pool: Pool, images: ImageIndex, left_out: Mapping[int, Skipped]
) -> tuple[dict[int, list[str]], tuple[Skipped, ...]]:
    """The hashes of the images of each image record whose images are there; and the others.

    Args:
        pool: the records.
        images: hashes of their images.
        left_out: by index, the records that are skipped already, with reasons.
    """
    usable: dict[int, list[str]] = {}
    skipped = list(left_out.values())
    for index in np.flatnonzero(~pool.is_text_only_N).tolist():
        if index in left_out:
            continue
        names = pool.images(index)
        bad = next((name for name in names if name in images.faults), None)
        if bad is None:
            usable[index] = [images.hashes[name] for name in names]
        else:
            skipped.append(skip_record(pool, index, *images.faults[bad]))
    return usable, tuple(skipped)


def skip_failed(pool: Pool, units: Units, failed: Mapping[str, Sequence[str]]) -> Units:
    """Take out the records whose unit (by key) turned out unusable: (reason, detail)."""
    if not failed:
        return units
    bad = {number: failed[key] for number, key in enumerate(units.keys) if key in failed}
    unit_N = units.unit_N.copy()
    skipped = list(units.skipped)
    for index in np.flatnonzero(np.isin(unit_N, list(bad))).tolist():
        reason, detail = bad[int(unit_N[index])]
        skipped.append(skip_record(pool, index, reason, detail))
        unit_N[index] = -1
    return Units(units.keys, units.records, unit_N, tuple(skipped))


def skip_record(pool: Pool, index: int, reason: str, detail: str) -> Skipped:
    """The verdict for one record."""
    described = f"{pool.describe(index)}: {detail}"
    return Skipped(pool.uids[index], pool.ids[index], reason, described)


def _key(image_hashes: Sequence[str], digest: bytes) -> str:
    content = " ".join(image_hashes).encode() + b"|" + digest
    return hashlib.blake2b(content, digest_size=16).hexdigest()

"""LLaVA-665K, the paper's pool: how to know it, and what the paper published of its subset.

arXiv 2502.12119 and its released subset: 250,557 of 665,298 records kept; of VG, VQAv2 and OCR-VQA
exactly a third each. The counts of the other sources are not at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

NUM_RECORDS = 665_298
NUM_KEPT = 250_557
_THIRDS = {"vg", "visualgenome", "vqav2", "ocrvqa"}
_FOLDERS = {"coco", "gqa", "ocrvqa", "textvqa", "vg"}
_TOLERANCE = 0.02  # of the records may be missing: OCR-VQA images are often unavailable


def is_llava_665k(num_records: int, sources: Sequence[str]) -> bool:
    """Whether a pool of so many records, from these sources, is (nearly) LLaVA-665K."""
    close = abs(num_records - NUM_RECORDS) <= _TOLERANCE * NUM_RECORDS
    return close and len(_FOLDERS & {_plain(name) for name in sources}) >= 3


def published_share(source: str) -> float | None:
    """The share of the source that the paper's subset keeps; None where it is not known."""
    return 1 / 3 if _plain(source) in _THIRDS else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())

"""Data of preferences, as DPO and KTO are trained on: here the answer that is wanted is learnt.

A raw record goes in. One whose answer is marked as unwanted is refused; keys of the answers that
were rejected beside it come out, to be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prism_tune.data.layouts.columns import is_null
from prism_tune.data.policy import BadRecordError

_MARKS = frozenset({"label", "kto_tag", "kto_label"})
"""TRL's and ms-swift's, LLaMA-Factory's: whether an answer is wanted. Other labels are numbers."""

_REJECTED = frozenset(
    {"rejected", *(f"rejected_{what}" for what in ("response", "answer", "messages", "images"))}
)
_KNOWN = _MARKS | _REJECTED


def find_rejected(raw: Mapping[str, Any], read_keys: frozenset[str]) -> tuple[str, ...]:
    """The keys that hold answers which were rejected, and that nothing reads.

    Args:
        raw: the record.
        read_keys: those that are read.

    Raises:
        BadRecordError: the record's own answer is marked as unwanted.
    """
    if _KNOWN.isdisjoint(raw):
        return ()
    for key in sorted(_MARKS - read_keys):
        if raw.get(key) is False:
            raise BadRecordError(
                "no_label", f"`{key}` is false: an answer that is not wanted (KTO) is not learnt"
            )
    found = (key for key in raw if key in _REJECTED and key not in read_keys)
    return tuple(key for key in found if not is_null(raw[key]) and raw[key] not in ("", []))

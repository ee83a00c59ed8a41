"""Which records of a pool can be used: what audit, select and train agree on.

In: an opened pool, its config, and (for lengths) the model's processor. Out: the findings of each
record, and the verdict of `data.policy` on them.

Shape legend: N records of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.convert import cache_root
from prism_tune.data.dataset import TuningDataset, suspicious
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.policy import USABLE, decide, refuse_records
from prism_tune.data.records import Pool
from prism_tune.run.cached import cached_array
from prism_tune.run.fingerprints import fingerprint, fingerprint_processor
from prism_tune.schema import Skipped

_LENGTHS_VERSION = 3

Findings = dict[int, tuple[Skipped, ...]]
"""What was found in a record, by its index; records without findings are not in it."""


@dataclass(frozen=True)
class Verdict:
    """What the policy makes of a pool's findings: the first skipping reason of a record counts.

    `lengths_N`: tokens of each record before it is cut, image tokens included; 0 of the skipped
    ones. None where lengths were not looked at.
    """

    skipped: dict[int, Skipped]
    lengths_N: NDArray[np.int64] | None = None

    def usable(self, num_records: int) -> list[int]:
        """The indices of the other records."""
        return [index for index in range(num_records) if index not in self.skipped]


def screen_records(pool: Pool) -> Findings:
    """Duplicates, and everything wrong or odd about the images."""
    found_in = pool.image_index.findings
    found: dict[int, list[Skipped]] = {}
    for index in pool.unmarked:
        detail = "no <image> in the turns; its images are put before the first question"
        found.setdefault(index, []).append(_name(pool, index, "image_unmarked", detail))
    for index in pool.duplicates:
        found.setdefault(index, []).append(
            _name(pool, index, "duplicate", "the images and turns of an earlier record")
        )
    if found_in:
        for index in np.flatnonzero(~pool.is_text_only_N).tolist():
            for name in pool.images(index):
                for reason, detail in found_in.get(name, ()):
                    found.setdefault(index, []).append(_name(pool, index, reason, detail))
    return {index: tuple(items) for index, items in sorted(found.items())}


def screen_lengths(
    pool: Pool, indices: Sequence[int], config: Config, processor: Any
) -> tuple[NDArray[np.int64], Findings]:
    """Tokens of each record (before cutting), and which cannot be encoded or even be cut.

    Args:
        pool: the records.
        indices: those whose images are sound.
        config: the model and data sections are read.
        processor: the model's.

    Raises:
        UserError: records are over long, and the tokenizer gives no offsets to cut them by.
    """
    lengths = _cached_lengths(pool, indices, config, processor)
    limit = config.data.max_length
    long = [indices[number] for number in suspicious(lengths, limit)]
    if not long:
        return lengths, {}
    examples = TuningDataset(pool, long, processor, config.model.template, limit)
    bad = examples.find_unusable(range(len(long)))
    return lengths, {long[number]: (item,) for number, item in bad.items()}


def merge(*parts: Findings) -> Findings:
    """The findings of several screenings, record by record."""
    merged: Findings = {}
    for part in parts:
        for index, items in part.items():
            merged[index] = merged.get(index, ()) + items
    return dict(sorted(merged.items()))


def judge(pool: Pool, findings: Findings, policy: Mapping[str, str]) -> Verdict:
    """Apply `data.policy`.

    Raises:
        UserError: listing records with a reason whose policy is "fail".
    """
    refuse_records(str(pool.path), findings.values(), policy)
    skipped = {}
    for index, items in findings.items():
        chosen = [item for item in items if decide(item.reason, policy) == "skip"]
        if chosen:
            skipped[index] = chosen[0]
    return Verdict(skipped)


def screen_pool(pool: Pool, config: Config, processor: Any | None) -> Verdict:
    """Everything: duplicates, images and lengths, under the config's policy.

    Args:
        pool: the records.
        config: the model and data sections are read.
        processor: the model's; without one lengths are not looked at.

    Raises:
        UserError: listing records with a reason whose policy is "fail".
    """
    policy = config.data.policy
    findings = screen_records(pool)
    verdict = judge(pool, findings, policy)
    if processor is None:
        return verdict
    usable = verdict.usable(len(pool))
    lengths, too_long = screen_lengths(pool, usable, config, processor)
    verdict = judge(pool, merge(findings, too_long), policy)
    lengths_N = np.zeros(len(pool), dtype=np.int64)
    lengths_N[usable] = lengths
    lengths_N[list(verdict.skipped)] = 0
    return replace(verdict, lengths_N=lengths_N)


def is_settled(items: Sequence[Skipped], policy: Mapping[str, str]) -> bool:
    """Whether a record's findings leave nothing to read, or leave it out."""
    return any(item.reason not in USABLE or decide(item.reason, policy) == "skip" for item in items)


def _cached_lengths(
    pool: Pool, indices: Sequence[int], config: Config, processor: Any
) -> NDArray[np.int64]:
    """Tokenising 665K records takes minutes, so the lengths are kept beside the converted pool."""
    depends_on = [
        _LENGTHS_VERSION,
        pool.fingerprint,
        pool.image_index.fingerprint,
        np.asarray(indices, dtype=np.int64),
        fingerprint_processor(config.model.path, config.model.revision),
        config.model.template,
        config.model.image_aspect_ratio,
    ]
    return cached_array(
        cache_root() / f"lengths-{fingerprint(depends_on)[:16]}.npy",
        lambda: estimate_lengths(pool, indices, processor, config.model.template),
        len(indices),
        "int64",
    )


def _name(pool: Pool, index: int, reason: str, detail: str) -> Skipped:
    described = f"{pool.describe(index)}: {detail}"
    return Skipped(pool.uids[index], pool.ids[index], reason, described)

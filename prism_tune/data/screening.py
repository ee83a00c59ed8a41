"""Which records of a pool can be used: what audit, select and train agree on.

In: an opened pool, its config, and (for lengths) the model's processor. Out: the findings of each
record, and the verdict of `data.policy` on them; and the fingerprint of its images, the same on
every process.

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
from prism_tune.data.examination import read_state
from prism_tune.data.policy import USABLE, decide, refuse_records
from prism_tune.data.records import Pool
from prism_tune.processes import from_main, world_size
from prism_tune.run.cached import cached_array
from prism_tune.run.fingerprints import fingerprint, fingerprint_processor
from prism_tune.run.ranks import require_same
from prism_tune.schema import Skipped

_LENGTHS_VERSION = 3
_NUM_COMPARED = 64

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


def fingerprint_images(pool: Pool) -> str:
    """Stands for the content of every image, as the main process finds it.

    The others look at a few: a folder of a node's own lacks them. Outside a process group each
    process looks at all.

    Raises:
        SharedError: on the others, what the main process has met with; on all, files of another
            size.
    """
    if not _in_group():
        return pool.image_index.fingerprint
    found = from_main(lambda: pool.image_index.fingerprint)
    require_same({"records": pool.fingerprint, **_sizes_of_some(pool)})
    return found


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


def _in_group() -> bool:
    if world_size() == 1:
        return False
    import torch.distributed

    return bool(torch.distributed.is_initialized())


def _sizes_of_some(pool: Pool) -> dict[str, int | None]:
    """Of images from all over the pool; None of files that are not there."""
    sizes: dict[str, int | None] = {}
    for index in range(0, len(pool), -(-len(pool) // _NUM_COMPARED) or 1):
        for name in pool.images(index):
            state = read_state(pool.image_folders, name)
            sizes[f"size of image {name}"] = state and state[0]
    return sizes


def _name(pool: Pool, index: int, reason: str, detail: str) -> Skipped:
    described = f"{pool.describe(index)}: {detail}"
    return Skipped(pool.uids[index], pool.ids[index], reason, described)

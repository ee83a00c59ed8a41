"""The examples to train on: tokenised records, those that cannot be used left out and listed."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from transformers import ProcessorMixin

from prism_tune.config.sections import Config
from prism_tune.data.dataset import TuningDataset, check_label_share
from prism_tune.data.records import open_pool
from prism_tune.data.screening import screen_pool
from prism_tune.errors import UserError
from prism_tune.processes import from_main, is_main
from prism_tune.run.folder import RunDir
from prism_tune.training.inputs import training_data
from prism_tune.training.validation import hold_out

logger = logging.getLogger(__name__)

_NUM_CHECKED = 64


@dataclass(frozen=True)
class Examples:
    """What is trained on, what is held out to be measured by, and what `data.policy` left out.

    `skipped` is listed in `training/skipped.json`, with reasons.
    """

    trained: TuningDataset
    held_out: TuningDataset | None
    skipped: list[dict[str, Any]]


def build_examples(config: Config, run: RunDir, processor: ProcessorMixin) -> Examples:
    """Open the records and check them before any step is paid for.

    Raises:
        UserError: nothing to train on, unusable records whose policy is "fail", or label masks
            that show a template that does not fit.
    """
    pool = open_pool(training_data(config, run))
    if len(pool) == 0:
        raise UserError(f"{pool.path}: no records to train on")
    verdict = from_main(lambda: screen_pool(pool, config, processor))
    usable = verdict.usable(len(pool))
    if not usable:
        raise UserError(f"{pool.path}: all {len(pool)} records were skipped, nothing to train on")
    assert verdict.lengths_N is not None
    limit = config.data.max_length
    examples = TuningDataset(pool, usable, processor, config.model.template, limit)
    examples.lengths_N = verdict.lengths_N[usable]
    trained, held_out = hold_out(examples, config.training.validation)
    stride = max(1, len(examples) // _NUM_CHECKED)
    share = check_label_share([examples[n] for n in range(0, len(examples), stride)])
    listed = [asdict(item) for item in (*pool.skipped, *verdict.skipped.values())]
    if is_main():
        num_cut = int((examples.lengths_N > limit).sum())
        if num_cut:
            logger.info("%d records are longer than %d tokens: cut", num_cut, limit)
        reasons = dict(Counter(item["reason"] for item in listed))
        logger.info(
            "training: %d records%s%s, %.1f %% of their tokens are prompt",
            len(trained),
            f", {len(held_out)} held out" if held_out is not None else "",
            f", skipped {reasons}" if reasons else "",
            100 * share,
        )
    return Examples(trained, held_out, listed)

"""Whether image-token states are the same whatever follows the image: measured, not assumed.

A few records go in; True comes out when the prefix prompt gives the features of the whole prompt.
Two measurements: (1) two prompts of one length that differ only *after* the last image token must
give equal features to rounding (causal attention; sharp, because equal shapes run equal kernels);
(2) prefix and whole prompt must agree within the precision of the dtype (positions, padding).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import torch

from prism_tune.config.sections import Template
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import Pool
from prism_tune.selection.evidence.encoding import Encoded, encode
from prism_tune.selection.evidence.prompts import PromptKind, build_prompt
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.shallow import Extractor

logger = logging.getLogger(__name__)

NUM_CHECKED = 4
_COMPARED: tuple[PromptKind, ...] = ("prefix", "whole")
_SAME_SHAPE_TOLERANCE = 1e-5
_PREFIX_TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def prefix_is_exact(
    extractor: Extractor, pool: Pool, records: Sequence[int], template: Template, processor: Any
) -> bool:
    """Compare prefix and whole prompts on the first usable of `records`; logs the differences."""
    suffix, prefix, num_checked = 0.0, 0.0, 0
    for index in records:
        if num_checked == NUM_CHECKED:
            break
        try:
            images = [open_image(path) for path in pool.image_paths(index)]
            short, whole = (
                encode(build_prompt(pool[index], kind, template, processor), images, processor)
                for kind in _COMPARED
            )
        except (BadRecordError, ImageError):
            continue
        expected = extractor.run_batch([whole])
        suffix = max(suffix, _difference(expected, extractor.run_batch([_turn_suffix(whole)])))
        prefix = max(prefix, _difference(expected, extractor.run_batch([short])))
        num_checked += 1
    exact = suffix <= _SAME_SHAPE_TOLERANCE and prefix <= _PREFIX_TOLERANCE[extractor.dtype]
    logger.info(
        "prefix check on %d records: relative difference %.1e with other text after the image, "
        "%.1e between prefix and whole prompt: %s",
        num_checked,
        suffix,
        prefix,
        "the prefix is enough"
        if exact
        else "this model sees text behind the image, so whole prompts are run for every record",
    )
    return exact


def _difference(ones: Rows, others: Rows) -> float:
    return max(
        float((one - other).norm() / one.norm().clamp_min(1e-30))
        for one, other in zip(ones, others, strict=True)
    )


def _turn_suffix(whole: Encoded) -> Encoded:
    """The same prompt with the tokens after the last image token in reverse order."""
    end = int(whole.pooled_L.nonzero().max()) + 1
    ids_L = whole.inputs["input_ids"]
    turned_L = torch.cat([ids_L[:end], ids_L[end:].flip(0)])
    return dataclasses.replace(whole, inputs={**whole.inputs, "input_ids": turned_L})

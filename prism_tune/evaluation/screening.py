"""Which questions cannot be asked, because an image of theirs cannot be used.

In: plans, and `data.policy`. Out: the same plans with the questions that the policy skips. Every
image is decoded once, before a model is loaded. A skipped question stays in the benchmark: it
counts as answered wrongly, and the result names it with its reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prism_tune.config.sections import DataConfig
from prism_tune.data.image_index import index_images
from prism_tune.data.images import Finding
from prism_tune.data.policy import apply_policy
from prism_tune.errors import UserError
from prism_tune.evaluation.images import extract_images, is_embedded, locate_images
from prism_tune.evaluation.plan import IMAGE_FAULTS, Plan
from prism_tune.schema import Skipped

logger = logging.getLogger(__name__)


def screen_questions(plan: Plan, config: DataConfig) -> Mapping[int, Skipped]:
    """The questions to leave out, by their place; embedded images are written out on the way.

    Main process only.

    Raises:
        UserError: listing questions with a fault whose policy is "fail", or no question is left.
    """
    faults = _find_faults(plan, config.num_workers)
    skipped = {}
    for number, question in enumerate(plan.questions):
        fault = next((faults[image] for image in question.images if image in faults), None)
        if fault is not None:
            name = str(question.question_id)
            skipped[number] = Skipped(name, name, fault[0], f"question {name!r}: {fault[1]}")
    where = f"evaluation.data.{plan.benchmark.name}"
    apply_policy(where, list(skipped.values()), config.policy, noun="question")
    if skipped and len(skipped) == len(plan.questions):
        raise UserError(f"{where}: all {len(skipped)} questions were skipped, nothing to ask")
    for note in note_skipped(replace(plan, skipped=skipped)):
        logger.warning("%s: %s", plan.title, note)
    return skipped


def note_skipped(plan: Plan) -> list[str]:
    """What a result with skipped questions has to say about its numbers."""
    return [_count(plan)] if plan.skipped else []


def list_skipped(plan: Plan) -> dict[str, Any]:
    """Counts per reason, and every skipped question with its reason."""
    return {
        "num_skipped": dict(sorted(Counter(item.reason for item in plan.skipped.values()).items())),
        "skipped": [
            {"question_id": item.id, "reason": item.reason, "detail": item.detail}
            for item in plan.skipped.values()
        ],
    }


def _count(plan: Plan) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in list_skipped(plan)["num_skipped"].items())
    num_skipped, num_questions = len(plan.skipped), len(plan.questions)
    return f"{num_skipped} of {num_questions} question(s) skipped, counted as wrong: {reasons}"


def _find_faults(plan: Plan, num_workers: int) -> dict[str, Finding]:
    """What makes an image unusable, by its reference."""
    references = sorted({image for question in plan.questions for image in question.images})
    embedded = [reference for reference in references if is_embedded(reference)]
    faults = extract_images(embedded, plan.image_cache)
    sound = [reference for reference in embedded if reference not in faults]
    written = locate_images(sound, plan.image_dir, plan.image_cache)
    names = {reference: path.name for reference, path in written.items()}
    faults |= _inspect(plan.image_cache, names, num_workers)
    files = {reference: reference for reference in references if not is_embedded(reference)}
    return faults | _inspect(plan.image_dir, files, num_workers)


def _inspect(folder: Path, names: Mapping[str, str], num_workers: int) -> dict[str, Finding]:
    """The first unusable finding of each image; `names` maps references to files in `folder`."""
    index = index_images(folder, sorted(set(names.values())), num_workers=num_workers)
    unusable = {
        name: next((f for f in findings if f[0] in IMAGE_FAULTS), None)
        for name, findings in index.findings.items()
    }
    faults = {reference: unusable.get(name) for reference, name in names.items()}
    return {reference: fault for reference, fault in faults.items() if fault is not None}

"""The datasets inside LLaVA-1.5's mix (llava_v1_5_mix665k.json), whose records name none.

LLaVA-Instruct, VQAv2, OKVQA, A-OKVQA and RefCOCO all have images of `coco/`. They are told apart by
what LLaVA's authors put into their questions (arXiv 2310.03744, response-format prompts). VQAv2 and
OKVQA have the same: VQAv2 has three questions or more of every image, OKVQA 9,009 of 8,998 images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prism_tune.schema import IMAGE_PLACEHOLDER, Turn

_SHARED_FOLDER = "coco"
_REGION = re.compile(
    rf"(?:\s|{IMAGE_PLACEHOLDER})*Please provide "
    "(?:a short description for this region|the bounding box coordinate of the region)"
)
_LETTER = "Answer with the option's letter from the given choices directly."
_PHRASE = "Answer the question using a single word or phrase."
_MOST_OKVQA_QUESTIONS = 2


def name_dataset(folder: str, turns: Sequence[Turn]) -> str:
    """A record's dataset.

    Args:
        folder: the first one of its image's path, which names the dataset where it is not `coco`.
        turns: its turns; none where they could not be read, and then the folder stays its name.
    """
    if folder != _SHARED_FOLDER or not turns:
        return folder
    questions = [turn.text for turn in turns if turn.role == "human"]
    if any(map(_REGION.match, questions)):
        return "refcoco"
    joined = "\n".join(questions)  # no prompt goes over a line's end: one look, not one a question
    if _LETTER in joined:
        return "aokvqa"
    if _PHRASE in joined:
        return "okvqa" if len(questions) <= _MOST_OKVQA_QUESTIONS else "vqav2"
    return "llava"

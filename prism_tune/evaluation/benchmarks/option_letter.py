"""Which option an answer names: MMBench's rules, without a judge.

An answer and the options by letter in, a letter or None out. Sources: VLMEvalKit `can_infer` and
lmms-eval's older copy of it. What neither rule resolves goes to GPT there, and is wrong here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"
_TO_SPACE = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"(?i:answer\s+is)\s+\**\(?([A-Z])\b")
_NUM_LAST_TOKENS = 4
_LMMS_LETTERS = "ABCDE"
_LMMS_QUANTIFIER_TOKENS = 3
_LMMS_WRAPPINGS = (
    ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
    (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip


def find_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """VLMEvalKit's rule: one letter among the last four tokens, "answer is X", or an option's text.

    "A" may be an article, but the official guard against that only fires in verbose mode.
    """
    if _FAILED in answer or any(refusal in answer for refusal in _REFUSALS):
        return None
    tokens = answer.translate(_TO_SPACE).split()
    named = [letter for letter in options if letter in tokens]
    if len(named) == 1 and tokens.index(named[0]) >= len(tokens) - _NUM_LAST_TOKENS:
        return named[0]
    stated = _STATED.search(answer)
    if stated and stated[1] in options:
        return stated[1]
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    return find_option_text(answer, options)


def find_letter_lmms_eval(answer: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval's rule: a letter as token, a letter in punctuation, or an option's text."""
    if _FAILED in answer:
        return None
    tokens = answer.split()
    named = _named_letters(tokens, ("", ""))
    if len(named) == 1 and not ("A" in tokens and len(tokens) > _LMMS_QUANTIFIER_TOKENS):
        return named[0]
    for wrapping in _LMMS_WRAPPINGS:
        wrapped = _named_letters(tokens, wrapping)
        if len(wrapped) == 1:
            return wrapped[0]
    return find_option_text(answer, options)


def find_option_text(answer: str, options: Mapping[str, str]) -> str | None:
    """The only option whose text occurs in the answer, case apart."""
    lowered = answer.lower()
    return only(letter for letter, text in options.items() if text.lower() in lowered)


def only(candidates: Iterable[str]) -> str | None:
    """The candidate, if there is exactly one."""
    listed = list(candidates)
    return listed[0] if len(listed) == 1 else None


def _named_letters(tokens: Sequence[str], wrapping: tuple[str, str]) -> list[str]:
    before, after = wrapping
    return [letter for letter in _LMMS_LETTERS if f"{before}{letter}{after}" in tokens]

"""Which option an answer names: MMBench's rules, without a judge.

An answer and the options by letter in, a letter or None out. Sources: VLMEvalKit `can_infer`, and
lmms-eval's older copy of it with its `extract_mcq_answer` behind it (`mmbench_en_dev_static`). What
VLMEvalKit's rule does not resolve goes to GPT there, and is wrong here.
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
_LMMS_END_MARKS = (",", ".", "!", "?", ";", ":", "'", '"')
_LMMS_FORMS = ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} "))
_LMMS_PHRASES = (
    "the answer is", "answer is", "the correct answer is", "correct answer is",
    "the best answer is", "best answer is", "the correct option is", "correct option is",
    "the best option is", "best option is", "the choice is", "choice is", "the correct choice is",
    "correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
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
    """lmms-eval's rule: a letter as token or in punctuation, an option's text, or a mention."""
    answer = answer.strip()
    return _infer_lmms_eval(answer, options) or find_mention(answer, sorted(options))


def _infer_lmms_eval(answer: str, options: Mapping[str, str]) -> str | None:
    if _FAILED not in answer:
        tokens = answer.split()
        named = _named_letters(tokens, ("", ""))
        if len(named) == 1 and not ("A" in tokens and len(tokens) > _LMMS_QUANTIFIER_TOKENS):
            return named[0]
        for wrapping in _LMMS_WRAPPINGS:
            wrapped = _named_letters(tokens, wrapping)
            if len(wrapped) == 1:
                return wrapped[0]
    return find_option_text(answer, options)


def find_mention(answer: str, letters: Sequence[str]) -> str | None:
    """lmms-eval's `extract_mcq_answer`: the mention of a letter whose form ranks highest.

    Among equals the last in the text counts; None where no letter occurs at all.
    """
    text = answer.strip()
    for mark in _LMMS_END_MARKS:
        text = text.strip(mark)
    stripped, text = text.strip(), f" {text} "
    found: list[tuple[int, int, str]] = []
    for rank, form in _LMMS_FORMS:
        found += [(rank, text.rfind(form.format(x)), x) for x in letters if form.format(x) in text]
    lowered = text.lower()
    for phrase in _LMMS_PHRASES:
        start = lowered.find(phrase)
        behind = [(text.find(x, start + len(phrase)), x) for x in letters] if start >= 0 else []
        found += [(7, place, x) for place, x in behind if place >= 0]
    found += [(10, 0, x) for x in letters if stripped.startswith(x) and not stripped[1:2].isalpha()]
    found += [
        (9, len(text) - 1, x)
        for x in letters
        if stripped.endswith(x) and not _follows_word(stripped)
    ]
    if not found:
        found = [(0, text.rfind(x), x) for x in letters if x in text]
    best = max(found, key=lambda mention: mention[:2], default=None)
    return None if best is None else best[2]


def _follows_word(text: str) -> bool:
    """Whether the last character is the end of a word."""
    return text[-2:-1].isalpha()


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

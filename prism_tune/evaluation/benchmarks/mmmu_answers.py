"""Parsing and judging MMMU answers, by the rules of the benchmark's `eval_utils.py`.

A response in; a letter (multiple choice) or normalised strings and numbers (open) out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

DOMAINS = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": "Basic_Medical_Science Clinical_Medicine "
    "Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health",
    "Humanities and Social Science": "History Literature Sociology Psychology",
    "Tech and Engineering": "Agriculture Architecture_and_Engineering Computer_Science "
    "Electronics Energy_and_Power Materials Mechanical_Engineering",
}
SUBJECTS = tuple(sorted(" ".join(DOMAINS.values()).split()))
_END_MARKS = (",", ".", "!", "?", ";", ":", "'")
_MIN_TEXT_WORDS = 6
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)

Normalized = str | float


def parse_choice(response: str, options: Mapping[str, str]) -> str | None:
    """The official rule: the letter named last, else the option quoted last; None when neither.

    Letters in brackets go before bare ones; option texts count in responses of six or more words.
    """
    padded = _pad(response)
    bracketed = _last_found(options, padded, "({})".format)
    if bracketed:
        return bracketed
    return _last_found(options, padded, " {} ".format) or _last_quoted(options, padded)


def parse_choice_lmms_eval(response: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval's rule: "NASA " also names A (no leading space asked for), and so does "A.".

    Among several such letters it still looks for the last one between spaces, so that the first
    option wins where none stands alone.
    """
    padded = _pad(response.strip())
    bracketed = _last_found(options, padded, "({})".format)
    if bracketed:
        return bracketed
    for ending in (" ", "."):
        named = [letter for letter in options if f"{letter}{ending}" in padded]
        if named:
            return max(named, key=lambda letter: padded.rfind(f" {letter} "))
    return _last_quoted(options, padded)


def draw_choices(unparsed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What stands for answers without a letter: the official module's own draw.

    `eval_utils.py` seeds Python's generator with 42 when it is imported; from then on each answer
    without a letter takes the next `random.choice` of its letters, subject by subject in the
    alphabet's order, within a subject in the order of its file, which is that of the numbers.
    With a folder of the official layout this is what `main_parse_and_eval.py` draws.

    Args:
        unparsed: question id -> its letters, in any order.
    """
    generator = random.Random(42)
    return {key: generator.choice(list(unparsed[key])) for key in sorted(unparsed, key=_place)}


def find_subject(question_id: str) -> str:
    """`validation_Art_Theory_1` -> `Art_Theory`."""
    return "_".join(question_id.split("_")[1:-1])


def parse_open(response: str) -> list[Normalized]:
    """Candidates of an open answer: its key parts, and every number in them, normalised."""
    parts = _find_key_parts(response)
    numbers = [found for part in parts for pattern in _NUMBERS for found in pattern.findall(part)]
    candidates = [value for text in [*parts, *numbers] for value in normalize(text)]
    return list(dict.fromkeys(candidates))


def judge_open(candidates: Sequence[Normalized], gold: str | Sequence[str]) -> bool:
    """Whether a text contains a gold text, or a number equals a gold number."""
    answers = [gold] if isinstance(gold, str) else list(gold)
    normalized = [value for answer in answers for value in normalize(answer)]
    texts = [value for value in normalized if isinstance(value, str)]
    return any(
        any(text in candidate for text in texts)
        if isinstance(candidate, str)
        else candidate in normalized
        for candidate in candidates
    )


def normalize(text: str) -> list[Normalized]:
    """A number to two decimals; a text lower case, a single letter with a space on either side."""
    stripped = text.strip()
    try:
        return [round(float(stripped.replace(",", "")), 2)]
    except ValueError:
        lowered = stripped.lower()
        return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def _place(question_id: str) -> tuple[str, int, str]:
    number = question_id.rpartition("_")[2]
    return find_subject(question_id), int(number) if number.isdecimal() else 0, question_id


def _pad(response: str) -> str:
    for mark in _END_MARKS:
        response = response.strip(mark)
    return f" {response} "


def _last_found(options: Mapping[str, str], text: str, write: Callable[[str], str]) -> str | None:
    found = [letter for letter in options if write(letter) in text]
    return max(found, key=lambda letter: text.rfind(write(letter)), default=None)


def _last_quoted(options: Mapping[str, str], padded: str) -> str | None:
    if len(padded.split()) < _MIN_TEXT_WORDS:
        return None
    lowered = padded.lower()
    found = [letter for letter, option in options.items() if option.lower() in lowered]
    return max(found, key=lambda letter: lowered.rfind(options[letter].lower()), default=None)


def _find_key_parts(response: str) -> list[str]:
    whole = response.strip().strip(".").lower()
    lines = whole.split("\n")
    parts = []
    for number, line in enumerate(lines, 1):
        indicators = (*_INDICATORS, "=") if number == len(lines) else _INDICATORS
        tails = [line.split(mark)[-1].strip() for mark in indicators if mark in line]
        shortest = _pick_shortest(tails)
        if shortest and shortest not in _TRIVIAL:
            parts.append(shortest)
    return parts or [whole]


def _pick_shortest(tails: Sequence[str]) -> str:
    """The shortest tail, as the official loop picks it: an empty one is replaced by the next."""
    shortest = ""
    for tail in tails:
        if not shortest or len(tail) < len(shortest):
            shortest = tail
    return shortest

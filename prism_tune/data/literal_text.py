"""Names of control tokens in people's texts: they stay text, as a tokenizer writes other text.

A text goes in before it is rendered (`mark_literals`): each `</s>` or `<|image_pad|>` that somebody
wrote becomes a mark. After rendering the marks become a stand-in token (`write_out`), and behind
the tokenizer its ids become those of the text (`splice`): neither model nor processor ever takes
them for the template's own.

The stand-in is a control token like those it stands for, so that the text before and behind it is
tokenised as it would be there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from prism_tune.chat.templates import placeholders, special_tokens
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import IMAGE_PLACEHOLDER

# Characters that Unicode keeps for a program's own use: no text has them.
_MARK = re.compile("\ufdd0([^\ufdd1]*)\ufdd1")
_PLACEHOLDER_AS_TEXT = "\ufdd4"

Change = tuple[int, int, int]
"""[start, end) characters of a text, and how many stand there afterwards."""


@dataclass(frozen=True)
class WrittenOut:
    """A text for the tokenizer, without marks.

    Attributes:
        text: with the stand-in where marks were.
        changes: where they were.
        stand_in: its id; None where nothing was marked.
        literals: of the stand-ins of the text, by their number, those that stand for a text, and
            the ids of that.
        num_stand_ins: in the text, the template's own included.
    """

    text: str
    changes: tuple[Change, ...] = ()
    stand_in: int | None = None
    literals: tuple[tuple[int, tuple[int, ...]], ...] = ()
    num_stand_ins: int = 0

    @property
    def num_more(self) -> int:
        """Tokens that `splice` adds."""
        return sum(len(ids) - 1 for _, ids in self.literals)


def mark_literals(text: str, processor: Any) -> str:
    """Mark the control tokens of a text, but for LLaVA's placeholder `<image>`."""
    if processor is None or getattr(processor, "tokenizer", None) is None:
        return text
    pattern = _control_pattern(special_tokens(processor))
    return IMAGE_PLACEHOLDER.join(
        pattern.sub("\ufdd0\\g<0>\ufdd1", piece) for piece in text.split(IMAGE_PLACEHOLDER)
    )


def hide_placeholders(text: str) -> str:
    """A text that has no placeholder of its own: each `<image>` in it is somebody's word.

    Until `show_placeholders`, nothing takes it for a picture's place.
    """
    return text.replace(IMAGE_PLACEHOLDER, _PLACEHOLDER_AS_TEXT)


def show_placeholders(rendered: str, processor: Any) -> str:
    """The hidden words again, marked where the tokenizer has a control token of that name."""
    tokenizer = getattr(processor, "tokenizer", None)
    is_control = tokenizer is not None and IMAGE_PLACEHOLDER in special_tokens(processor)
    word = f"\ufdd0{IMAGE_PLACEHOLDER}\ufdd1" if is_control else IMAGE_PLACEHOLDER
    return rendered.replace(_PLACEHOLDER_AS_TEXT, word)


def blank_marks(text: str) -> str:
    """The text at its length, without the names of control tokens that are marked as text."""
    return _MARK.sub(lambda found: "\ufdd0" * len(found[0]), text)


def write_out(text: str, processor: Any) -> WrittenOut:
    """Put the stand-in where marks are.

    Raises:
        BadRecordError: a marked token that the tokenizer cannot write as text.
    """
    if "\ufdd0" not in text:
        return WrittenOut(text)
    tokenizer = processor.tokenizer
    stand_in = _find_stand_in(processor)
    pieces: list[str] = []
    changes: list[Change] = []
    literals: list[tuple[int, tuple[int, ...]]] = []
    position = number = 0
    for found in _MARK.finditer(text):
        before = text[position : found.start()]
        number += before.count(stand_in)
        pieces += [before, stand_in]
        changes.append((found.start(), found.end(), len(stand_in)))
        literals.append((number, _encode_literal(found.group(1), processor)))
        number += 1
        position = found.end()
    pieces.append(text[position:])
    number += pieces[-1].count(stand_in)
    return WrittenOut(
        "".join(pieces),
        tuple(changes),
        int(tokenizer.convert_tokens_to_ids(stand_in)),
        tuple(literals),
        number,
    )


def splice(ids: Sequence[int], written: WrittenOut) -> list[tuple[int, int]]:
    """Token ids with the literals' own in place of their stand-ins.

    Returns:
        (place before, id) of each token: what else is known of the token at that place (label,
        mask) holds for each token that has taken its place.
    """
    places = [place for place, token in enumerate(ids) if token == written.stand_in]
    # What the tokenizer itself puts before a text may be the same token.
    places = places[len(places) - written.num_stand_ins :] if written.num_stand_ins else []
    replaced = {places[number]: of_literal for number, of_literal in written.literals}
    return [
        (place, new) for place, token in enumerate(ids) for new in replaced.get(place, (token,))
    ]


def move_spans(
    spans: Sequence[tuple[int, int]], changes: Sequence[Change]
) -> list[tuple[int, int]]:
    """Spans of a text to where they are after parts of it became longer or shorter."""

    def move(position: int) -> int:
        return position + sum(new - (end - start) for start, end, new in changes if end <= position)

    return [(move(start), move(end)) for start, end in spans]


@lru_cache(maxsize=8)
def _control_pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def _find_stand_in(processor: Any) -> str:
    """A control token that stands alone and is no placeholder: the end token, if it can be."""
    tokenizer = processor.tokenizer
    plain = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special
        and not (token.lstrip or token.rstrip or token.single_word)
        and token.content not in placeholders(processor)
        and token.content != tokenizer.unk_token
    ]
    if tokenizer.eos_token in plain:
        return str(tokenizer.eos_token)
    if not plain:
        raise BadRecordError(
            "special_token", "the tokenizer has no control token that could stand for one as text"
        )
    return str(plain[0])


def _encode_literal(literal: str, processor: Any) -> tuple[int, ...]:
    """The name of a control token as ordinary text."""
    tokenizer = processor.tokenizer
    control = set(tokenizer.convert_tokens_to_ids(list(special_tokens(processor))))
    control.discard(tokenizer.unk_token_id)
    whole = _encode_inside(literal, tokenizer, split_special_tokens=True)
    if control.isdisjoint(whole) and whole:
        return whole
    # Where the tokenizer matches it all the same, its parts are no control token.
    parts = (
        *_encode_inside(literal[:1], tokenizer),
        *_encode_inside(literal[1:], tokenizer),
    )
    if control.isdisjoint(parts) and parts:
        return parts
    raise BadRecordError(
        "special_token", f"{literal!r} stands in the text, and the tokenizer has no text for it"
    )


def _encode_inside(text: str, tokenizer: Any, **options: bool) -> tuple[int, ...]:
    """Ids of a text inside another: without the space that SentencePiece puts before the first."""
    before = tokenizer.encode("\n", add_special_tokens=False, **options)
    both = tokenizer.encode("\n" + text, add_special_tokens=False, **options)
    if both[: len(before)] == before:
        return tuple(both[len(before) :])
    return tuple(tokenizer.encode(text, add_special_tokens=False, **options))

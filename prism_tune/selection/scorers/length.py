"""Length: how much there is to learn to say.

Reference: the Length row of https://arxiv.org/abs/2502.12119, table 1.
Equation: score = number of tokens of the record's answers. Keep the highest.
Option `of`: `answer`, or `record`, the questions' too (without placeholders), which is the sequence
length of other studies up to a constant for the images.
Option `unit`: `tokens` of the model's tokenizer, or `words` (between white space) or `characters`,
which need no model.
Cost: tokenising the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from prism_tune.config.sections import Config, Section
from prism_tune.errors import UserError
from prism_tune.models.processor import load_model_tokenizer
from prism_tune.schema import IMAGE_PLACEHOLDER, Record, Role
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext

_RECORDS_PER_CALL = 1024
_ROLES: dict[str, tuple[Role, ...]] = {"answer": ("gpt",), "record": ("human", "gpt")}
_PLAIN: dict[str, Callable[[Sequence[str]], list[int]]] = {
    "words": lambda texts: [len(text.split()) for text in texts],
    "characters": lambda texts: [len(text) for text in texts],
}


class LengthOptions(Section):
    """`selection.options` of length: what is counted, and of what."""

    of: Literal["answer", "record"] = "answer"
    unit: Literal["tokens", "words", "characters"] = "tokens"


def score(context: ScoringContext) -> ScoredRecords:
    """The length of every record's answers, or of all its turns."""
    options = read_options(context.config, LengthOptions)
    unit, roles = options.unit, _ROLES[options.of]
    measure = _count_tokens(context.config) if unit == "tokens" else _PLAIN[unit]
    lengths_M = np.zeros(len(context.records_M))
    for start in range(0, len(lengths_M), _RECORDS_PER_CALL):
        records = [context.pool[i] for i in context.records_M[start : start + _RECORDS_PER_CALL]]
        texts = [_read_texts(record, roles) for record in records]
        counts = iter(measure([text for answers in texts for text in answers]))
        for offset, answers in enumerate(texts):
            lengths_M[start + offset] = sum(next(counts) for _ in answers)
    return ScoredRecords(lengths_M, {"unit": unit, "of": options.of})


def _read_texts(record: Record, roles: Sequence[Role]) -> list[str]:
    return [
        turn.text.replace(IMAGE_PLACEHOLDER, "").strip("\n") if turn.role == "human" else turn.text
        for turn in record.turns
        if turn.role in roles
    ]


def _count_tokens(config: Config) -> Callable[[Sequence[str]], list[int]]:
    try:
        tokenizer = load_model_tokenizer(config.model)
    except UserError as error:
        raise UserError(
            f"{error}; length counts tokens of its tokenizer: selection.options.unit=words or "
            "characters needs none"
        ) from error

    def count(texts: Sequence[str]) -> list[int]:
        # The names of control tokens are text, as where the model reads them.
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return [len(ids) for ids in tokenizer(list(texts), **options)["input_ids"]]

    return count

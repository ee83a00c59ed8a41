"""Length: how much there is to learn to say.

Reference: the Length row of https://arxiv.org/abs/2502.12119, table 1.
Equation: score = number of tokens of the record's answers. Keep the highest.
Cost: tokenising the answers.
"""

from __future__ import annotations

import numpy as np

from prism_tune.data.encoder import count_text_tokens
from prism_tune.data.literal_text import mark_literals
from prism_tune.models.processor import load_processor
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext

_RECORDS_PER_CALL = 1024


def score(context: ScoringContext) -> ScoredRecords:
    """Answer tokens of every record."""
    processor = load_processor(context.config.model)
    lengths_M = np.zeros(len(context.records_M))
    for start in range(0, len(lengths_M), _RECORDS_PER_CALL):
        records = [context.pool[i] for i in context.records_M[start : start + _RECORDS_PER_CALL]]
        texts = [[t.text for t in record.turns if t.role == "gpt"] for record in records]
        flat = [mark_literals(text, processor) for answers in texts for text in answers]
        counts = iter(count_text_tokens(flat, processor, special=False))
        for offset, answers in enumerate(texts):
            lengths_M[start + offset] = sum(next(counts) for _ in answers)
    return ScoredRecords(lengths_M, {})

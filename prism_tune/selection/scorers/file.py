"""File: scores of one's own, computed elsewhere.

Equation: score = the number that the file has for the record. Keep the highest.
Options: `path`, an .npy by row, or a .parquet or .csv by `uid`, `id` or row; `column`.
Cost: none; no model is looked at. A record whose number is NaN or infinite comes last.
"""

from __future__ import annotations

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The file's number of every record."""
    return ScoredRecords(context.measured["score"], {})

"""Selection methods by name: one file each, and one line here."""

from prism_tune.selection.context import Scorer
from prism_tune.selection.scorers import alignment, length, prism, random

SCORERS: dict[str, Scorer] = {
    "prism": Scorer(prism.score, needs_features=True),
    "alignment": Scorer(alignment.score, needs_features=True, features="pair"),
    "random": Scorer(random.score, needs_features=False),
    "length": Scorer(length.score, needs_features=False),
}

"""Selection methods by name: one file each, and one line here."""

from prism_tune.selection import pick_order
from prism_tune.selection.context import Scorer
from prism_tune.selection.scorers import (
    alignment,
    kcenter,
    kernel_prism,
    kmeanspp,
    length,
    leverage,
    prism,
    random,
    semdedup,
)

SCORERS: dict[str, Scorer] = {
    "prism": Scorer(prism.score, needs_features=True),
    "alignment": Scorer(alignment.score, needs_features=True, features="pair"),
    "random": Scorer(random.score, needs_features=False),
    "length": Scorer(length.score, needs_features=False),
    "kernel_prism": Scorer(kernel_prism.score, needs_features=True, check=kernel_prism.check),
    "leverage": Scorer(leverage.score, needs_features=True, check=leverage.check),
    "kcenter": Scorer(kcenter.score, needs_features=True, check=pick_order.check),
    "kmeanspp": Scorer(kmeanspp.score, needs_features=True, check=pick_order.check),
    "semdedup": Scorer(semdedup.score, needs_features=True, check=semdedup.check),
}

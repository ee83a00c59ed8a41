"""Selection methods by name: one file each, and one line here."""

from prism_tune.selection.evidence.image_text import EncoderOptions
from prism_tune.selection.evidence.source import FEATURES, LOSSES, NOTHING
from prism_tune.selection.options import ScorerOptions
from prism_tune.selection.scorers import (
    alignment,
    clip_score,
    d2,
    el2n,
    grand,
    kcenter,
    kernel_prism,
    kernel_repulsion,
    kmeanspp,
    length,
    leverage,
    perplexity,
    prism,
    random,
    semdedup,
)
from prism_tune.selection.scorers.pick_order import PickOptions
from prism_tune.selection.scorers.scorer import Scorer

SCORERS: dict[str, Scorer] = {
    "prism": Scorer(prism.score, FEATURES, ScorerOptions),
    "alignment": Scorer(alignment.score, FEATURES, ScorerOptions, adapt=alignment.adapt),
    "random": Scorer(random.score, NOTHING),
    "length": Scorer(length.score, NOTHING, keep="high"),
    "perplexity": Scorer(perplexity.score, LOSSES, keep="middle"),
    "el2n": Scorer(el2n.score, LOSSES, keep="high"),
    "grand": Scorer(grand.score, grand.EVIDENCE, grand.GrandOptions, keep="high"),
    "clip_score": Scorer(clip_score.score, clip_score.EVIDENCE, EncoderOptions, keep="high"),
    "d2": Scorer(d2.score, d2.EVIDENCE, d2.D2Options, keeps_one_end=True),
    "kernel_prism": Scorer(
        kernel_prism.score,
        FEATURES,
        kernel_prism.KernelPrismOptions,
        adapt=kernel_prism.adapt,
    ),
    "kernel_repulsion": Scorer(
        kernel_repulsion.score,
        FEATURES,
        kernel_repulsion.KernelRepulsionOptions,
        keeps_one_end=True,
    ),
    "leverage": Scorer(leverage.score, FEATURES, leverage.LeverageOptions, keep="high"),
    "kcenter": Scorer(kcenter.score, FEATURES, PickOptions, keeps_one_end=True),
    "kmeanspp": Scorer(kmeanspp.score, FEATURES, PickOptions, keeps_one_end=True),
    "semdedup": Scorer(semdedup.score, FEATURES, semdedup.SemDeDupOptions),
}

"""Selection methods by name: one file each, and one line here."""

from prism_tune.selection.evidence.embeddings.image_text import COSINES, EncoderOptions
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.gradients.norms import GRADIENT_NORMS, GrandOptions
from prism_tune.selection.evidence.own import OWN_SCORES, FileOptions
from prism_tune.selection.evidence.states.attention_outputs import ATTENTION_OUTPUTS
from prism_tune.selection.evidence.states.state_spectra import STATE_SPECTRA
from prism_tune.selection.evidence.states.weighted_states import WEIGHTED_STATES
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.evidence.without import BLIND_LOSSES
from prism_tune.selection.scorer_options import ScorerOptions
from prism_tune.selection.scorers import (
    alignment,
    clip_score,
    d2,
    file,
    kcenter,
    kmeanspp,
    length,
    leverage,
    prism,
    random,
    rds_plus,
    scalselect,
)
from prism_tune.selection.scorers.clusters import coincide, datatailor, presel, semdedup
from prism_tune.selection.scorers.gradients import heldout, icons_heldout, less_heldout, tive
from prism_tune.selection.scorers.kernels import kernel_prism, kernel_repulsion
from prism_tune.selection.scorers.losses import (
    el2n,
    grand,
    perplexity,
    self_filter_static,
    visual_gain,
)
from prism_tune.selection.scorers.pick_order import PickOptions
from prism_tune.selection.scorers.scorer import Scorer, always

SCORERS: dict[str, Scorer] = {
    "prism": Scorer(prism.score, always(FEATURES), ScorerOptions),
    "alignment": Scorer(
        alignment.score, always(FEATURES), ScorerOptions, adapt=alignment.adapt, judges_rows=True
    ),
    "random": Scorer(random.score, always(), draws=True, ranks_text=True),
    "length": Scorer(length.score, always(), length.LengthOptions, keep="high", ranks_text=True),
    "perplexity": Scorer(perplexity.score, always(ANSWER_LOSSES), keep="middle", ranks_text=True),
    "el2n": Scorer(el2n.score, always(ANSWER_LOSSES), keep="high", ranks_text=True),
    "visual_gain": Scorer(
        visual_gain.score, always(ANSWER_LOSSES, BLIND_LOSSES), keep="high", ranks_text=True
    ),
    "grand": Scorer(
        grand.score, always(GRADIENT_NORMS), GrandOptions, keep="high", ranks_text=True
    ),
    "clip_score": Scorer(clip_score.score, always(COSINES), EncoderOptions, keep="high"),
    "file": Scorer(file.score, always(OWN_SCORES), FileOptions, keep="high", ranks_text=True),
    "d2": Scorer(d2.score, d2.reads, d2.D2Options, keeps_one_end=True),
    "kernel_prism": Scorer(
        kernel_prism.score,
        kernel_prism.reads,
        kernel_prism.KernelPrismOptions,
    ),
    "kernel_repulsion": Scorer(
        kernel_repulsion.score,
        kernel_repulsion.reads,
        kernel_repulsion.KernelRepulsionOptions,
        keeps_one_end=True,
        adapt=kernel_repulsion.adapt,
    ),
    "scalselect": Scorer(
        scalselect.score,
        always(FEATURES),
        scalselect.ScalSelectOptions,
        keep="high",
        adapt=scalselect.adapt,
    ),
    "leverage": Scorer(leverage.score, always(FEATURES), leverage.LeverageOptions, keep="high"),
    "kcenter": Scorer(kcenter.score, always(FEATURES), PickOptions, keeps_one_end=True),
    "kmeanspp": Scorer(kmeanspp.score, always(FEATURES), PickOptions, keeps_one_end=True),
    "coincide": Scorer(
        coincide.score,
        always(ATTENTION_OUTPUTS),
        coincide.CoincideOptions,
        keeps_one_end=True,
        ranks_text=True,
        needs_number=True,
    ),
    "tive": Scorer(
        tive.score,
        tive.reads,
        tive.TiveOptions,
        keeps_one_end=True,
        adapt=tive.adapt,
        ranks_text=True,
    ),
    "icons_heldout": Scorer(
        icons_heldout.score, heldout.reads, heldout.HeldOutOptions, keep="high", ranks_text=True
    ),
    "less_heldout": Scorer(
        less_heldout.score, heldout.reads, heldout.HeldOutOptions, keep="high", ranks_text=True
    ),
    "rds_plus": Scorer(
        rds_plus.score, always(WEIGHTED_STATES), rds_plus.RdsOptions, ranks_text=True
    ),
    "self_filter_static": Scorer(
        self_filter_static.score,
        self_filter_static.reads,
        self_filter_static.SelfFilterOptions,
        keeps_one_end=True,
    ),
    "datatailor": Scorer(
        datatailor.score, always(STATE_SPECTRA), keeps_one_end=True, ranks_text=True
    ),
    "presel": Scorer(presel.score, presel.reads, presel.PreselOptions, keeps_one_end=True),
    "semdedup": Scorer(semdedup.score, always(FEATURES), semdedup.SemDeDupOptions),
}

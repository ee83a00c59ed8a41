"""Evidence by name: what a scorer of one's own can ask for (docs/plugins.md).

Names of sources go in, in place of the `EvidenceSource`s that our own scorers name.
"""

from __future__ import annotations

from collections.abc import Callable

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError
from prism_tune.selection.evidence.embeddings.image_text import COSINES
from prism_tune.selection.evidence.embeddings.text_sif import TEXT_SIF
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.gradients.norms import GRADIENT_NORMS
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.states.attention_outputs import ATTENTION_OUTPUTS
from prism_tune.selection.evidence.states.state_spectra import STATE_SPECTRA
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.evidence.without import BLIND_LOSSES, UNASKED_LOSSES

_SOURCES = (
    *(FEATURES, ANSWER_LOSSES, BLIND_LOSSES, UNASKED_LOSSES),
    *(TEXT_SIF, ATTENTION_OUTPUTS, STATE_SPECTRA, GRADIENT_NORMS, COSINES),
)
EVIDENCE: dict[str, EvidenceSource] = {source.name: source for source in _SOURCES}


def evidence(*names: str) -> Callable[[Config], tuple[EvidenceSource, ...]]:
    """What a method reads, for `Scorer.reads`: `evidence("features", "answer_losses")`.

    Raises:
        ConfigError: no evidence of that name.
    """
    unknown = [name for name in names if name not in EVIDENCE]
    if unknown:
        raise ConfigError(f"no evidence {unknown[0]!r}; there are {', '.join(EVIDENCE)}")
    sources = tuple(EVIDENCE[name] for name in names)
    return lambda config: sources

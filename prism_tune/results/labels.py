"""What a table calls a selector: by its published name only where it is the published method.

A selection's config goes in, a name comes out. What makes a method the published one is what is cut
(the whole pool, by rows), which model reads the records, and the options that its study has; a
variant of ours goes by the scorer's own name, with what departs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prism_tune.config.sections import ReferenceConfig, SelectionConfig

_OURS = {"prism": "PRISM", "random": "Random", "alignment": "Alignment", "file": "Own scores"}


@dataclass(frozen=True)
class Published:
    """A published method.

    Attributes:
        name: as its study has it.
        budget_of: what its share counts.
        text_only: what may become of text-only records.
        is_tuned: whether a tuned or warmed-up model reads the records.
        settings: other keys of the selection.
        options: of the scorer.
    """

    name: str
    budget_of: str = "rows"
    text_only: tuple[str, ...] = ("rank",)
    is_tuned: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def departures(self, selection: SelectionConfig) -> list[str] | None:
        """What departs, in words; empty where a label's other words say it; None: nothing does."""
        words = {
            "per source": selection.scope != "global",
            "untuned": self.is_tuned and selection.reference in (None, ReferenceConfig()),
            "": (selection.budget_of, selection.text_only in self.text_only)
            != (self.budget_of, True),
            "other settings": any(
                getattr(selection, key) not in (None, value)  # None: as the method has it
                for key, value in self.settings.items()
            )
            or any(selection.options.get(key) != value for key, value in self.options.items()),
        }
        found = [word for word, departs in words.items() if departs]
        return [word for word in found if word] if found else None


_WHOLE_RECORDS = {"features": "conversation"}
PUBLISHED: dict[str, Published] = {
    "length": Published("Length", is_tuned=False, options={"of": "record"}),
    "perplexity": Published("Perplexity", settings={"keep": "middle"}),
    "el2n": Published("EL2N", settings={"keep": "high"}),
    "grand": Published("GraNd", settings={"keep": "high"}, options={"parameters": ["*"]}),
    "clip_score": Published(
        "CLIP-Score",
        text_only=("keep", "own_source", "drop"),
        is_tuned=False,
        settings={"keep": "high"},
        options={"text": "question"},
    ),
    "semdedup": Published("SemDeDup", settings={**_WHOLE_RECORDS, "pooling": "last"}),
    "d2": Published(
        "D2",
        settings={**_WHOLE_RECORDS, "pooling": "mean"},
        options={
            "difficulty": "margin",
            "num_neighbors": 5,
            "directed": True,
            "gamma_reverse": 0.4,
        },
    ),
    "coincide": Published("COINCIDE"),
    "datatailor": Published("DataTailor", is_tuned=False),
    "tive": Published("TIVE", options={"modules": "attention", "sharpness": 0.001}),
    "scalselect": Published("ScalSelect", "images", ("drop",), is_tuned=False),
}


def name_method(selection: SelectionConfig) -> str:
    """`COINCIDE`, or `coincide (per source, untuned)`."""
    scorer = selection.scorer
    published = PUBLISHED.get(scorer)
    if published is None:
        return _OURS.get(scorer, scorer)
    departures = published.departures(selection)
    if departures is None:
        return published.name
    return f"{scorer} ({', '.join(departures)})" if departures else scorer

"""What a table calls a selector: by its published name only where it is the published method.

A selection's config goes in, a name comes out. What makes a method the published one is what is cut
(the whole pool, by rows), which model reads the records, and every setting that the subset depends
on, as its study has them (`configs/experiments/published`); a variant of ours goes by the scorer's
own name, with what departs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from prism_tune.config.references import reference_of
from prism_tune.config.sections import SelectionConfig, WarmupConfig

Reader = Literal["untuned", "tuned", "warmed up"]

UNSET = "unset"
"""Among the values of an option: the scorer's own default is the published one."""

LAST = -1
"""As `layer`: behind the last decoder layer."""

FREE_OPTIONS = ("layers", "dimension", "revision")
"""What no name turns on: more layers stored, numbers of a sketch, an encoder's version."""

_OURS = {"random": "Random", "alignment": "Alignment", "file": "Own scores"}
_LISTS = ("must_keep", "must_drop", "source_budgets", "features_file")
_USUAL_DEPTH = 32
_SHALLOW, _DEEP = 1 / 4, 3 / 4
"""Shares of a model's layers; the paper says shallow, middle and deep, and no numbers."""


@dataclass(frozen=True)
class Published:
    """A published method.

    Attributes:
        name: as its study has it.
        reader: the model that reads the records; None where none does.
        warmup: where that is warmed up first.
        budget_of: what its share counts.
        text_only: what may become of text-only records.
        is_global: whether `scope` has to be so for it; TIVE takes no notice of it.
        settings: values that other keys of the selection may have.
        options: values that options of the scorer may have; others are as `FREE_OPTIONS` says.
    """

    name: str
    reader: Reader | None
    warmup: WarmupConfig | None = None
    budget_of: str = "rows"
    text_only: tuple[str, ...] = ("rank",)
    is_global: bool = True
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def departures(self, selection: SelectionConfig, depth: int | None) -> list[str] | None:
        """What departs, in words; empty where a label's other words say it; None: nothing does.

        Args:
            selection: of a run.
            depth: of the model that its features are of, where that is known.
        """
        words = [
            "per source" if self.is_global and selection.scope != "global" else None,
            self._other_reader(selection),
            "other settings" if self._has_other_settings(selection, depth) else None,
            "" if self._cuts_otherwise(selection) else None,
        ]
        found = [word for word in words if word is not None]
        return [word for word in found if word] if found else None

    def _other_reader(self, selection: SelectionConfig) -> str | None:
        reader = reader_of(selection)
        if self.reader in (None, reader):
            return "another warm-up" if self._is_warmed_up_otherwise(selection) else None
        return reader

    def _is_warmed_up_otherwise(self, selection: SelectionConfig) -> bool:
        reference = reference_of(selection)
        if self.warmup is None or reference is None or reference.warmup is None:
            return False
        technical = {"hf", "seed", "batch_size"}
        found = reference.warmup.model_dump(exclude=technical)
        return found != self.warmup.model_dump(exclude=technical)

    def _has_other_settings(self, selection: SelectionConfig, depth: int | None) -> bool:
        last = depth or _USUAL_DEPTH
        for key, values in self.settings.items():
            allowed = [last if key == "layer" and value == LAST else value for value in values]
            if getattr(selection, key) not in allowed:
                return True
        given = {key: value for key, value in selection.options.items() if key not in FREE_OPTIONS}
        if "layers" in self.options and "layers" in selection.options:
            given["layers"] = selection.options["layers"]
        return any(
            _as_named(key, given.get(key, UNSET)) not in self.options.get(key, ())
            for key in {*given, *self.options}
        )

    def _cuts_otherwise(self, selection: SelectionConfig) -> bool:
        return (
            selection.budget_of != self.budget_of
            or selection.text_only not in self.text_only
            or any(getattr(selection, key) for key in _LISTS)
        )


_LOWEST, _HIGHEST, _OWN_END = (None, "low"), (None, "high"), (None,)
_LAST_STATES = {"features": ("conversation",), "layer": (LAST,), "centering": ("corpus",)}
_COMPONENTS = (256, None)
PUBLISHED: dict[str, Published] = {
    "length": Published(
        "Length",
        None,
        settings={"keep": _HIGHEST},
        options={"of": ("record",), "unit": (UNSET, "tokens")},
    ),
    "perplexity": Published("Perplexity", "tuned", settings={"keep": (None, "middle")}),
    "el2n": Published("EL2N", "tuned", settings={"keep": _HIGHEST}),
    "grand": Published(
        "GraNd",
        "warmed up",
        WarmupConfig(),
        settings={"keep": _HIGHEST},
        options={"parameters": (["*"],)},
    ),
    "clip_score": Published(
        "CLIP-Score",
        None,
        text_only=("own_source", "drop"),
        settings={"keep": _HIGHEST},
        options={"text": ("question",), "model": ("clip-vit-large-patch14",)},
    ),
    "semdedup": Published(
        "SemDeDup",
        "tuned",
        settings={**_LAST_STATES, "pooling": ("last",), "keep": _LOWEST},
        options={
            "num_clusters": (10_000,),
            "num_components": _COMPONENTS,
            "threshold": (UNSET, None),
        },
    ),
    "d2": Published(
        "D2",
        "tuned",
        settings={**_LAST_STATES, "pooling": ("mean",), "keep": _OWN_END},
        options={
            "difficulty": ("margin",),
            "num_neighbors": (5,),
            "directed": (True,),
            "gamma_forward": (UNSET, 1.0),
            "gamma_reverse": (0.4,),
            "num_components": _COMPONENTS,
        },
    ),
    "coincide": Published(
        "COINCIDE",
        "tuned",
        settings={"keep": _OWN_END},
        options={
            "num_clusters": (UNSET, None, 10_000),
            "tau": (UNSET, 0.1),
            "transfer_cutoff": (UNSET, 0.9),
            "layers": (UNSET, None),
        },
    ),
    "datatailor": Published("DataTailor", "untuned", settings={"keep": _OWN_END}),
    "tive": Published(
        "TIVE",
        "warmed up",
        WarmupConfig(),
        is_global=False,
        settings={"keep": _OWN_END},
        options={"modules": (UNSET, "attention"), "sharpness": (UNSET, 0.001)},
    ),
    "scalselect": Published(
        "ScalSelect",
        "untuned",
        budget_of="images",
        text_only=("drop",),
        settings={"features": ("visual",), "layer": (1,), "keep": _HIGHEST},
        options={"energy": (UNSET, 0.9)},
    ),
}


def name_method(selection: SelectionConfig, depth: int | None = None) -> str:
    """`COINCIDE`, or `coincide (per source, untuned)`."""
    scorer = selection.scorer
    if scorer == "prism":
        variant = find_variant(selection, depth)
        is_said = not variant or variant == "own features"
        return "PRISM" if not variant else scorer if is_said else f"{scorer} ({variant})"
    published = PUBLISHED.get(scorer)
    if published is None:
        return _OURS.get(scorer, scorer)
    departures = published.departures(selection, depth)
    if departures is None:
        return published.name
    return f"{scorer} ({', '.join(departures)})" if departures else scorer


def is_as_published(selection: SelectionConfig, depth: int | None) -> bool:
    """Whether it may stand beside printed numbers of its name; PRISM's variants have their own."""
    published = PUBLISHED.get(selection.scorer)
    if published is not None:
        return published.departures(selection, depth) is None
    return selection.scorer == "prism" or not any(getattr(selection, key) for key in _LISTS)


def reader_of(selection: SelectionConfig) -> Reader:
    """What has become of the model that its evidence is read from, as far as the config says."""
    reference = reference_of(selection)
    if reference is None or not (reference.model or reference.adapter or reference.warmup):
        return "untuned"
    return "warmed up" if reference.warmup else "tuned"


def find_variant(selection: SelectionConfig, depth: int | None) -> str:
    """What departs from the paper's setting of PRISM, whatever is cut; empty for none.

    Args:
        selection: of a PRISM run.
        depth: layers of the model that its features are of; None where that is not known.
    """
    if selection.features_file is not None:
        return "own features"
    usual = {
        "keep": (None, "low"),
        "pooling": ("mean",),
        "centering": ("corpus",),
        "features": ("visual",),
        "scope": ("per_source",),
    }
    reader = reader_of(selection)
    words = [
        "" if reader == "untuned" else reader,
        *(
            f"{key} {getattr(selection, key)}"
            for key, values in usual.items()
            if getattr(selection, key) not in values
        ),
        _name_depth(selection.layer, depth),
    ]
    return ", ".join(filter(None, words))


def _name_depth(layer: int, depth: int | None) -> str:
    """Of a layer that is not shallow; the first is so in a model of any depth."""
    if depth is None or layer <= max(1, _SHALLOW * depth):
        return ""
    return "layer deep" if layer > _DEEP * depth else "layer middle"


def _as_named(key: str, value: Any) -> Any:
    """An encoder is known by the last part of its path or hub id."""
    return PurePath(value).name if key == "model" and isinstance(value, str) else value

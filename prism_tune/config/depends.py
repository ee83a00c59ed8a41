"""What each config field changes: the one declaration that every stage derives its inputs from.

A field goes in; the artifacts that have to be made anew when it changes come out. Fields of
`BY_CONTENT` name files and are compared by what is in them: a stage adds those fingerprints itself.
Fields that change nothing that is kept are declared with no artifact, so that a new field cannot be
forgotten: a test walks over every field of `Config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from prism_tune.config.sections import Config, ImageBackend

Artifact = Literal[
    "audit",
    "features",
    "answer_losses",
    "blind_losses",
    "unasked_losses",
    "attention_outputs",
    "state_spectra",
    "weighted_states",
    "gradient_norms",
    "gradient_sketches",
    "embeddings",
    "subset",
    "model",
    "answers",
    "language_answers",
]
"""What the stages audit, select, train and evaluate leave; `select` leaves evidence, too."""

_NONE: tuple[Artifact, ...] = ()
_ALL: tuple[Artifact, ...] = ("audit", "subset", "model", "answers")
_RECORDS: tuple[Artifact, ...] = ("audit", "subset", "model")
_ANSWER_ROWS: tuple[Artifact, ...] = (
    "answer_losses",
    "blind_losses",
    "unasked_losses",
    "attention_outputs",
    "state_spectra",
    "weighted_states",
    "gradient_norms",
    "gradient_sketches",
)
_ROWS: tuple[Artifact, ...] = ("features", *_ANSWER_ROWS)
_EVIDENCE: tuple[Artifact, ...] = (*_ROWS, "embeddings")
_STATES: tuple[Artifact, ...] = ("subset", "model", "answers")
_SUBSET: tuple[Artifact, ...] = ("subset",)
_MODEL: tuple[Artifact, ...] = ("model",)
_ANSWERS: tuple[Artifact, ...] = ("answers",)
_LANGUAGE: tuple[Artifact, ...] = ("language_answers",)

DEPENDS: Mapping[str, tuple[Artifact, ...]] = {
    "name": _NONE,
    "seed": _STATES,
    "model_name": _NONE,
    "output_dir": _NONE,
    "compare_random": _NONE,
    "compare": _NONE,
    "plugins": _NONE,  # what is used of one is compared by its content, with what uses it
    "model.path": (*_ALL, *_ROWS),
    "model.revision": (*_ALL, *_ROWS),
    "model.dtype": _MODEL,
    "model.attn_implementation": (*_STATES, *_ROWS),
    "model.trust_remote_code": (*_ALL, *_ROWS),
    "model.template": (*_ALL, *_ROWS),
    "model.image_aspect_ratio": (*_ALL, *_ROWS),
    "model.image_backend": (*_ALL, *_ROWS),
    "data.records": (*_RECORDS, *_EVIDENCE),
    "data.image_dir": (*_RECORDS, *_EVIDENCE),
    "data.image_roots": (*_RECORDS, *_EVIDENCE, "answers"),
    "data.prepare": _NONE,
    "data.columns": (*_RECORDS, *_EVIDENCE),
    "data.source": _RECORDS,
    "data.source_names": _RECORDS,
    "data.image_place": (*_RECORDS, *_ROWS),
    "data.system": (*_RECORDS, *_ROWS),
    "data.policy": _ALL,
    "data.max_length": (*_RECORDS, *_ANSWER_ROWS),
    "data.num_workers": _NONE,
    "selection.scorer": _SUBSET,
    "selection.budget": _SUBSET,
    "selection.budgets": _SUBSET,
    "selection.budget_of": _SUBSET,
    "selection.text_only": _SUBSET,
    "selection.source_budgets": _SUBSET,
    "selection.must_keep": _SUBSET,
    "selection.must_drop": _SUBSET,
    "selection.scope": _SUBSET,
    "selection.centering": _SUBSET,
    "selection.keep": _SUBSET,
    "selection.features": (*_SUBSET, "features"),
    "selection.features_file": _SUBSET,
    "selection.reference": (*_SUBSET, *_ROWS),
    "selection.layer": (*_SUBSET, "features"),
    "selection.pooling": (*_SUBSET, "features"),
    "selection.tokens_per_batch": _NONE,
    "selection.dtype": (*_SUBSET, *_EVIDENCE),
    "selection.options": (*_SUBSET, "attention_outputs", "gradient_norms", "embeddings"),
    "training.records": _MODEL,
    "training.tuning": _MODEL,
    "training.lora": _MODEL,
    "training.learning_rates": _MODEL,
    "training.freeze": _MODEL,
    "training.deepspeed": _MODEL,
    "training.batching": _MODEL,
    "training.tokens_per_batch": _MODEL,
    "training.validation": _MODEL,
    "training.grace_seconds": _NONE,
    "training.hf": _MODEL,
    "evaluation.benchmarks": _NONE,  # each has results of its own
    "evaluation.data": _ANSWERS,
    "evaluation.profile": _ANSWERS,
    "evaluation.controls": _ANSWERS,
    "evaluation.chat_template": _LANGUAGE,
    "evaluation.batch_size": _ANSWERS,
    "evaluation.dtype": _ANSWERS,
    "evaluation.backend": ("answers",),
    "evaluation.base_url": _NONE,  # the same model wherever it is served
    "evaluation.served_model": ("answers",),
    "evaluation.serve_command": ("answers",),
    "evaluation.concurrency": _NONE,
    "tracking.wandb": _NONE,
    "tracking.project": _NONE,
    "tracking.entity": _NONE,
}

BY_CONTENT = frozenset(
    {
        "model.path",
        "model.revision",
        "data.records",
        "data.image_dir",
        "data.image_roots",
        "data.image_place",
        "data.system",
        "data.columns",
        "data.source",
        "data.source_names",
        "selection.must_keep",
        "selection.must_drop",
        "selection.features_file",
        "selection.reference",
        "training.deepspeed",
        "evaluation.data",
    }
)
"""Fields that stand for files, or say how these are read: their content is compared."""


def list_fields(config: Config) -> dict[str, Any]:
    """Every field by its dotted name, as JSON; dictionaries inside a section stay whole."""
    fields: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        is_section = name in {"model", "data", "selection", "training", "evaluation", "tracking"}
        fields |= {f"{name}.{k}": v for k, v in value.items()} if is_section else {name: value}
    return fields


def fields_of(config: Config, artifact: Artifact) -> dict[str, Any]:
    """The fields an artifact depends on and that are compared by their value, by dotted name.

    `model.image_backend` is compared by its library's version as well: other pixels may come of it.
    """
    fields = {
        name: value
        for name, value in list_fields(config).items()
        if artifact in DEPENDS[name] and name not in BY_CONTENT
    }
    if "model.image_backend" in fields:
        fields["model.image_backend"] = name_image_library(config.model.image_backend)
    return fields


def name_image_library(backend: ImageBackend) -> str:
    """What resizes and normalises images, with its version: `pillow 13.0.0`."""
    package = {"pil": "pillow", "torchvision": "torchvision"}[backend]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package}, not installed"

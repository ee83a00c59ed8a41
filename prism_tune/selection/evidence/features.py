"""Features of a pool: a hidden state, pooled, of every distinct (images, prompt).

A config goes in; one store for each layer comes out, all filled in one pass through the first k
decoder layers.

Shape legend: N records, U feature rows, D width.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import ConfigError
from prism_tune.models.load import count_layers
from prism_tune.models.processor import load_processor
from prism_tune.processes import from_main
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.embeddings.text_sif import compute_text
from prism_tune.selection.evidence.encoding import (
    ConversationDataset,
    InstructionDataset,
    RecordDataset,
    UnitDataset,
    first_usable,
)
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.own import own_features
from prism_tune.selection.evidence.prefix_check import prefix_is_exact
from prism_tune.selection.evidence.prompts import PromptKind
from prism_tune.selection.evidence.shallow import Extractor, load_extractor
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering, depends_on
from prism_tune.selection.evidence.store import EvidenceStore, lock_stores
from prism_tune.selection.evidence.units import find_units, locate_rows

_NAME: Literal["features"] = "features"
_VERSION = 1
_INSTRUCTION_VERSION = 2
"""With `pooling: instruction`; in 1 an answer that is not learnt counted as instruction."""


def compute_features(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
    """The features of `selection.layer`; those of `selection.options.layers` are kept as well.

    With `selection.features_file` they are the matrix in that file, and no model is looked at.

    Raises:
        UserError: a broken image whose policy is "fail"; out of memory with one record.
    """
    began = time.perf_counter()
    config, pool = gathering.config, gathering.pool
    if config.selection.features_file is not None:
        return own_features(config.selection.features_file, gathering, left_out)
    if config.selection.features == "text":
        return compute_text(gathering, left_out)
    processor = load_processor(config.model)
    layers = feature_layers(config)
    stores = [_open_store(config, layer) for layer in layers]
    load = load_extractor(config, layers, processor)
    kind = _decide_prompt(config, pool, stores, load, processor)
    units = find_units(config, pool, kind, processor, left_out)

    def encode(keys: Sequence[str]) -> UnitDataset | RecordDataset:
        records = [units.record_of[key] for key in keys]
        if kind == "conversation":
            return ConversationDataset(pool, records, config, processor)
        if kind == "answers":
            return InstructionDataset(pool, records, config, processor)
        return UnitDataset(pool, records, kind, config.model.template, processor)

    computation = Computation(
        title=f"features ({kind} prompts)",
        load_runner=load,
        encode=encode,
        tokens_per_batch=config.selection.tokens_per_batch,
        num_workers=config.data.num_workers,
        began=began,
    )
    return locate_rows(
        config,
        pool,
        units,
        fill(stores, units.keys, computation, gathering),
        prompt=kind,
        layers=sorted(layers),
        num_model_layers=count_layers(config.model),
    )


def feature_layers(config: Config) -> tuple[int, ...]:
    """The layers computed in one pass: `selection.layer`, then `selection.options.layers`.

    Raises:
        ConfigError: `options.layers` is not a list of layer numbers.
    """
    more = config.selection.options.get("layers") or []
    if not isinstance(more, list) or not all(isinstance(n, int) and n >= 0 for n in more):
        raise ConfigError(f"selection.options.layers: expected a list of numbers, got {more!r}")
    return tuple(dict.fromkeys((config.selection.layer, *more)))


def _depends(config: Config) -> dict[str, Any]:
    by_instruction = config.selection.pooling == "instruction"
    return depends_on(config, _NAME, _INSTRUCTION_VERSION if by_instruction else _VERSION)


def _open_store(config: Config, layer: int) -> EvidenceStore:
    depends = {**_depends(config), "selection.layer": layer}
    selection = config.selection
    if selection.features == "conversation" or selection.pooling == "instruction":
        depends["data.max_length"] = config.data.max_length  # of the others nothing is cut
    return EvidenceStore(config.output_dir, _NAME, depends)


def _decide_prompt(
    config: Config,
    pool: Pool,
    stores: Sequence[EvidenceStore],
    load: Callable[[], Extractor],
    processor: Any,
) -> PromptKind:
    """How much of a record the model has to read; measured once, and remembered in the stores.

    The model is looked at as well (`models.guards`).
    """
    asked = _asked_prompt(config)

    def read() -> list[PromptKind | None]:
        return [store.about("prompt") for store in stores]

    def decide() -> PromptKind:
        if None in read():
            with lock_stores(stores):
                if None in read():
                    measure()
        if asked is not None:
            return asked
        return "whole" if "whole" in read() else "prefix"  # also where there is no image at all

    def measure() -> None:
        kind = _measure_prompt(config, pool, load, processor)
        if kind is not None:
            about = json.loads(processor.image_processor.to_json_string())
            for store in stores:
                store.begin(prompt=kind, preprocessing=about)

    return from_main(decide)


def _measure_prompt(
    config: Config, pool: Pool, load: Callable[[], Extractor], processor: Any
) -> PromptKind | None:
    """What is asked, else what the model makes necessary; None without an image to see it by."""
    asked, template = _asked_prompt(config), config.model.template
    candidates = np.flatnonzero(~pool.is_text_only_N).tolist()
    unit = first_usable(UnitDataset(pool, candidates, "whole", template, processor))
    if unit is not None:
        load().check(unit)
    if asked is not None or unit is None:
        return asked
    return "prefix" if prefix_is_exact(load(), pool, candidates, template, processor) else "whole"


def _asked_prompt(config: Config) -> PromptKind | None:
    """What the config alone says; None: it has to be measured."""
    if config.selection.pooling == "instruction":
        return "answers"
    asked = config.selection.features
    assert asked != "text"  # no prompt is put to the model
    return None if asked == "visual" else asked


FEATURES: EvidenceSource = EvidenceSource(
    _NAME, _depends, compute_features, lambda config: config.selection.features_file is None
)

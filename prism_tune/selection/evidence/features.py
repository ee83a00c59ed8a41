"""Features of a pool: a hidden state, pooled, of every distinct (images, prompt).

A config goes in; one store for each layer comes out, all filled in one pass through the first k
decoder layers.

Shape legend: N records, U feature rows, D width.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import ConfigError
from prism_tune.features.shards import StoredRows
from prism_tune.models.load import count_layers
from prism_tune.models.processor import load_processor
from prism_tune.processes import from_main
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.encoding import UnitDataset
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.prefix_check import prefix_is_exact
from prism_tune.selection.evidence.prompts import PromptKind
from prism_tune.selection.evidence.shallow import Extractor, load_extractor
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Reading, depends_on
from prism_tune.selection.evidence.store import EvidenceStore, lock_stores
from prism_tune.selection.evidence.units import find_units, locate_rows
from prism_tune.selection.meter import SelectionMeter

logger = logging.getLogger(__name__)

_NAME: Literal["features"] = "features"
_VERSION = 1


def compute_features(
    config: Config,
    pool: Pool,
    left_out: Mapping[int, Skipped],
    meter: SelectionMeter,
    *,
    force: bool,
) -> Evidence:
    """The features of `selection.layer`; those of `selection.options.layers` are kept as well.

    Raises:
        UserError: a broken image whose policy is "fail"; out of memory with one record.
    """
    began = time.perf_counter()
    processor = load_processor(config.model)
    layers = feature_layers(config)
    stores = {layer: _open_store(config, layer) for layer in layers}
    load = load_extractor(config, layers, processor)
    kind = _decide_prompt(config, pool, list(stores.values()), load, processor)
    units = find_units(config, pool, kind, processor, left_out)
    keys = units.keys
    lacking = set().union(*(store.missing(keys) for store in stores.values()))
    num_missing = len(keys if force else lacking)
    logger.info(
        "features: %d image records have %d distinct inputs (%s prompts); %d to compute",
        *(int((units.unit_N >= 0).sum()), len(keys), kind, num_missing),
    )
    computation = Computation(
        title=_NAME,
        load_runner=load,
        encode=lambda keys: UnitDataset(
            pool,
            [units.record_of[key] for key in keys],
            kind,
            config.model.template,
            processor,
        ),
        tokens_per_batch=config.selection.tokens_per_batch,
        num_workers=config.data.num_workers,
        began=began,
    )
    num_computed = fill(list(stores.values()), keys, computation, meter, force=force)
    store = stores[config.selection.layer]
    reading = Reading(store, tuple(store.find(keys)))
    shards = [shard for shard, _ in reading.shards]
    row_N, skipped = locate_rows(config, pool, units, shards)
    return Evidence(
        values_UD=StoredRows(shards) if shards else None,
        row_N=row_N,
        skipped=skipped,
        readings=(reading,),
        description={
            "num_units": len(keys),
            "num_computed": num_computed,
            "prompt": kind,
            "layers": list(layers),
            "num_model_layers": count_layers(config.model),
        },
    )


def feature_layers(config: Config) -> tuple[int, ...]:
    """The layers computed in one pass: `selection.layer` and `selection.options.layers`.

    Raises:
        ConfigError: `options.layers` is not a list of layer numbers.
    """
    more = config.selection.options.get("layers") or []
    if not isinstance(more, list) or not all(isinstance(n, int) and n >= 0 for n in more):
        raise ConfigError(f"selection.options.layers: expected a list of numbers, got {more!r}")
    return tuple(sorted({config.selection.layer, *more}))


def _depends(config: Config) -> dict[str, Any]:
    return depends_on(config, _NAME, _VERSION)


def _open_store(config: Config, layer: int) -> EvidenceStore:
    depends = {**_depends(config), "selection.layer": layer}
    return EvidenceStore(config.output_dir, _NAME, depends)


def _decide_prompt(
    config: Config,
    pool: Pool,
    stores: Sequence[EvidenceStore],
    load: Callable[[], Extractor],
    processor: Any,
) -> PromptKind:
    """How much of a record the model has to read: measured once, remembered in the stores."""
    if config.selection.features != "visual":
        return config.selection.features

    def read() -> list[PromptKind | None]:
        return [store.about("prompt") for store in stores]

    def decide() -> PromptKind:
        if None in read():
            with lock_stores(stores):
                if None in read():
                    measure()
        return "whole" if "whole" in read() else "prefix"

    def measure() -> None:
        candidates = np.flatnonzero(~pool.is_text_only_N).tolist()
        exact = prefix_is_exact(load(), pool, candidates, config.model.template, processor)
        for store in stores:
            store.begin(
                prompt="prefix" if exact else "whole",
                preprocessing=json.loads(processor.image_processor.to_json_string()),
            )

    return from_main(decide)


FEATURES = EvidenceSource(_NAME, _depends, compute_features)

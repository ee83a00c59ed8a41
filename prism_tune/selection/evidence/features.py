"""Features of a pool: a config in, a store with the feature of every record out.

Every distinct (images, prompt) is computed once, with the first k decoder layers only, shard by
shard; shard i belongs to process i modulo their number. What a store already has is kept.

Shape legend: N records, U feature rows, D width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import ConfigError
from prism_tune.features.shards import StoredFeatures
from prism_tune.models.load import count_layers, pick_device, resolve_dtype
from prism_tune.models.processor import load_processor
from prism_tune.processes import from_main, main_first
from prism_tune.run.fingerprints import fingerprint_model
from prism_tune.run.folder import RunDir
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.encoding import UnitDataset
from prism_tune.selection.evidence.filling import Computation, fill_store
from prism_tune.selection.evidence.pool_units import find_pool_units, locate_rows
from prism_tune.selection.evidence.prefix_check import prefix_is_exact
from prism_tune.selection.evidence.prompts import PromptKind
from prism_tune.selection.evidence.request import Request
from prism_tune.selection.evidence.shallow import load_extractor
from prism_tune.selection.evidence.shard_builder import Counts
from prism_tune.selection.evidence.store import FeatureStore
from prism_tune.selection.evidence.units import Units

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureTable:
    """Every record's feature: row `row_N[n]` of `values_UD`; row -1 has none.

    `values_UD` is None for a pool without usable image record; `skipped` are the records left out,
    with reasons. `measured`: numbers of every record (N,) by name, NaN where it has none.
    """

    values_UD: StoredFeatures | None
    row_N: NDArray[np.int64]
    skipped: tuple[Skipped, ...]
    description: dict[str, Any]
    measured: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def keys(self) -> list[str | None]:
        """The store's key of each record's row."""
        keys = [] if self.values_UD is None else self.values_UD.keys
        return [keys[row] if row >= 0 else None for row in self.row_N.tolist()]


def extract_features(request: Request) -> FeatureTable:
    """Compute what the run's feature store does not have yet.

    Raises:
        UserError: a broken image whose policy is "fail"; out of memory with one record.
    """
    config, pool, cache = request.config, request.pool, request.run.features
    extraction = _Extraction(config, request.run, pool)
    kind = extraction.prepare_store(request.force)
    units = find_pool_units(config, pool, kind, extraction.processor, cache, request.left_out)
    num_computed = extraction.compute(units, kind, request.on_shard)
    return extraction.build_table(units, kind, num_computed)


def without_features(request: Request) -> FeatureTable:
    """The table for scorers that need no features: nothing is computed."""
    nothing_N = np.full(len(request.pool), -1)
    return FeatureTable(None, nothing_N, tuple(request.left_out.values()), {})


def model_inputs(config: Config) -> dict[str, Any]:
    """Everything the model's states depend on besides what it reads, by name."""
    dtype = resolve_dtype(config.selection.dtype, pick_device())
    return {
        "model": fingerprint_model(config.model.path, config.model.revision),
        "model.image_aspect_ratio": config.model.image_aspect_ratio,
        "model.attn_implementation": config.model.attn_implementation,
        "selection.dtype": str(dtype).removeprefix("torch."),
    }


def feature_inputs(config: Config) -> dict[str, Any]:
    """Everything a feature depends on besides images, prompt and layer, by name."""
    return {
        **model_inputs(config),
        "selection.features": config.selection.features,
        "selection.pooling": config.selection.pooling,
    }


def feature_store(config: Config, run: RunDir) -> FeatureStore:
    """The run's store of what the config asks for."""
    about = {
        "model.path": config.model.path,
        "model.revision": config.model.revision,
    }
    return FeatureStore(run.features, feature_inputs(config), feature_layers(config), about)


def feature_layers(config: Config) -> tuple[int, ...]:
    """The layers computed in one pass: `selection.layer` and `selection.options.layers`.

    Raises:
        ConfigError: `options.layers` is not a list of layer numbers.
    """
    more = config.selection.options.get("layers", [])
    if not isinstance(more, list) or not all(isinstance(n, int) and n >= 0 for n in more):
        raise ConfigError(f"selection.options.layers: expected a list of numbers, got {more!r}")
    return tuple(sorted({config.selection.layer, *more}))


class _Extraction:
    """What the steps of one extraction share."""

    def __init__(self, config: Config, run: RunDir, pool: Pool) -> None:
        self.config = config
        self.pool = pool
        self.processor = load_processor(config.model)
        self.device = pick_device()
        self.dtype = resolve_dtype(config.selection.dtype, self.device)
        self.layers = feature_layers(config)
        self.store = feature_store(config, run)
        image_processor: Any = self.processor.image_processor
        self.store.about["preprocessing"] = json.loads(image_processor.to_json_string())
        self._load_extractor = load_extractor(
            config, self.layers, self.processor, self.dtype, self.device
        )

    def prepare_store(self, force: bool) -> PromptKind:
        """Make the store on disk fit, and decide how much of a record the model has to read."""
        stored = from_main(lambda: self.store.open("features", force=force))
        if stored is not None:
            return stored
        kind = from_main(self._choose_prompts)
        main_first(lambda: self.store.begin(kind))
        return kind

    def compute(self, units: Units, kind: PromptKind, on_shard: Callable[[Counts], None]) -> int:
        """Compute the features that the store does not have; returns how many."""
        record_of = dict(zip(units.keys, units.records, strict=True))
        template = self.config.model.template
        computation = Computation(
            title="features",
            load_runner=self._load_extractor,
            encode=lambda keys: UnitDataset(
                self.pool, [record_of[key] for key in keys], kind, template, self.processor
            ),
            num_workers=self.config.data.num_workers,
        )
        num_records = int((units.unit_N >= 0).sum())
        return fill_store(
            self.store,
            units.keys,
            computation,
            on_shard,
            lambda num_missing: logger.info(
                "features: %d image records have %d distinct inputs (%s prompts); %d to compute",
                *(num_records, len(units.keys), kind, num_missing),
            ),
        )

    def build_table(self, units: Units, kind: PromptKind, num_computed: int) -> FeatureTable:
        """The rows of all processes' shards, and which record has which."""
        shards = self.store.shards()
        units, row_N = locate_rows(self.config, self.pool, units, shards)
        values_UD = StoredFeatures(shards, self.config.selection.layer) if shards else None
        description = {
            "num_units": len(units.keys),
            "num_computed": num_computed,
            "prompt": kind,
            "dtype": str(self.dtype).removeprefix("torch."),
            "layers": list(self.layers),
            "num_model_layers": count_layers(self.config.model),
            "fingerprint": self.store.fingerprint,
        }
        return FeatureTable(values_UD, row_N, units.skipped, description)

    def _choose_prompts(self) -> PromptKind:
        if self.config.selection.features != "visual":
            return self.config.selection.features
        template = self.config.model.template
        candidates = np.flatnonzero(~self.pool.is_text_only_N).tolist()
        exact = prefix_is_exact(
            self._load_extractor(), self.pool, candidates, template, self.processor
        )
        return "prefix" if exact else "whole"

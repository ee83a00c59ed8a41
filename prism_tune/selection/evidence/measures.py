"""Numbers of whole records under the whole target model: computed once, kept in the run folder.

A pool goes in; one row of numbers per distinct (images, conversation) comes out of a store of its
own, `selection/<name>/`, filled and resumed exactly like the feature store. Budget, scope and
`keep` touch none of it.

Shape legend: N records, U rows of the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.features.shards import Shard, StoredFeatures
from prism_tune.models.load import load_model, pick_device, resolve_dtype
from prism_tune.models.processor import load_processor
from prism_tune.processes import from_main, main_first
from prism_tune.run.folder import RunDir
from prism_tune.selection.evidence.features import FeatureTable, model_inputs
from prism_tune.selection.evidence.filling import Computation, fill_store
from prism_tune.selection.evidence.pool_units import find_pool_units, locate_rows
from prism_tune.selection.evidence.record_encoding import RecordDataset
from prism_tune.selection.evidence.request import Request
from prism_tune.selection.evidence.runner import OUTPUT, BatchRunner
from prism_tune.selection.evidence.store import FeatureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measure:
    """What is computed of a record.

    `columns` name the numbers; `build_runner` gives what computes them, from the config, the model
    and its processor; `options` are what they depend on besides model and data.
    """

    name: str
    columns: tuple[str, ...]
    build_runner: Callable[[Config, PreTrainedModel, Any], BatchRunner]
    options: Callable[[Config], Mapping[str, Any]] = lambda config: {}

    def store(self, config: Config, run: RunDir) -> FeatureStore:
        """The run's store of these numbers."""
        return FeatureStore(run.selection / self.name, self.inputs(config), (OUTPUT,))

    def inputs(self, config: Config) -> dict[str, Any]:
        """Everything a record's numbers depend on besides its content, by name."""
        return {
            **model_inputs(config),
            "columns": list(self.columns),
            "model.template": config.model.template,
            "data.max_length": config.data.max_length,
            **self.options(config),
        }


def measure_records(measure: Measure, request: Request) -> FeatureTable:
    """Compute what the measure's store does not have; every record's numbers by column.

    Raises:
        UserError: a record that cannot be used and whose policy is "fail"; out of memory with one
            record.
    """
    config, run, pool = request.config, request.run, request.pool
    title = measure.name.replace("_", " ")
    store = measure.store(config, run)
    if from_main(lambda: store.open(title, force=request.force)) is None:
        main_first(lambda: store.begin("answers"))
    processor = load_processor(config.model)
    units = find_pool_units(config, pool, "answers", processor, run.features, request.left_out)
    num_computed = fill_store(
        store,
        units.keys,
        _computation(measure, config, pool, dict(zip(units.keys, units.records, strict=True))),
        request.on_shard,
        lambda num_missing: logger.info(
            "%s: %d distinct records; %d to compute", title, len(units.keys), num_missing
        ),
    )
    shards = store.shards()
    units, row_N = locate_rows(config, pool, units, shards)
    description = {
        "num_units": len(units.keys),
        "num_computed": num_computed,
        "fingerprint": store.fingerprint,
    }
    return FeatureTable(
        values_UD=None,
        row_N=np.full(len(pool), -1),
        skipped=units.skipped,
        description={measure.name: description},
        measured=_read_columns(measure.columns, shards, row_N),
    )


def _computation(
    measure: Measure, config: Config, pool: Pool, record_of: Mapping[str, int]
) -> Computation:
    processor = load_processor(config.model)
    device = pick_device()

    @cache
    def load_runner() -> BatchRunner:
        dtype = resolve_dtype(config.selection.dtype, device)
        return measure.build_runner(
            config, load_model(config.model, dtype=dtype, device=device), processor
        )

    return Computation(
        title=measure.name.replace("_", " "),
        load_runner=load_runner,
        encode=lambda keys: RecordDataset(
            pool, [record_of[key] for key in keys], config, processor
        ),
        num_workers=config.data.num_workers,
        order=lambda key: sum(len(turn.text) for turn in pool[record_of[key]].turns),
    )


def _read_columns(
    columns: Sequence[str], shards: Sequence[Shard], row_N: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    values = np.full((1, len(columns)), np.nan)  # row -1, of records without any
    if shards:
        stored = StoredFeatures(shards, OUTPUT)
        values = np.concatenate([stored[slice(0, stored.shape[0])].astype(np.float64), values])
    return {name: values[row_N, number] for number, name in enumerate(columns)}

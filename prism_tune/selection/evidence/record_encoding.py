"""Whole records as model inputs: token ids, labels and images, exactly as training sees them.

Indices of records go in; units with `labels` among their inputs come out, where `pooled_L` marks
the tokens that carry loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from prism_tune.config.sections import Config
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.images import ImageError
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import Pool
from prism_tune.selection.evidence.encoding import Encoded


class RecordDataset(Dataset[Encoded]):
    """Encodes records with the config's template and `data.max_length`.

    Args:
        pool: the records.
        records: which of them, in this order.
        config: the model and data sections are read.
        processor: the model's.
    """

    def __init__(self, pool: Pool, records: Sequence[int], config: Config, processor: Any) -> None:
        self._pool = pool
        self._records = records
        self._examples = TuningDataset(
            pool, records, processor, config.model.template, config.data.max_length
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> Encoded:
        """The record's inputs; empty, with the reason, where it cannot be used."""
        index = self._records[number]
        try:
            inputs = self._examples.encode(index)
        except (BadRecordError, ImageError) as error:
            return Encoded({}, torch.zeros(0, dtype=torch.bool), 0, (error.reason, str(error)))
        return Encoded(inputs, inputs["labels"] != IGNORED_LABEL, len(self._pool.images(index)))

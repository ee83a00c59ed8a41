"""What the inside of the decoder says of whole records, answers included.

A pool goes in; one row per distinct (images, conversation) comes out, of a pass through no more
layers than it takes. Records are encoded and cut as training sees them. A text-only record that is
ranked is shown a blank image where the kind of evidence reads image tokens.

Shape legend: L tokens of one record.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from prism_tune.config.depends import Artifact
from prism_tune.config.sections import Config
from prism_tune.data.encoding.encoder import image_token_id
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.processor import load_processor
from prism_tune.schema import IMAGE_PLACEHOLDER, Skipped, Turn
from prism_tune.selection.evidence.encoding import ConversationDataset, Encoded, first_usable
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.shallow import ShallowModel
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering, depends_on
from prism_tune.selection.evidence.store import EvidenceStore
from prism_tune.selection.evidence.units import find_units, locate_rows
from prism_tune.selection.reference.read import load_shallow

_BLANK = (336, 336)


class SeenDataset(ConversationDataset):
    """Encodes whole records, each with an image; image tokens, and what follows them, apart."""

    def encode(self, index: int) -> dict[str, torch.Tensor]:
        """A text-only record with a blank image in front of its first question."""
        record = self._pool[index]
        if not record.is_text_only:
            return super().encode(index)
        first, *others = record.turns
        asked = Turn(first.role, f"{IMAGE_PLACEHOLDER}\n{first.text}", first.has_loss)
        shown = replace(record, turns=(asked, *others))
        return self._examples.encode_record(shown, [Image.new("RGB", _BLANK)])

    def __getitem__(self, number: int) -> Encoded:
        """The record's inputs."""
        unit = super().__getitem__(number)
        if unit.fault is not None:
            return unit
        is_image_L = unit.inputs["input_ids"] == image_token_id(self._examples.processor)
        behind_L = torch.zeros_like(is_image_L)
        behind_L[int(is_image_L.nonzero().max()) + 1 :] = True
        return replace(unit, pooled_L=is_image_L, instruction_L=behind_L)


class Inspector(ShallowModel, ABC):
    """Runs a shallow model on whole records (a `Runner`)."""

    width: int

    @abstractmethod
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The rows of a batch."""


@dataclass(frozen=True)
class Inspection:
    """How rows are made of the inside of a model.

    Attributes:
        depends: what a row depends on besides records and model, by name.
        num_layers: how many decoder layers it takes.
        inspector: computes the rows, from the config, the model and its processor.
        dataset: what the model is shown.
    """

    depends: Callable[[Config], dict[str, Any]]
    num_layers: Callable[[Config], int]
    inspector: Callable[[Config, PreTrainedModel, Any], Inspector]
    dataset: type[ConversationDataset] = ConversationDataset
    version: int = 1


def conversation_source(name: Artifact, inspection: Inspection) -> EvidenceSource:
    """The source of rows of whole records.

    Args:
        name: of the kind, and of what it depends on in `config/depends.py`.
        inspection: how its rows are made.
    """

    def depends(config: Config) -> dict[str, Any]:
        declared = depends_on(config, name, inspection.version)
        declared.pop("selection.options", None)  # most of them are of what comes after
        return {**declared, **inspection.depends(config)}

    def compute(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
        began = time.perf_counter()
        config, pool = gathering.config, gathering.pool
        store = EvidenceStore(config.output_dir, name, depends(config))
        processor = load_processor(config.model)
        units = find_units(config, pool, "conversation", processor, left_out)

        def encode(keys: Sequence[str]) -> ConversationDataset:
            records = [units.record_of[key] for key in keys]
            return inspection.dataset(pool, records, config, processor)

        @cache
        def load_runner() -> Inspector:
            device = pick_device()
            dtype = resolve_dtype(config.selection.dtype, device)
            depth = inspection.num_layers(config)
            model = load_shallow(config, depth, dtype=dtype, device=device)
            inspector = inspection.inspector(config, model, processor)
            unit = first_usable(encode(units.keys))
            if unit is not None:
                inspector.check(unit)
            return inspector

        computation = Computation(
            title=name.replace("_", " "),
            load_runner=load_runner,
            encode=encode,
            tokens_per_batch=config.selection.tokens_per_batch,
            num_workers=config.data.num_workers,
            began=began,
            order=lambda key: sum(len(turn.text) for turn in pool[units.record_of[key]].turns),
        )
        return locate_rows(config, pool, units, fill([store], units.keys, computation, gathering))

    return EvidenceSource(name, depends, compute)

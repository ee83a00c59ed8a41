"""Numbers of whole records under the whole target model.

A pool goes in; one row of numbers per distinct (images, conversation) comes out. Logits exist only
at the positions that predict an answer token, a block of them at a time.

Of each record, over its answer tokens t (those that carry loss in training) with p_t the model's
next-token distribution, the answer losses are: nll = mean -log p_t[y_t], el2n = mean
|p_t - onehot(y_t)|, and how many tokens these are.

Shape legend: B records, L tokens, P predicted answer tokens of a batch, D width, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prism_tune.config.depends import Artifact
from prism_tune.config.sections import Config
from prism_tune.data.collator import Collator
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.families import parts
from prism_tune.models.flops import count_parameters, count_patches, estimate_flops
from prism_tune.models.guards import check_use
from prism_tune.models.processor import load_processor
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.encoding import Encoded, RecordDataset, first_usable
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.runner import Rows, Runner, place_batch
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering, depends_on
from prism_tune.selection.evidence.store import EvidenceStore
from prism_tune.selection.evidence.units import find_units, locate_rows
from prism_tune.selection.reference.read import load_model

_VERSION = 1
_LOGITS_BYTES = 256 << 20  # of one block in float32: 1,700 tokens of a vocabulary of 32,000


@dataclass(frozen=True)
class Predictions:
    """Of a batch: hidden states (P, D), the tokens to come (P,), and how many each record has."""

    hidden_PD: torch.Tensor
    targets_P: torch.Tensor
    counts_B: list[int]

    def per_record(self, values_P: torch.Tensor) -> torch.Tensor:
        """The mean of each record's tokens, (B,)."""
        return torch.stack([part.mean() for part in values_P.split(self.counts_B)])


class WholeModel:
    """A model with its head, on batches of records.

    Args:
        model: as `load_model` gives it.
        processor: the model's.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        self.head = head
        self._model = model
        self._collate = Collator(processor, model.dtype)
        found = parts(model)
        self._parts = found
        self._base = found.base
        self.language_model = found.language_model
        decoder: Any = found.language_model
        self._decoder_size = count_parameters(decoder.layers, active=found.active_share)
        self._vision_size = count_parameters(found.vision_tower, found.projector)

    def check(self, unit: Encoded) -> None:
        """Check the model on one record (see `models.guards`).

        Raises:
            UserError: numbers of its answers would mean nothing.
        """
        base: Any = self._base
        check_use(
            lambda inputs, keep_BL: base(**inputs, use_cache=False).last_hidden_state[keep_BL],
            place_batch([unit], self._collate, self._model),
            self._parts,
        )

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """A forward pass through the decoder, the vision side and, for answers, the head."""
        config = self._model.config
        return estimate_flops(
            (self._decoder_size, sum(len(unit.pooled_L) for unit in batch)),
            (
                self._vision_size,
                sum(count_patches(unit.inputs["pixel_values"], config) for unit in batch),
            ),
            (count_parameters(self.head), sum(int(unit.pooled_L.sum()) for unit in batch)),
        )

    def predict(self, batch: Sequence[Encoded]) -> Predictions:
        """What the answers' tokens are predicted from."""
        inputs = place_batch(batch, self._collate, self._model)
        targets_BL = inputs.pop("labels")[:, 1:]
        outputs: Any = self._base(**inputs, use_cache=False)
        predicts_BL = targets_BL != IGNORED_LABEL
        return Predictions(
            hidden_PD=outputs.last_hidden_state[:, :-1][predicts_BL],
            targets_P=targets_BL[predicts_BL],
            counts_B=predicts_BL.sum(dim=1).tolist(),
        )

    def logits(self, found: Predictions) -> Iterator[tuple[slice, torch.Tensor]]:
        """Float32 logits (rows, V), a block of rows at a time, and which rows these are."""
        num_rows = max(1, _LOGITS_BYTES // (4 * self.head.out_features))
        for start in range(0, len(found.targets_P), num_rows):
            rows = slice(start, start + num_rows)
            yield rows, self.head(found.hidden_PD[rows]).float()


class AnswerLosses:
    """Gives the answer losses of every record (a `Runner`): one forward pass."""

    width = 3

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self._whole = WholeModel(model, processor)
        self.estimate_flops = self._whole.estimate_flops

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """nll, el2n and the number of answer tokens, (B, 3)."""
        found = self._whole.predict(batch)
        nll_P = torch.empty(len(found.targets_P), device=found.targets_P.device)
        el2n_P = torch.empty_like(nll_P)
        for rows, logits in self._whole.logits(found):
            targets = found.targets_P[rows, None]
            errors = torch.log_softmax(logits, dim=-1)
            nll_P[rows] = -errors.gather(1, targets)[:, 0]
            errors.exp_().scatter_add_(1, targets, -torch.ones_like(errors[:, :1]))
            el2n_P[rows] = torch.linalg.vector_norm(errors, dim=1)
        counts_B = torch.tensor(found.counts_B, dtype=torch.float32, device=nll_P.device)
        columns = [found.per_record(nll_P), found.per_record(el2n_P), counts_B]
        return [torch.stack(columns, dim=1)]


BuildRunner = Callable[[Config, PreTrainedModel, Any], Runner]
"""What computes the numbers, from the config, the model and its processor."""


def whole_model_source(
    name: Artifact, columns: tuple[str, ...], build_runner: BuildRunner
) -> EvidenceSource:
    """The source of numbers of whole records.

    Args:
        name: of the kind, and of what it depends on in `config/depends.py`.
        columns: names of the numbers.
        build_runner: computes them.
    """

    def depends(config: Config) -> dict[str, Any]:
        return depends_on(config, name, _VERSION)

    def compute(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
        began = time.perf_counter()
        config, pool = gathering.config, gathering.pool
        store = EvidenceStore(config.output_dir, name, depends(config))
        processor = load_processor(config.model)
        units = find_units(config, pool, "answers", processor, left_out)

        def encode(keys: Sequence[str]) -> RecordDataset:
            return RecordDataset(pool, [units.record_of[key] for key in keys], config, processor)

        computation = Computation(
            title=name.replace("_", " "),
            load_runner=_load_later(config, processor, build_runner, encode(units.keys)),
            encode=encode,
            tokens_per_batch=config.selection.tokens_per_batch,
            num_workers=config.data.num_workers,
            began=began,
            order=lambda key: sum(len(turn.text) for turn in pool[units.record_of[key]].turns),
        )
        reading = fill([store], units.keys, computation, gathering)
        return locate_rows(config, pool, units, reading, columns=columns)

    return EvidenceSource(name, depends, compute)


def _load_later(
    config: Config, processor: Any, build_runner: BuildRunner, records: RecordDataset
) -> Callable[[], Runner]:
    """A function that loads the model, checks it on the first usable record, and not again."""

    @cache
    def load_runner() -> Runner:
        device = pick_device()
        dtype = resolve_dtype(config.selection.dtype, device)
        model = load_model(config, dtype=dtype, device=device)
        unit = first_usable(records)
        if unit is not None:
            WholeModel(model, processor).check(unit)
        return build_runner(config, model, processor)

    return load_runner


ANSWER_LOSSES: EvidenceSource = whole_model_source(
    "answer_losses",
    ("nll", "el2n", "num_answer_tokens"),
    lambda config, model, processor: AnswerLosses(model, processor),
)
"""Read by perplexity, el2n and d2: who has computed one has all."""

"""Numbers of whole records under the whole target model.

A pool goes in; one row of numbers per distinct (images, conversation) comes out. Logits exist only
at the positions that predict an answer token, a block of them at a time.

Of each record, over its answer tokens t (those that carry loss in training) with p_t the model's
next-token distribution, the answer losses are: nll = mean -log p_t[y_t]; el2n = mean
|p_t - onehot(y_t)|; margin = mean p_t[y_t] - max of the other p_t (the area under the margin, of
one model); turn_nll = the mean over the turns of the nll of each; and how many tokens these are.

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
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from prism_tune.config.depends import Artifact
from prism_tune.config.sections import Config
from prism_tune.data.collator import Collator
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.records import Pool
from prism_tune.errors import UserError
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.families import parts
from prism_tune.models.flops import count_parameters, estimate_flops
from prism_tune.models.guards import check_use
from prism_tune.models.processor import load_processor
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.encoding import Encoded, RecordDataset, first_usable
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.runner import Rows, Runner, count_seen, place_batch
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering, depends_on
from prism_tune.selection.evidence.store import EvidenceStore
from prism_tune.selection.evidence.units import find_units, locate_rows
from prism_tune.selection.reference.read import load_model

LOSS_COLUMNS: tuple[str, ...] = ("nll", "el2n", "margin", "turn_nll", "num_answer_tokens")

_LOGITS_BYTES = 256 << 20  # of one block in float32: 1,700 tokens of a vocabulary of 32,000


@dataclass(frozen=True)
class Predictions:
    """Of a batch: hidden states (P, D), the tokens to come (P,), and how many each record has.

    `begins_P` marks the first token of each answer.
    """

    hidden_PD: torch.Tensor
    targets_P: torch.Tensor
    counts_B: list[int]
    begins_P: torch.Tensor

    def per_record(self, values_P: torch.Tensor) -> torch.Tensor:
        """The mean of each record's tokens, (B,)."""
        return torch.stack([part.mean() for part in values_P.split(self.counts_B)])

    def per_turn(self, values_P: torch.Tensor) -> torch.Tensor:
        """The mean over each record's turns of the mean of a turn's tokens, (B,)."""
        turn_P = self.begins_P.cumsum(0) - 1
        num_P = torch.bincount(turn_P)
        sums = torch.zeros(len(num_P), device=values_P.device).index_add(0, turn_P, values_P)
        num_turns_B = [int(part.sum()) for part in self.begins_P.split(self.counts_B)]
        return torch.stack([part.mean() for part in (sums / num_P).split(num_turns_B)])


class WholeModel:
    """A model with its head, on batches of records.

    Args:
        model: as `load_model` gives it.
        processor: the model's.

    Raises:
        UserError: an adapter on the head.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):  # LoRA's, or a copy that is trained in its place
            raise UserError(
                "selection.reference.adapter adapts the language-modelling head, whose gradient "
                "is read apart; expected one that leaves `lm_head` as it is"
            )
        self.head = head
        self.model = model
        self.dtype = model.dtype
        self._collate = Collator(processor, model.dtype, with_dummy=False)
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
            place_batch([unit], self._collate, self.model),
            self._parts,
        )

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """A forward pass through the decoder, the vision side and, for answers, the head."""
        return estimate_flops(
            (self._decoder_size, sum(len(unit.pooled_L) for unit in batch)),
            (self._vision_size, count_seen(batch, self.model)),
            (count_parameters(self.head), sum(int(unit.pooled_L.sum()) for unit in batch)),
        )

    def predict(self, batch: Sequence[Encoded]) -> Predictions:
        """What the answers' tokens are predicted from."""
        inputs = place_batch(batch, self._collate, self.model)
        targets_BL = inputs.pop("labels")[:, 1:]
        outputs: Any = self._base(**inputs, use_cache=False)
        predicts_BL = targets_BL != IGNORED_LABEL
        begins_BL = predicts_BL.clone()
        begins_BL[:, 1:] &= ~predicts_BL[:, :-1]
        return Predictions(
            hidden_PD=outputs.last_hidden_state[:, :-1][predicts_BL],
            targets_P=targets_BL[predicts_BL],
            counts_B=predicts_BL.sum(dim=1).tolist(),
            begins_P=begins_BL[predicts_BL],
        )

    def logits(self, found: Predictions) -> Iterator[tuple[slice, torch.Tensor]]:
        """Float32 logits (rows, V), a block of rows at a time, and which rows these are."""
        num_rows = max(1, _LOGITS_BYTES // (4 * self.head.out_features))
        for start in range(0, len(found.targets_P), num_rows):
            rows = slice(start, start + num_rows)
            yield rows, self.head(found.hidden_PD[rows]).float()


class AnswerLosses:
    """Gives the answer losses of every record (a `Runner`): one forward pass."""

    width = 5

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self._whole = WholeModel(model, processor)
        self.dtype = model.dtype
        self.estimate_flops = self._whole.estimate_flops

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """nll, el2n, margin, turn_nll and the number of answer tokens, (B, 5)."""
        found = self._whole.predict(batch)
        nll_P = torch.empty(len(found.targets_P), device=found.targets_P.device)
        el2n_P, margin_P = torch.empty_like(nll_P), torch.empty_like(nll_P)
        for rows, logits in self._whole.logits(found):
            targets = found.targets_P[rows, None]
            errors = torch.log_softmax(logits, dim=-1)
            nll_P[rows] = -errors.gather(1, targets)[:, 0]
            errors.exp_().scatter_add_(1, targets, -torch.ones_like(errors[:, :1]))
            el2n_P[rows] = torch.linalg.vector_norm(errors, dim=1)
            # An error is p - 1 <= 0 at the target, so the largest is the likeliest other token's.
            margin_P[rows] = torch.exp(-nll_P[rows]) - errors.amax(dim=1)
        counts_B = torch.tensor(found.counts_B, dtype=torch.float32, device=nll_P.device)
        means = [found.per_record(values_P) for values_P in (nll_P, el2n_P, margin_P)]
        return [torch.stack([*means, found.per_turn(nll_P), counts_B], dim=1)]


BuildRunner = Callable[[Config, PreTrainedModel, Any], Runner]
"""What computes the numbers, from the config, the model and its processor."""

LoadModel = Callable[..., PreTrainedModel]
"""`load_model` or `load_adapted` of `selection/reference/read.py`."""

Encode = Callable[[Pool, Sequence[int], Config, Any], Dataset[Encoded]]
"""What the model reads of some records of a pool."""


def whole_model_source(
    name: Artifact,
    columns: tuple[str, ...],
    build_runner: BuildRunner,
    *,
    encode: Encode = RecordDataset,
    version: int = 1,
    more: Mapping[str, Any] | None = None,
    load: LoadModel | None = None,
) -> EvidenceSource:
    """The source of numbers of whole records.

    Args:
        name: of the kind, and of what it depends on in `config/depends.py`.
        columns: names of the numbers.
        build_runner: computes them.
        encode: the records, as training sees them unless told otherwise.
        version: of the code; another number makes all rows anew.
        more: what else a row depends on, by name.
        load: the model, merged with the adapter it is read with unless told otherwise.
    """

    def depends(config: Config) -> dict[str, Any]:
        return {**depends_on(config, name, version), **(more or {})}

    def compute(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
        began = time.perf_counter()
        config, pool = gathering.config, gathering.pool
        store = EvidenceStore(config.output_dir, name, depends(config))
        processor = load_processor(config.model)
        units = find_units(config, pool, "answers", processor, left_out)

        def records(keys: Sequence[str]) -> list[int]:
            return [units.record_of[key] for key in keys]

        seen = RecordDataset(pool, records(units.keys), config, processor)
        computation = Computation(
            title=name.replace("_", " "),
            load_runner=_load_later(config, processor, build_runner, seen, load or load_model),
            encode=lambda keys: encode(pool, records(keys), config, processor),
            tokens_per_batch=config.selection.tokens_per_batch,
            num_workers=config.data.num_workers,
            began=began,
            order=lambda key: sum(len(turn.text) for turn in pool[units.record_of[key]].turns),
        )
        reading = fill([store], units.keys, computation, gathering)
        return locate_rows(config, pool, units, reading, columns=columns)

    return EvidenceSource(name, depends, compute)


def _load_later(
    config: Config,
    processor: Any,
    build_runner: BuildRunner,
    records: RecordDataset,
    load: LoadModel,
) -> Callable[[], Runner]:
    """A function that loads the model, checks it on the first usable record, and not again."""

    @cache
    def load_runner() -> Runner:
        device = pick_device()
        dtype = resolve_dtype(config.selection.dtype, device)
        model = load(config, dtype=dtype, device=device)
        unit = first_usable(records)
        if unit is not None:
            WholeModel(model, processor).check(unit)
        return build_runner(config, model, processor)

    return load_runner


def build_answer_losses(config: Config, model: PreTrainedModel, processor: Any) -> AnswerLosses:
    """The answer losses, whatever the config says."""
    return AnswerLosses(model, processor)


ANSWER_LOSSES: EvidenceSource = whole_model_source(
    "answer_losses",
    LOSS_COLUMNS,
    build_answer_losses,
    version=2,
)
"""Read by perplexity, el2n, d2 and visual_gain: who has computed one has all."""

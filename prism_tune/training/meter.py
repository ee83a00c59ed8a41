"""What training has gone through: tokens, images, records, and the speed of each.

FLOPs are an estimate (`models/flops.py`) over the language model: a token passes its parameters
forward and back, and once more those that are *trained* (Kaplan et al. 2020 count 6 a parameter
when all are). The vision tower and recomputation are left out.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from prism_tune.data.collator import first_tokens
from prism_tune.models.devices import name_device
from prism_tune.models.families import Parts
from prism_tune.models.flops import count_parameters, estimate_flops
from prism_tune.models.tuning import TunedModel, tuned_parts
from prism_tune.processes import is_main, world_size
from prism_tune.run.folder import RunDir
from prism_tune.run.timings import StageTimer, forget_finished

_COUNTED = ("tokens", "images", "records")


def stage_timer(
    run: RunDir, key: str, device: torch.device, *, restart: bool, goes_on: bool
) -> StageTimer | None:
    """Times the stage from now on, on the main process; the other ranks get None.

    Attempts that were killed count, unless `restart` throws their checkpoints away; one that has
    finished, and whose model is gone, only where this one goes on from a checkpoint of it.
    """
    if not is_main():
        return None
    if not (restart or goes_on):
        forget_finished(run, "training", key)
    return StageTimer(
        run,
        "training",
        fingerprint=key,
        device=name_device(device),
        num_devices=world_size(),
        restart=restart,
    )


class Meter:
    """Counts this rank's batches; `read` sums over ranks and saves to the run's timings.

    Args:
        timer: of the stage, on the main process; None on the others.
        image_token_id: each unbroken run of it is counted as one image.
        flops_per_token: see `flops_per_token`.
    """

    def __init__(
        self, timer: StageTimer | None, *, image_token_id: int, flops_per_token: float
    ) -> None:
        self._timer = timer
        self._image_token_id = image_token_id
        self._flops_per_token = flops_per_token
        self._local = torch.zeros(len(_COUNTED), dtype=torch.long)
        self._since = time.perf_counter()
        self.totals = dict.fromkeys(_COUNTED, 0)

    def add_batch(self, inputs: dict[str, Any]) -> None:
        """Count a batch (B x L); padding and dummy images, both masked, are not counted."""
        mask_BL = inputs["attention_mask"].bool()
        image_BL = (inputs["input_ids"] == self._image_token_id) & mask_BL
        begins_BL = first_tokens(inputs) & mask_BL
        starts_BL = image_BL.clone()
        starts_BL[:, 1:] &= ~image_BL[:, :-1] | begins_BL[:, 1:]
        counted = torch.stack([mask_BL.sum(), starts_BL.sum(), begins_BL.sum()])
        self._local = self._local.to(counted.device) + counted

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Tokens/s and images/s over all ranks since the last call; called on every rank."""
        summed = accelerator.gather(self._local.to(accelerator.device)[None]).sum(dim=0).tolist()
        counts = dict(zip(_COUNTED, summed, strict=True))
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self._local.zero_()
        self.totals = {name: self.totals[name] + counts[name] for name in _COUNTED}
        if self._timer is not None:
            self._timer.tick(flops=counts["tokens"] * self._flops_per_token, **counts)
        return {
            "tokens_per_second": round(counts["tokens"] / seconds, 1),
            "images_per_second": round(counts["images"] / seconds, 2),
        }


def build_meter(timer: StageTimer | None, model: TunedModel) -> Meter:
    """A meter for a model that is ready for tuning."""
    found = tuned_parts(model)
    return Meter(
        timer, image_token_id=found.image_token_id, flops_per_token=flops_per_token(model, found)
    )


def flops_per_token(model: nn.Module, found: Parts) -> float:
    """The estimate described above, from the parameter counts of the loaded model."""
    language = count_parameters(found.language_model, active=found.active_share)
    language -= count_parameters(found.base.get_input_embeddings())
    trained = count_parameters(model, trained_only=True, active=found.active_share)
    return estimate_flops((language, 1), (language, 1), (trained, 1))

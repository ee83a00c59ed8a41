"""What the training stage reads: the records, and everything its result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prism_tune.config.sections import Config, DataConfig
from prism_tune.data.records import open_pool
from prism_tune.run.fingerprints import fingerprint_file, fingerprint_model
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.training.arguments import deepspeed_options
from prism_tune.training.batches import counts_tokens

# Options of TrainingArguments that change what is written down, not what is learnt.
_WITHOUT_EFFECT = (
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "disable_tqdm",
    "logging_steps",
    "logging_first_step",
    "report_to",
    "run_name",
    "save_steps",
    "save_strategy",
    "save_total_limit",
)


def training_data(config: Config, run: RunDir) -> DataConfig:
    """The config of the records to train on: the subset, or the whole pool.

    Raises:
        UserError: the subset is asked for and the selection has not finished.
    """
    if config.training.records == "pool":
        return config.data
    Stage(run.selection).require("select")
    image_dir = config.data.image_dir or str(Path(config.data.records).parent)
    return config.data.model_copy(update={"records": str(run.subset), "image_dir": image_dir})


def stage_inputs(config: Config, run: RunDir) -> dict[str, Any]:
    """Everything the tuned weights depend on, by the name shown when it changed.

    Raises:
        UserError: as `training_data`.
    """
    data = training_data(config, run)
    whole_pool = config.training.records == "pool"
    training = config.training.model_dump(mode="json")
    if not counts_tokens(config):
        del training["tokens_per_batch"]
    hf = training.pop("hf")
    training["hf"] = {key: value for key, value in hf.items() if key not in _WITHOUT_EFFECT}
    return {
        "records": open_pool(data).fingerprint if whole_pool else fingerprint_file(run.subset),
        "model weights": fingerprint_model(config.model.path, config.model.revision),
        "model": config.model.model_dump(mode="json"),
        "data": {"max_length": data.max_length, "policy": data.policy, "columns": data.columns},
        "training": {**training, "deepspeed": deepspeed_options(config)},
        "seed": config.seed,
    }

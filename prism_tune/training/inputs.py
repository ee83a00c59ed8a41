"""What the training stage reads: the records, and everything its result depends on.

A config goes in; a flat table comes out, by dotted name of the field or as fingerprints, so that
what differs between two trainings can be said one line each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson
from transformers import TrainingArguments

from prism_tune.config.depends import fields_of
from prism_tune.config.sections import Config, DataConfig
from prism_tune.data.records import open_pool
from prism_tune.data.screening import fingerprint_images
from prism_tune.models.lora import lora_options
from prism_tune.models.processor import resolve_template
from prism_tune.run.fingerprints import fingerprint_file, fingerprint_model
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.run.subset_file import subset_data
from prism_tune.training.arguments import deepspeed_options
from prism_tune.training.batches import packs_rows
from prism_tune.training.hf_options import learning_options

_CONTENT = ("records", "records as read", "images", "model weights")
_LONGEST_SHOWN = 60
_NUM_SHOWN = 12


def training_data(config: Config, run: RunDir) -> DataConfig:
    """The config of the records to train on: the subset, or the whole pool.

    Raises:
        UserError: the subset is asked for, and the selection has not finished or its subset is not
            the file that it wrote.
    """
    if config.training.records == "pool":
        return config.data
    return subset_data(config.data, run)


def stage_inputs(config: Config, run: RunDir) -> dict[str, Any]:
    """Everything the tuned weights depend on, by the name shown when it changed.

    Raises:
        UserError: as `training_data`; records that cannot be read; a DeepSpeed file that cannot.
    """
    data = training_data(config, run)
    pool = open_pool(data)
    fields = fields_of(config, "model")
    for section in ("training.hf", "training.lora"):
        del fields[section]
    fields |= {f"training.hf.{name}": value for name, value in learning_options(config).items()}
    if config.training.tuning in ("lora", "qlora"):
        options = lora_options(config.training.lora)
        fields |= {f"training.lora.{name}": value for name, value in options.items()}
    if not packs_rows(config):
        del fields["training.tokens_per_batch"]
    whole_pool = config.training.records == "pool"
    return {
        **fields,
        "training.deepspeed": deepspeed_options(config),
        "records": pool.fingerprint if whole_pool else fingerprint_file(run.subset),
        "records as read": pool.fingerprint,
        "images": fingerprint_images(pool),
        "model weights": fingerprint_model(config.model.path, config.model.revision),
    }


def find_changes(config: Config, run: RunDir) -> list[str] | None:
    """What a finished training would run again for; None where none has finished."""
    return Stage(run.training).reasons_to_rerun(stage_inputs(resolve_template(config), run))


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two trainings, one line each: both values where they are short.

    Args:
        before: inputs as a record of them has them, JSON.
        now: `stage_inputs`.
    """
    shown = {name: _show(value) for name, value in before.items()}
    wanted = {name: _show(value) for name, value in now.items()}
    usual = {f"training.hf.{f.name}": f.default for f in dataclasses.fields(TrainingArguments)}
    changed = [n for n in sorted(shown.keys() | wanted.keys()) if shown.get(n) != wanted.get(n)]
    lines = []
    for name in changed[:_NUM_SHOWN]:
        default = f"{_show(usual[name])} (its default)" if _is_plain(usual.get(name)) else "not set"
        values = [shown.get(name, default), wanted.get(name, default)]
        says = name not in _CONTENT and max(map(len, values)) <= _LONGEST_SHOWN
        lines.append(f"  {name}: " + (" -> ".join(values) if says else "changed"))
    if len(changed) > _NUM_SHOWN:
        lines.append(f"  and {len(changed) - _NUM_SHOWN} more")
    return "\n".join(lines)


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _show(value: Any) -> str:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(value, option=options).decode()

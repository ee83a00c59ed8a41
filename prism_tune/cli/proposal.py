"""A first config for somebody's model and pool: both looked at, then written as commented YAML.

In: a model's directory or hub id, and records. Out: a config that works as it is, with what was
found as comments beside the values: template, lengths, batch, and the memory that they take.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import torch
from pydantic import ValidationError

from prism_tune.compare.estimates import estimate_run
from prism_tune.compare.shapes import PoolSize, Shape, measure_pool, read_shape
from prism_tune.config.errors import describe_errors
from prism_tune.config.sections import Config, Template, Tuning
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.policy import REASONS
from prism_tune.data.records import Pool, open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.families import family_of
from prism_tune.models.load import load_model_config
from prism_tune.models.processor import load_processor, resolve_template

_NUM_LOOKED_AT = 200
_LENGTHS = (512, 1024, 2048, 4096, 8192)
_SPARE = 1.25
_FILLED = 0.85  # of a device's memory
_BATCHES = (16, 8, 4, 2, 1)
_GLOBAL_BATCH = 128
_LEAST_STEPS = 20
GIB = 1 << 30


@dataclass(frozen=True)
class Wish:
    """What is asked for; None is to be found."""

    model: str
    records: str
    image_dir: str | None
    template: Template
    tuning: Tuning
    budget: float


@dataclass(frozen=True)
class Devices:
    """What is there to tune on: how many, each with how many bytes."""

    name: str
    number: int
    num_bytes: float

    @property
    def is_gpu(self) -> bool:
        """Whether it is one."""
        return self.name != "CPU"


@dataclass(frozen=True)
class Fit:
    """A batch that fits: rows a device, DeepSpeed's file, and its bytes, None where not known."""

    rows: int
    deepspeed: str | None
    num_bytes: float | None


def propose(name: str, wish: Wish) -> tuple[str, Config]:
    """The config as text, and as it is read.

    Raises:
        UserError: no such model or pool, a family that is not supported, no readable record.
    """
    config = _configure(name, wish)
    family = load_model_config(config.model)
    family_of(family)
    pool = _open_what_can_be_read(config)
    if len(pool) == 0:
        first = f": {pool.skipped[0].detail}" if pool.skipped else ""
        raise UserError(
            f"{config.data.records}: none of its {len(pool.skipped)} records can be read{first}"
        )
    policy = dict.fromkeys(sorted({one.reason for one in pool.skipped}), "skip")
    read = config.data.model_copy(update={"policy": policy})
    resolved = resolve_template(config.model_copy(update={"data": read}))
    longest = _find_longest(pool, resolved)
    max_length = next((n for n in _LENGTHS if n >= _SPARE * longest), _LENGTHS[-1])
    data = read.model_copy(update={"max_length": max_length})
    config = resolved.model_copy(update={"data": data})
    shape, size, devices = read_shape(config.model.path), measure_pool(config), find_devices()
    if size is None:  # a dataset or a folder: its bytes are not known
        images = int((~pool.is_text_only_N).sum())
        size = PoolSize(len(pool), images, len(pool.unique_images()), 0)
    fit = fit_batch(config, shape, size, devices)
    text = _write(config, pool, family.model_type, longest, devices, fit)
    return text, config


def find_devices() -> Devices:
    """The GPUs that torch sees, or the CPU."""
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Devices(found.name, torch.cuda.device_count(), found.total_memory)
    return Devices("CPU", 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _configure(name: str, wish: Wish) -> Config:
    """What is asked for, with the images where they are found."""
    tree = {
        "name": name,
        "model": {"path": wish.model, "template": wish.template},
        "data": {"records": wish.records, "image_dir": wish.image_dir},
        "selection": {"budget": wish.budget},
        "training": {"tuning": wish.tuning},
    }
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, "init", Config)) from error
    if wish.image_dir is not None:
        return config
    data = config.data.model_copy(update={"image_dir": _guess_images(config)})
    return config.model_copy(update={"data": data})


def _open_what_can_be_read(config: Config) -> Pool:
    """With the records that cannot among its `skipped`."""
    policy = dict.fromkeys(REASONS, "skip")
    return open_pool(config.data.model_copy(update={"policy": policy}))


def _guess_images(config: Config) -> str | None:
    """The folder beside the records where their images are; None leaves it to the pool."""
    path = Path(config.data.records)
    if not path.is_file():
        return None
    pool = _open_what_can_be_read(config)
    names = [image for n in range(min(len(pool), _NUM_LOOKED_AT)) for image in pool[n].images]
    folders = [path.parent, *sorted(p for p in path.parent.iterdir() if p.is_dir())]
    found = {folder: sum((folder / name).is_file() for name in names) for folder in folders}
    best = max(found, key=lambda folder: found[folder])
    return str(best) if found[best] else None


def _find_longest(pool: Pool, config: Config) -> int:
    """Tokens of the longest of some records over the whole pool, image tokens included."""
    step = max(1, len(pool) // _NUM_LOOKED_AT)
    looked_at = list(range(0, len(pool), step))[:_NUM_LOOKED_AT]
    processor = load_processor(config.model)
    lengths = estimate_lengths(pool, looked_at, processor, config.model.template)
    return int(np.max(lengths, initial=1))


def fit_batch(config: Config, shape: Shape | None, size: PoolSize, devices: Devices) -> Fit:
    """The largest batch of the least sharing that fits; the smallest where nothing does."""
    if shape is None:
        return Fit(1, "preset:zero2" if devices.is_gpu else None, None)
    fit = Fit(1, None, None)
    for deepspeed in _sharings(devices, config.training.tuning):
        for rows in _BATCHES if devices.is_gpu else _BATCHES[2:]:
            hf = {"per_device_train_batch_size": rows, "activation_checkpointing": devices.is_gpu}
            changes = {"deepspeed": deepspeed, "batching": "modality_length", "hf": hf}
            tried = config.model_copy(
                update={"training": config.training.model_copy(update=changes)}
            )
            memory = estimate_run(tried, shape, size, shape, devices.number).memory["train"]
            fit = Fit(rows, deepspeed, memory)
            if memory <= _FILLED * devices.num_bytes:
                return fit
    return fit


def _sharings(devices: Devices, tuning: Tuning) -> Iterator[str | None]:
    if not devices.is_gpu:
        yield None
        return
    yield "preset:zero2"
    if tuning == "qlora":  # every device holds the whole model in 4 bit
        return
    if devices.number > 1:
        yield "preset:zero3"
    yield "preset:zero3_offload"


def _write(
    config: Config, pool: Pool, family: str, longest: int, devices: Devices, fit: Fit
) -> str:
    images, selection = int((~pool.is_text_only_N).sum()), config.selection
    kept = max(1, int(selection.budget * images) + len(pool) - images)
    wanted = max(1, min(_GLOBAL_BATCH, kept // _LEAST_STEPS))
    accumulate = max(1, round(wanted / (fit.rows * devices.number)))
    memory = "memory not known before the model is here"
    if fit.num_bytes is not None:
        memory = f"some {fit.num_bytes / GIB:.1f} of {devices.num_bytes / GIB:.0f} GiB"
        if fit.num_bytes > _FILLED * devices.num_bytes:
            smaller = "" if config.training.tuning == "qlora" else "tuning: qlora, or "
            memory += f": too much? {smaller}a smaller model"
    return _TEXT.format(
        name=_quote(config.name),
        model=_quote(config.model.path),
        family=family,
        template=config.model.template,
        records=_quote(config.data.records),
        image_dir=_quote(config.data.image_dir),
        found=f"{len(pool):,} records, {images:,} with images, {len(pool.skipped)} unreadable",
        policy=_write_policy(pool),
        max_length=config.data.max_length,
        looked_at=f"the longest of {min(len(pool), _NUM_LOOKED_AT)} looked at: {longest:,} tokens",
        budget=selection.budget,
        tuning=config.training.tuning,
        deepspeed=fit.deepspeed or "null",
        rate={"full": "2.0e-5", "projector": "1.0e-3"}.get(config.training.tuning, "2.0e-4"),
        rows=fit.rows,
        fit=f"{devices.number} x {devices.name}, {memory}",
        accumulate=accumulate,
        at_once=fit.rows * devices.number * accumulate,
        saves_memory=str(devices.is_gpu).lower(),
    )


def _write_policy(pool: Pool) -> str:
    """A line for each reason why records are left out; nothing where all can be read."""
    counts = Counter(one.reason for one in pool.skipped)
    lines = [f"    {reason}: skip   # {n:,} left out" for reason, n in sorted(counts.items())]
    head = "  policy:   # `fail` refuses the pool; `prism-tune audit` lists the records"
    return "\n".join([head, *lines, ""]) if lines else ""


def _quote(text: str | None) -> str:
    """As YAML reads it back: JSON's own strings are YAML."""
    return orjson.dumps(text).decode()


_TEXT = """\
# Written by `prism-tune init`. `prism-tune plan FILE` says what it takes, `preview` shows records
# as the model sees them, `run` does it all.
name: {name}

model:
  path: {model}   # {family}, before tuning
  template: {template}   # how a conversation is written: docs/templates.md

data:
  records: {records}   # {found}
  image_dir: {image_dir}
{policy}  max_length: {max_length}   # {looked_at}

selection:
  scorer: prism   # others: docs/selectors.md; random is what they have to beat
  budget: {budget}   # of the image records; text-only records stay
  scope: per_source   # scored and cut inside each source; global: all together

training:
  tuning: {tuning}   # lora, qlora, full, projector
  deepspeed: {deepspeed}
  hf:   # goes to transformers.TrainingArguments as it is
    num_train_epochs: 1
    learning_rate: {rate}
    per_device_train_batch_size: {rows}   # {fit}
    gradient_accumulation_steps: {accumulate}   # {at_once} records a step
    lr_scheduler_type: cosine
    warmup_steps: 0.03   # a fraction of all steps
    activation_checkpointing: {saves_memory}
    logging_steps: 1
    save_steps: 0.1   # a fraction of all steps: a killed run loses at most a tenth
    save_total_limit: 1

# Questions of your own, asked of the model before and after tuning (docs/evaluation.md):
# evaluation:
#   benchmarks: [mine]
#   data: {{mine: {{annotations: questions.jsonl, image_dir: images, metric: exact}}}}
"""

"""Experiment configs: a YAML file in, a validated and frozen `Config` out.

Merge order: `base:` file < file < `key=value` overrides. Unknown keys are errors that name the
nearest known key. `training.hf` goes verbatim to `transformers.TrainingArguments`, `training.lora`
to `peft.LoraConfig`.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from yaml import YAMLError

from prism_tune.config_errors import complete_key, describe_errors
from prism_tune.errors import ConfigError

Part = Literal["vision_tower", "projector", "language_model"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Policy = Literal["fail", "skip", "keep"]
Template = Literal["vicuna_v1", "chatml", "llama3", "phi", "plain", "processor"]
Control = Literal["blind", "shuffled"]
Preparation = Literal["quickstart", "comparison"]
Index = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(gt=0, strict=True)]
Fraction = Annotated[float, Field(gt=0, le=1, strict=True)]
LearningRate = Annotated[float, Field(gt=0, strict=True)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _spell_infinity(given: Any) -> Any:
    """`.inf` as the word `inf`, at any depth: JSON (manifests, fingerprints) has no such number."""
    if isinstance(given, dict):
        return {key: _spell_infinity(value) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [_spell_infinity(value) for value in given]
    return str(given) if isinstance(given, float) and not isfinite(given) else given


class Section(BaseModel):
    """A config section: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelConfig(Section):
    """The target model: a Hugging Face directory or hub id, as it is before instruction tuning."""

    path: str
    revision: str | None = None
    dtype: DType = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    template: Template = "vicuna_v1"
    image_aspect_ratio: Literal["pad", "processor"] = "pad"


class DataConfig(Section):
    """The pool: LLaVA-style records and the folder their image paths are relative to."""

    records: str
    image_dir: str | None = None
    prepare: Preparation | None = None
    columns: dict[str, str] = {}
    source: Literal["field", "image_folder"] = "field"
    source_names: dict[str, str] = {}
    policy: dict[str, Policy] = {}
    max_length: Count = 2048
    num_workers: Index = 2


class SelectionConfig(Section):
    """Which records to keep. The defaults are the paper's (METHOD in docs/selection.md)."""

    scorer: str = "prism"
    budget: Fraction | Count = Field(
        default=0.30, description="a fraction in (0, 1] or a positive count"
    )
    scope: Literal["per_source", "global"] = "per_source"
    centering: Literal["corpus", "pearson", "none"] = "corpus"
    keep: Literal["low", "middle", "high"] | None = None
    features: Literal["visual", "joint", "pair"] = "visual"
    layer: Index = 1
    pooling: Literal["mean", "last", "attention"] = "mean"
    tokens_per_batch: Count = 16384
    dtype: DType = "auto"
    options: Annotated[
        dict[str, Any], BeforeValidator(lambda given: _spell_infinity(given or {}))
    ] = {}


class TrainingConfig(Section):
    """How to tune. `tuning: none` leaves the model as it is (the table's untuned row)."""

    records: Literal["subset", "pool"] = "subset"
    tuning: Literal["none", "lora", "qlora", "full", "projector"] = "lora"
    lora: dict[str, Any] = {}
    learning_rates: dict[Part, LearningRate] = {}
    freeze: tuple[Part, ...] = ("vision_tower",)
    deepspeed: str | None = "configs/deepspeed/zero2.json"
    batching: Literal["modality_length", "token_budget", "packed", "random"] = "modality_length"
    tokens_per_batch: Count = 16384
    hf: dict[str, Any] = {}


class BenchmarkData(Section):
    """Where one benchmark's official files lie; `limit` takes the first questions only."""

    annotations: str
    image_dir: str | None = None
    limit: Count | None = None


class EvaluationConfig(Section):
    """Which benchmarks to run, and the protocol they share.

    `controls` asks every question again without image, or with another question's image.
    """

    benchmarks: tuple[str, ...] = ()
    data: dict[str, BenchmarkData] = {}
    profile: Literal["llava15", "lmms_eval"] = "llava15"
    controls: tuple[Control, ...] = ()
    batch_size: Count = 8
    dtype: DType = "auto"


class CompareConfig(Section):
    """`prism-tune compare`: selectors side by side (docs/comparison.md).

    A selector is a scorer's name, or a mapping of `scorer`, the `selection` keys that differ, and
    a `name`. `metrics` are `<benchmark>.<metric>` of results.json; performance is their mean.
    `planted` names a JSON file of records known to be redundant: {id: {kind, of}}.
    """

    selectors: Annotated[tuple[str | dict[str, Any], ...], BeforeValidator(_spell_infinity)] = (
        Field(min_length=1, description="a list of scorers, or of mappings with `scorer`")
    )
    budgets: tuple[Fraction | Count, ...] = Field(
        default=(0.30,), min_length=1, description="a list of fractions in (0, 1] or counts"
    )
    seeds: tuple[Index, ...] = Field(default=(0,), min_length=1)
    metrics: tuple[str, ...] = Field(min_length=1)
    baseline: str = "random"
    whole_pool: bool = False
    planted: str | None = None
    num_processes: Count = 1


class TrackingConfig(Section):
    """Weights & Biases; offline unless WANDB_MODE says otherwise."""

    wandb: bool = False
    project: str = "prism_tune"
    entity: str | None = None


class Config(Section):
    """One experiment: a pool, a model, a selection, a tuning, an evaluation."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="a folder name of letters, digits and `._-` that begins with neither of these",
    )
    seed: Index = 0
    model_name: str | None = Field(default=None, description="what tables call the model")
    output_dir: str = "runs"
    compare_random: bool = False
    model: ModelConfig
    data: DataConfig
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    compare: CompareConfig | None = None


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read, merge and validate a config.

    Args:
        path: the YAML file; its `base:` names another, relative to the file itself.
        overrides: `section.key=value` items, applied last; a bare `key=value` is completed
            where exactly one section has that key.

    Raises:
        ConfigError: unreadable file, circular base, unknown key, or a value out of range.
    """
    merged = _load_with_base(Path(path), seen=())
    for item in overrides:
        merged = _merge_override(merged, item)
    try:
        tree = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: `{error.full_key}`: {reason}") from error
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, str(path), Config)) from error


def render_config(config: Config, key: str = "") -> str:
    """The resolved config as YAML that `load_config` reads back to an equal `Config`.

    With a `key` (`name`, `training.hf`) or several (`name,training.hf`), only these values, one a
    line, for scripts to read: a string as it is, anything else as JSON.

    Raises:
        ConfigError: no such key.
    """
    tree = OmegaConf.create(config.model_dump(mode="json"))
    if not key:
        return OmegaConf.to_yaml(tree)
    return "\n".join(_render_value(tree, part) for part in key.split(","))


def _render_value(tree: DictConfig, key: str) -> str:
    missing = object()
    value = OmegaConf.select(tree, key, default=missing)
    if value is missing:
        raise ConfigError(f"no key `{key}` in the config")
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _load_with_base(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    resolved = path.resolve()
    if resolved in seen:
        chain = " -> ".join(str(p) for p in (*seen, resolved))
        raise ConfigError(f"{path}: its `base:` leads back to itself: {chain}")
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError as error:
        named = f" (named as base by {seen[-1]})" if seen else ""
        raise ConfigError(f"{path}: no such config file{named}") from error
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of sections, got a list")
    base = loaded.pop("base", None)
    if base is None:
        return loaded
    if not isinstance(base, str):
        raise ConfigError(f"{path}: `base` = {base!r}: expected the path of one YAML file")
    return _merge(_load_with_base(path.parent / base, (*seen, resolved)), loaded, str(path))


def _merge(base: DictConfig, top: DictConfig, where: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(base, top)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _merge_override(config: DictConfig, item: str) -> DictConfig:
    key, equals, _ = item.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"override {item!r}: expected key=value, for example selection.budget=0.2"
        )
    try:
        top = OmegaConf.from_dotlist([complete_key(key, Config) + item[len(key) :]])
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override {item!r}: {error}") from error
    return _merge(config, top, f"override {item!r}")

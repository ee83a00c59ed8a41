"""Experiment configs: a YAML file in, a validated and frozen `Config` out, and back.

Merge order: `base:` file < file < `key=value` overrides. Unknown keys are errors that name the
nearest known key.

A config that lies in a run folder or beside a checkpoint is a record, and may be somebody else's:
`${...}` in it stays text (`${oc.env:TOKEN}` would put a secret of ours into what is written), and
it can neither let code or programs run nor send anything away (`armed.py`), and has no `base`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from prism_tune.config.armed import disarm, explain_armed, find_armed
from prism_tune.config.errors import complete_key, describe_errors
from prism_tune.config.presets import find_file, suggest_presets
from prism_tune.config.secrets import redact, redact_text
from prism_tune.config.sections import Config, ModelConfig
from prism_tune.errors import ConfigError, first_line

RECORD_NAME = "prism_tune.yaml"
"""What a checkpoint's config is called; a stage's is config.yaml beside its stage.json."""


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read, merge and validate a config.

    Args:
        path: the YAML file, or `preset:NAME`; its `base:` names another, relative to the file
            itself.
        overrides: `section.key=value` items, applied last; a bare `key=value` is completed
            where exactly one section has that key.

    Raises:
        ConfigError: no such preset, unreadable file, circular base, unknown key, a value out of
            range, or a record that asks to trust code.
    """
    return _validate(_load_with_base(find_file(path, "experiments"), seen=()), path, overrides)


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """The config with `section.key=value` items applied, as `load_config` does.

    Raises:
        ConfigError: as `load_config`.
    """
    loaded = OmegaConf.create(_keep_literal(config.model_dump(mode="json")))
    return _validate(loaded, config.name, overrides)


def read_recorded_model(path: Path) -> ModelConfig:
    """The model of a config that lies beside a checkpoint; code is not trusted, whatever it says.

    Raises:
        ConfigError: as `load_config`.
    """
    tree: Any = OmegaConf.to_container(_load_with_base(path, seen=()), resolve=False)
    disarm(tree)
    return _validate(OmegaConf.create(tree), path, ()).model


def _validate(loaded: DictConfig, path: str | Path, overrides: Sequence[str]) -> Config:
    for item in overrides:
        loaded = _merge_override(loaded, item)
    try:
        tree = OmegaConf.to_container(loaded, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        armed = explain_armed(str(error.full_key))
        if armed is not None and isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"{path}: the record of a run cannot {armed}") from error
        raise ConfigError(f"{path}: `{error.full_key}`: {first_line(error)}") from error
    for key, value in _values(tree):
        if isinstance(value, bytes) or (isinstance(value, str) and not _can_be_kept(value)):
            raise ConfigError(
                f"{path}: `{key}` = {value!r:.80}: expected text; it holds what neither a path nor "
                "a file can (a NUL, or bytes that are not UTF-8)"
            )
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(redact_text(describe_errors(error, str(path), Config))) from error


def _values(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree, and every key as one, with the dotted key where it stands."""
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            place = f"{key}.{name}" if key else str(name)
            yield place, name
            yield from _values(value, place)
    else:
        yield key, tree


def _can_be_kept(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _is_record(path: Path) -> bool:
    return path.name == RECORD_NAME or (path.parent / "stage.json").exists()


def render_config(config: Config, key: str = "") -> str:
    """The resolved config as YAML that `load_config` reads back to an equal `Config`.

    Its secrets are replaced by `<redacted>`.

    With a `key` (`name`, `training.hf`) or several (`name,training.hf`), only these values, one a
    line, for scripts to read: a string as it is, anything else as JSON.

    Raises:
        ConfigError: no such key.
    """
    tree = OmegaConf.create(_keep_literal(redact(config.model_dump(mode="json"))))
    if not key:
        return OmegaConf.to_yaml(tree)
    return "\n".join(_render_value(tree, part) for part in key.split(","))


def _render_value(tree: DictConfig, key: str) -> str:
    missing = object()
    value = OmegaConf.select(tree, key, default=missing)
    if value is missing:
        raise ConfigError(f"no key `{key}` in the config")
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _load_with_base(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    resolved = path.resolve()
    if resolved in seen:
        chain = " -> ".join(str(p) for p in (*seen, resolved))
        raise ConfigError(f"{path}: its `base:` leads back to itself: {chain}")
    loaded = _read_yaml(path, seen)
    if _is_record(path):
        loaded = _read_record(loaded)
    base = _take_base(loaded, path)
    if base is None:
        return loaded
    below = find_file(base, "experiments", path.parent)
    return _merge(_load_with_base(below, (*seen, resolved)), loaded, str(path))


def _read_yaml(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError as error:
        named = f" (named as base by {seen[-1]})" if seen else ""
        hint = suggest_presets(path.stem)
        raise ConfigError(f"{path}: no such config file{named}{hint}") from error
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    except OmegaConfBaseException as error:  # a key that is no name, a `${` that is not closed
        raise ConfigError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of sections, got a list")
    return loaded


def _take_base(loaded: DictConfig, path: Path) -> str | None:
    """The file's `base:`, which is no key of the config."""
    try:
        base = loaded.pop("base", None)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: `base`: {first_line(error)}") from error
    if base is None:
        return None
    if _is_record(path):  # ours are whole; what lies behind a stranger's would count as one's own
        raise ConfigError(
            f"{path}: the record of a run cannot name a `base`; if you know that file, start a "
            "config of your own from it"
        )
    if not isinstance(base, str) or not _can_be_kept(base):
        raise ConfigError(
            f"{path}: `base` = {base!r}: expected the path of one YAML file, or preset:NAME"
        )
    return base


def _read_record(record: DictConfig) -> DictConfig:
    """A record in which no text is resolved; where it lets code run, that has to be said anew."""
    tree: Any = _keep_literal(OmegaConf.to_container(record, resolve=False))
    for section, name in list(find_armed(tree)):
        section[name] = "???"  # OmegaConf's word for what is mandatory and missing
    disarmed = OmegaConf.create(tree)
    assert isinstance(disarmed, DictConfig)
    return disarmed


def _keep_literal(value: Any) -> Any:
    """The same tree for OmegaConf, in which `${...}` means these characters and nothing else."""
    if isinstance(value, dict):
        return {key: _keep_literal(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_keep_literal(content) for content in value]
    return value.replace("\\${", "${").replace("${", "\\${") if isinstance(value, str) else value


def _merge(base: DictConfig, top: DictConfig, where: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(base, top)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {first_line(error)}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _merge_override(config: DictConfig, item: str) -> DictConfig:
    key, equals, _ = item.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"override {item!r}: expected key=value, for example selection.budget=0.2"
        )
    if not _can_be_kept(item):
        raise ConfigError(f"override {item!r}: expected text in UTF-8, without NUL")
    try:
        top = OmegaConf.from_dotlist([complete_key(key, Config) + item[len(key) :]])
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override {item!r}: {error}") from error
    return _merge(config, top, f"override {item!r}")

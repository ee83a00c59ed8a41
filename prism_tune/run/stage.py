"""The state of a stage on disk, and whether it has to run: finished, changed, or new."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prism_tune.config.load import render_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import read_json, write_atomic, write_json
from prism_tune.run.provenance import describe_software

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """The state of one stage, in `<directory>/stage.json`: what it read, and that it finished."""

    directory: Path

    @property
    def path(self) -> Path:
        """The state file."""
        return self.directory / "stage.json"

    @property
    def config_path(self) -> Path:
        """The config it finished with, as a file to read and to run again."""
        return self.directory / "config.yaml"

    def changed_inputs(self, inputs: Mapping[str, Any]) -> list[str] | None:
        """The names of inputs that differ from the finished run's; None if there is none.

        An empty list means: finished, with the same inputs.
        """
        if not self.path.exists():
            return None
        before = read_json(self.path)["inputs"]
        now = {key: _canonical(value) for key, value in inputs.items()}
        return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))

    def finish(self, inputs: Mapping[str, Any], *, config: Config, **outputs: Any) -> None:
        """Record that the stage finished: with which inputs and config, by which code.

        Its last act. Labels of tables and reports come from this record, never from what was asked
        of the run folder afterwards.
        """
        write_atomic(self.config_path, render_config(config))
        write_json(
            self.path,
            {
                "fingerprint": fingerprint(_canonical(inputs)),
                "config": config.model_dump(mode="json"),
                "inputs": {key: _canonical(value) for key, value in inputs.items()},
                "outputs": outputs,
                "software": describe_software(),
            },
        )

    def config(self) -> Config | None:
        """What it finished with; None where it has not.

        Raises:
            UserError: the record has none.
        """
        if not self.path.exists():
            return None
        record = read_json(self.path)
        if "config" not in record:
            raise UserError(
                f"{self.path}: no `config`, as older versions of prism_tune wrote it; "
                "run that stage again with --force"
            )
        return Config.model_validate(record["config"])

    def reopen(self) -> None:
        """Forget that the stage finished; the first thing a stage does when it has to rerun."""
        self.path.unlink(missing_ok=True)
        self.config_path.unlink(missing_ok=True)

    def require(self, verb: str) -> dict[str, Any]:
        """The finished stage's record.

        Raises:
            UserError: the stage has not finished; the message names the command that runs it.
        """
        if not self.path.exists():
            raise UserError(f"{self.directory}: not finished; first run `prism-tune {verb} CONFIG`")
        record: dict[str, Any] = read_json(self.path)
        return record


def must_run(name: str, stage: Stage, inputs: Mapping[str, Any], *, force: bool) -> bool:
    """Say what will happen and return whether the stage has to run.

    Args:
        name: the stage, as the user knows it.
        stage: its state on disk.
        inputs: everything the stage reads, by the name shown when it changed.
        force: rerun even when finished.
    """
    changed = stage.changed_inputs(inputs)
    if changed is None:
        return True
    if not changed and not force:
        logger.info("%s: already finished with the same inputs, skipped", name)
        return False
    reason = f"changed: {', '.join(changed)}" if changed else "--force"
    logger.info("%s: runs again (%s)", name, reason)
    return True


def _canonical(value: Any) -> Any:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.loads(orjson.dumps(value, option=options))

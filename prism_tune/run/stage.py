"""The state of a stage on disk, and whether it has to run: finished, changed, or new."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from prism_tune.config.armed import disarm
from prism_tune.config.errors import describe_errors
from prism_tune.config.load import render_config
from prism_tune.config.secrets import redact
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import read_json, write_atomic, write_json
from prism_tune.run.provenance import describe_software
from prism_tune.run.written import describe_file, mark_written, seal

logger = logging.getLogger(__name__)

_REMEDY = "restore it, or delete it and run the stage again"


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

    def record(self) -> dict[str, Any] | None:
        """What it finished with; None where it has not.

        Raises:
            UserError: the file is not such a record.
        """
        if not self.path.exists():
            return None
        try:
            content = read_json(self.path)
        except UserError as error:
            raise UserError(f"{error}; {_REMEDY}") from error
        parts: list[Any] = []
        if isinstance(content, dict):
            parts = [content.get("inputs"), content.get("outputs"), content.get("files", {})]
        if not parts or not all(isinstance(part, dict) for part in parts):
            raise UserError(f"{self.path}: not the record of a finished stage; {_REMEDY}")
        record: dict[str, Any] = mark_written(content, self.path)
        return record

    def damaged_files(self) -> list[str]:
        """Which of the files that the stage left are gone, or not as it wrote them."""
        recorded = (self.record() or {}).get("files", {})
        return sorted(
            name for name, seen in recorded.items() if describe_file(self.directory / name) != seen
        )

    def changed_inputs(self, inputs: Mapping[str, Any]) -> list[str] | None:
        """The names of inputs that differ from the finished run's; None if there is none.

        An empty list means: finished, with the same inputs.
        """
        record = self.record()
        if record is None:
            return None
        before = record["inputs"]
        now = {key: _canonical(value) for key, value in inputs.items()}
        return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))

    def reasons_to_rerun(self, inputs: Mapping[str, Any]) -> list[str] | None:
        """Inputs that differ, else files that are not as the stage left them; None: not finished.

        An empty list means that it has nothing to do.
        """
        changed = self.changed_inputs(inputs)
        return changed if changed != [] else self.damaged_files()

    def finish(
        self,
        inputs: Mapping[str, Any],
        *,
        config: Config,
        files: Sequence[Path] = (),
        **outputs: Any,
    ) -> None:
        """Record that the stage finished: with which inputs and config, by which code.

        Its last act. Labels of tables and reports come from this record, never from what was asked
        of the run folder afterwards.

        Args:
            inputs: everything the stage has read, by the name shown when it changed.
            config: what it ran with.
            files: what it leaves in its folder and others build on; it is held against this record
                before the stage counts as finished.
            outputs: what else to remember.
        """
        write_atomic(self.config_path, render_config(config))
        content = {
            "fingerprint": fingerprint(_canonical(inputs)),
            "config": redact(config.model_dump(mode="json")),
            "inputs": {key: _canonical(value) for key, value in inputs.items()},
            "outputs": outputs,
            "files": {str(p.relative_to(self.directory)): describe_file(p) for p in files},
            "records": {p.name: describe_file(p) for p in self.directory.glob("*.json")},
            "software": describe_software(),
        }
        write_json(self.path, {**content, "seal": seal(content)})

    def amend(self, path: Path, **outputs: Any) -> None:
        """Take a file that another verb has rewritten on purpose as the one that the stage left.

        Args:
            path: one of its files; nothing happens where the stage has not finished.
            outputs: what is remembered otherwise from now on.
        """
        record = self.record()
        if record is None:
            return
        name, seen = str(path.relative_to(self.directory)), describe_file(path)
        content = {
            **{key: value for key, value in record.items() if key != "seal"},
            "outputs": {**record["outputs"], **outputs},
            "files": {**record.get("files", {}), name: seen},
            "records": {**record.get("records", {}), name: seen},
        }
        write_json(self.path, {**content, "seal": seal(content)})

    def config(self) -> Config | None:
        """What it finished with; None where it has not.

        Without what does not count in a record (`config/armed.py`): it may be somebody else's.

        Raises:
            UserError: the record has none.
        """
        record = self.record()
        if record is None:
            return None
        if "config" not in record:
            raise UserError(
                f"{self.path}: no `config`, as older versions of prism_tune wrote it; "
                "run that stage again with --force"
            )
        disarm(record["config"])
        try:
            return Config.model_validate(record["config"])
        except ValidationError as error:
            described = describe_errors(error, f"{self.path}: config", Config)
            raise UserError(f"{described}; another version of prism_tune wrote it") from error

    def reopen(self) -> None:
        """Forget that the stage finished; the first thing a stage does when it has to rerun."""
        self.path.unlink(missing_ok=True)
        self.config_path.unlink(missing_ok=True)

    def require(self, verb: str) -> dict[str, Any]:
        """The finished stage's record.

        Raises:
            UserError: the stage has not finished; the message names the command that runs it.
        """
        record = self.record()
        if record is None:
            raise UserError(f"{self.directory}: not finished; first run `prism-tune {verb} CONFIG`")
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
    damaged = stage.damaged_files()
    if not changed and not damaged and not force:
        logger.info("%s: already finished with the same inputs, skipped", name)
        return False
    reason = "--force"
    if changed:
        reason = f"changed: {', '.join(changed)}"
    elif damaged:
        reason = f"not as it left them: {', '.join(damaged)}"
    logger.info("%s: runs again (%s)", name, reason)
    return True


def _canonical(value: Any) -> Any:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return redact(orjson.loads(orjson.dumps(value, option=options)))

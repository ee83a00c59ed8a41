"""Where each artifact of a run lives, atomic writes, fingerprints and the state of each stage.

```
runs/<name>/
  config.yaml  timings.json  log.txt
  audit/       stage.json audit.json <reason>.jsonl
  selection/   stage.json scores.parquet subset.json manifest.json features/
  training/    stage.json checkpoint-<step>/ final/ log.jsonl
  evaluation/<benchmark>/  stage.json predictions.jsonl results.json
  tables/
  report/      index.html assets/ data/ thumbs/
```
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prism_tune.errors import UserError
from prism_tune.provenance import describe_software

_SAMPLED_BYTES = 1 << 20


@dataclass(frozen=True)
class RunDir:
    """The folder of one run."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.root / "config.yaml"

    @property
    def timings(self) -> Path:
        """What each stage took (see `timings.py`)."""
        return self.root / "timings.json"

    @property
    def log(self) -> Path:
        """Everything logged to the console, and more."""
        return self.root / "log.txt"

    @property
    def audit(self) -> Path:
        """What the audit found."""
        return self.root / "audit"

    @property
    def selection(self) -> Path:
        """Scores, subset and manifest."""
        return self.root / "selection"

    @property
    def features(self) -> Path:
        """The feature store."""
        return self.selection / "features"

    @property
    def subset(self) -> Path:
        """The kept records, in the format of the pool: JSON (lines), or parquet."""
        tabular = self.selection / "subset.parquet"
        return tabular if tabular.exists() else self.selection / "subset.json"

    @property
    def training(self) -> Path:
        """Checkpoints and the training log."""
        return self.root / "training"

    @property
    def checkpoint(self) -> Path:
        """The tuned model: an adapter directory or full weights, in HF layout."""
        return self.training / "final"

    def benchmark(self, name: str) -> Path:
        """Predictions and results of one benchmark."""
        return self.root / "evaluation" / name

    @property
    def tables(self) -> Path:
        """Rendered tables."""
        return self.root / "tables"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.root / "report"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader (or a crash) sees the old content or the new, never a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; numpy scalars and arrays are accepted."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    write_atomic(path, orjson.dumps(value, option=options))


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value` (keys sorted)."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(value, option=options)).hexdigest()


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_SAMPLED_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_model(path: str, revision: str | None) -> str:
    """What a model path stands for: a hub id with its revision, or a directory's content.

    Of files over 2 MiB only the size and the first and last MiB are read, so that a 7B
    checkpoint is fingerprinted in milliseconds (a safetensors header is in the first MiB).
    """
    root = Path(path)
    if not root.is_dir():
        return fingerprint({"hub": path, "revision": revision})
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return fingerprint([[str(p.relative_to(root)), _sample(p)] for p in files])


@dataclass(frozen=True)
class Stage:
    """The state of one stage, in `<directory>/stage.json`: what it read, and that it finished."""

    directory: Path

    @property
    def path(self) -> Path:
        """The state file."""
        return self.directory / "stage.json"

    def changed_inputs(self, inputs: Mapping[str, Any]) -> list[str] | None:
        """The names of inputs that differ from the finished run's; None if there is none.

        An empty list means: finished, with the same inputs.
        """
        if not self.path.exists():
            return None
        before = read_json(self.path)["inputs"]
        now = {key: _canonical(value) for key, value in inputs.items()}
        return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))

    def finish(self, inputs: Mapping[str, Any], **outputs: Any) -> None:
        """Record that the stage finished with these inputs, and by which code; its last act."""
        write_json(
            self.path,
            {
                "fingerprint": fingerprint(_canonical(inputs)),
                "inputs": {key: _canonical(value) for key, value in inputs.items()},
                "outputs": outputs,
                "software": describe_software(),
            },
        )

    def reopen(self) -> None:
        """Forget that the stage finished; the first thing a stage does when it has to rerun."""
        self.path.unlink(missing_ok=True)

    def require(self, verb: str) -> dict[str, Any]:
        """The finished stage's record.

        Raises:
            UserError: the stage has not finished; the message names the command that runs it.
        """
        if not self.path.exists():
            raise UserError(f"{self.directory}: not finished; first run `prism-tune {verb} CONFIG`")
        record: dict[str, Any] = read_json(self.path)
        return record


def _canonical(value: Any) -> Any:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.loads(orjson.dumps(value, option=options))


def _sample(path: Path) -> str:
    size = path.stat().st_size
    if size <= 2 * _SAMPLED_BYTES:
        return fingerprint_file(path)
    with path.open("rb") as file:
        head = file.read(_SAMPLED_BYTES)
        file.seek(-_SAMPLED_BYTES, os.SEEK_END)
        return hashlib.sha256(str(size).encode() + head + file.read()).hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

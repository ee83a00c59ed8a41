"""A cell of a grid: one ordinary run, and how it ended.

A cell is a selector at a budget, or a row in a variant, or the whole pool, under a seed: the config
that `prism-tune select`, `train` and `evaluate` would take.

```
runs/<name>/
  cells/<selector>-<budget>-seed<n>/   a run folder, and of every cell:
  cells/<cell>/cell.yaml               its config
  cells/<cell>/cell.json               finished or failed, with what it read
  cells/<cell>/output.txt              what its verbs printed
runs/<row>-seed<n>/                    the run folder of a row: several tables may have it
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prism_tune.compare.files import look_at_folder, look_at_images, look_at_model, look_at_path
from prism_tune.config.depends import DEPENDS, list_fields
from prism_tune.config.plugins import describe_plugin
from prism_tune.config.presets import find_file
from prism_tune.config.references import reference_of
from prism_tune.config.sections import Config, SelectionConfig
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_object, write_json
from prism_tune.run.stage import Stage

Verb = Literal["audit", "select", "train", "evaluate"]
State = Literal["finished", "failed"]
Spoiled = Literal["gone", "of other settings"]
Budget = float | int


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a grid.

    Attributes:
        selector: whose cells under several seeds belong together: a selector's or a row's name.
        budget: None for a row and for the whole pool.
        config: what its verbs take.
        verbs: these, in order.
        folder: where its config, its outcome and its output are kept.
    """

    selector: str
    budget: Budget | None
    seed: int
    config: Config
    verbs: tuple[Verb, ...]
    folder: Path

    @property
    def run(self) -> RunDir:
        """Its run folder."""
        return RunDir(Path(self.config.output_dir) / self.config.name)

    @property
    def output(self) -> Path:
        """What its verbs print."""
        return self.folder / "output.txt"

    @property
    def _record(self) -> Path:
        return self.folder / "cell.json"

    def state(self) -> State | None:
        """How it ended; None when it has not, or when what it reads has changed since."""
        if not self._record.exists() or self.changed():
            return None
        state: State = read_object(self._record, "state")["state"]
        return state

    def changed(self) -> list[str]:
        """Which of its results would be others now than when it was last run, or have become so."""
        spoiled = [f"results of {name} are {how}" for name, how in self.spoiled().items()]
        return self._changed_inputs() or spoiled

    def _changed_inputs(self) -> list[str]:
        before = read_object(self._record, "inputs")["inputs"] if self._record.exists() else None
        # What a record does not name was not looked at when it was written.
        return [
            name for name, key in self._inputs().items() if before and before.get(name, key) != key
        ]

    def spoiled(self) -> dict[str, Spoiled]:
        """Benchmarks whose results are not those that it finished with, and how.

        By hand they can be deleted, or made anew of other settings (fewer questions). Nothing of a
        cell whose inputs have changed: it is run again as it is.
        """
        record = read_object(self._record) if self._record.exists() else {}
        if record.get("state") != "finished" or self._changed_inputs():
            return {}
        before = record.get("results", {})
        found: dict[str, Spoiled] = {}
        for name, now in self._results().items():
            if now is None and before.get(name, "") is not None:
                found[name] = "gone"
            elif before.get(name, now) != now:
                found[name] = "of other settings"
        return found

    def error(self) -> str | None:
        """Why it failed."""
        error: str | None = (
            read_object(self._record, "error")["error"] if self._record.exists() else None
        )
        return error

    def finish(self, error: str | None) -> None:
        """Write down how it ended."""
        state: State = "finished" if error is None else "failed"
        content = {"state": state, "error": error, "inputs": self._inputs()}
        write_json(self._record, {**content, "results": self._results()})

    def _results(self) -> dict[str, str | None]:
        """What stands for the settings that each benchmark's results are of; None without these."""
        asked = self.config.evaluation.benchmarks if "evaluate" in self.verbs else ()
        return {name: _look_at_results(self.run.benchmark(name)) for name in asked}

    def _inputs(self) -> dict[str, str]:
        """What each of its results depends on: config fields, and the files that some stand for."""
        values = list_fields(self.config)
        model, data = self.config.model, self.config.data
        values["model.path"] = [model.path, look_at_model(model.path, model.revision)]
        values["data.image_dir"] = [data.image_dir, look_at_images(data.model_dump_json())]
        own = [f"selection.{name}" for name in ("must_keep", "must_drop", "features_file")]
        for name in ("data.records", *own):
            values[name] = [values[name], values[name] and look_at_path(values[name])]
        if (reference := reference_of(self.config.selection)) is not None:
            read = [(reference.model, reference.revision), (reference.adapter, None)]
            looks = [path and look_at_model(path, revision) for path, revision in read]
            values["selection.reference"] = [reference.model_dump(mode="json"), looks]
        if named := _look_at_options(self.config.selection):
            values["selection.options"] = [values["selection.options"], *named]
        scorer = self.config.selection.scorer
        if plugged := describe_plugin("SCORERS", scorer):
            values["selection.scorer"] = [scorer, plugged]
        deepspeed = self.config.training.deepspeed
        found = deepspeed and str(find_file(deepspeed, "deepspeed"))
        values["training.deepspeed"] = [deepspeed, found and look_at_path(found)]
        asked = self.config.evaluation.data
        names = [n for n in self.config.evaluation.benchmarks if n in asked]
        looks = [look_at_path(asked[name].annotations) for name in names]
        code = [plugged for n in names if (plugged := describe_plugin("BENCHMARKS", n))]
        values["evaluation.data"] = [values["evaluation.data"], *looks, *code]
        inputs = {
            artifact: fingerprint({n: v for n, v in values.items() if artifact in DEPENDS[n]})
            for artifact in ("subset", "model", "answers")
        }
        folders = {name: folder for name in names if (folder := asked[name].image_dir)}
        if folders:
            pictures = {name: look_at_folder(folder) for name, folder in folders.items()}
            inputs["pictures of the questions"] = fingerprint(pictures)
        return inputs


def _look_at_options(selection: SelectionConfig) -> list[str]:
    """What stands for the file and the model that a scorer's own options name."""
    path, model = selection.options.get("path"), selection.options.get("model")
    looks = [look_at_path(path)] if isinstance(path, str) else []
    if isinstance(model, str):
        looks.append(look_at_model(model, selection.options.get("revision")))
    return looks


def _look_at_results(folder: Path) -> str | None:
    if not (folder / "results.json").exists():
        return None
    try:
        found = (Stage(folder).record() or {}).get("fingerprint")
    except UserError:  # evaluating says what is wrong with it
        found = None
    return str(found or "of no finished evaluation")


def stages_of(config: Config) -> tuple[Verb, ...]:
    """The verbs that make a run of a config, in order."""
    tunes = config.training.tuning != "none"
    stages: dict[Verb, bool] = {
        "select": tunes and config.training.records == "subset",
        "train": tunes,
        "evaluate": bool(config.evaluation.benchmarks),
    }
    return tuple(verb for verb, is_due in stages.items() if is_due)

"""lm-eval's own task files, pointed at local data.

In: a language benchmark and a folder in the hub's layout (parquet files named after their split),
or a hub id. Out: one task file per subject, which includes lm-eval's packaged one and changes
nothing but where the data come from.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prism_tune.config.hub_ids import may_be_hub_id
from prism_tune.errors import UserError
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS, LanguageBenchmark


def list_tasks(name: str) -> list[str]:
    """The tasks a benchmark consists of, in alphabetical order.

    Raises:
        UserError: lm-eval is not installed.
    """
    return [file.stem for file in _find_packaged(name)]


def write_task_files(name: str, source: str, folder: Path) -> None:
    """Write one task file per task of the benchmark into `folder`.

    Raises:
        UserError: as `find_files`, or a folder without a subject's rows.
    """
    benchmark = LANGUAGE_BENCHMARKS[name]
    files = find_files(name, source)
    for packaged in _find_packaged(name):
        task: dict[str, object] = {
            "include": str(packaged),
            "task": packaged.stem,
            "num_fewshot": benchmark.num_fewshot,
        }
        if files is None:
            task["dataset_path"] = source
        else:
            own = _split_off(benchmark, packaged.stem, files, folder)
            task |= {"dataset_path": "parquet", "dataset_name": None}
            task["dataset_kwargs"] = {"data_files": own}
        if benchmark.splits == ("validation",):
            task["training_split"] = None  # else lm-eval asks the local data for it
        # JSON is YAML.
        (folder / f"{packaged.stem}.yaml").write_text(json.dumps(task))


def find_files(name: str, source: str) -> dict[str, list[str]] | None:
    """Split -> its parquet files in a folder; None of a hub id.

    Raises:
        UserError: it can be neither, or a split has no file.
    """
    if may_be_hub_id(source):
        return None
    if not Path(source).is_dir():
        raise UserError(
            f"evaluation.data.{name}.annotations: {source}: no such folder; expected one with the "
            "hub's parquet files, or a hub id OWNER/NAME"
        )
    return find_split_files(name, Path(source))


def find_split_files(name: str, folder: Path) -> dict[str, list[str]]:
    """Split -> its parquet files, as the hub lays them out.

    Raises:
        UserError: a split has none.
    """
    benchmark = LANGUAGE_BENCHMARKS[name]
    root = folder / benchmark.configuration
    root = root if root.is_dir() else folder
    found = {
        split: [str(path) for path in sorted(root.rglob(f"{split}*.parquet"))]
        for split in benchmark.splits
    }
    for split, paths in found.items():
        if not paths:
            raise UserError(
                f"evaluation.data.{name}.annotations: {folder} has no {split}*.parquet; expected "
                f"the hub's files of the splits {', '.join(benchmark.splits)}"
            )
    return found


def _find_packaged(name: str) -> list[Path]:
    installed = importlib.util.find_spec("lm_eval")
    if installed is None or installed.origin is None:
        raise UserError(
            f"evaluation.benchmarks: {name} needs lm-eval, which is not installed; "
            "run pip install 'prism_tune[eval]'"
        )
    tasks = Path(installed.origin).parent / "tasks"
    return sorted(tasks.glob(LANGUAGE_BENCHMARKS[name].task_files))


def _split_off(
    benchmark: LanguageBenchmark, task: str, files: dict[str, list[str]], folder: Path
) -> dict[str, list[str]]:
    """The task's own rows as files of their own, where several tasks share theirs."""
    if not benchmark.split_by:
        return files
    subject = task.partition("_")[2]
    own = {}
    for split, paths in files.items():
        table = pa.concat_tables([pq.read_table(path) for path in paths])
        rows = table.filter(pc.equal(table[benchmark.split_by], subject))
        if not rows.num_rows:
            column = benchmark.split_by
            raise UserError(f"{', '.join(paths)}: no row has {column} = {subject!r}")
        path = folder / f"{task}.{split}.parquet"
        pq.write_table(rows, path)
        own[split] = [str(path)]
    return own

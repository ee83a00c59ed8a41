"""The subset and the scores of a finished selection, once it is certain that it wrote them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from prism_tune.config.pool_paths import find_image_dir
from prism_tune.config.sections import DataConfig
from prism_tune.errors import UserError, first_line
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.stage import Stage

SCORE_COLUMNS = ("uid", "id", "source", "score", "rank", "selected", "reason")
_NUMBERS = ("score", "rank")


def read_scores(run: RunDir) -> pa.Table:
    """A finished selection's scores.parquet, a row for each record of the pool.

    Raises:
        UserError: it cannot be read, or is not as a selection writes it.
    """
    path = run.selection / "scores.parquet"
    again = f"write it anew with `prism-tune select {Stage(run.selection).config_path} --force`"
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as parquet: {first_line(error)}; {again}"
        ) from error
    missing = [name for name in SCORE_COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; {again}")
    for field in table.schema:
        if not _is_as_written(field):
            raise UserError(f"{path}: column {field.name} holds {field.type}; {again}")
    return table


def _is_as_written(field: pa.Field) -> bool:
    if field.name.startswith("selected"):
        return bool(pa.types.is_boolean(field.type))
    if field.name in _NUMBERS:
        return bool(pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    return bool(pa.types.is_string(field.type) or field.name not in SCORE_COLUMNS)


def name_column(budget: str | None) -> str:
    """The column of scores.parquet that says what a further budget keeps; None: the run's own."""
    return "selected" if budget is None else f"selected_{budget}"


def subset_data(data: DataConfig, run: RunDir, budget: str | None = None) -> DataConfig:
    """The pool's config, with the subset in place of the pool's records.

    Args:
        data: the pool's.
        run: that selected.
        budget: of `selection.budgets`, by its name; None: the run's own.

    Raises:
        UserError: the selection has not finished, or its subset is not the file that it wrote; or
            it has cut no such budget.
    """
    recorded = Stage(run.selection).require("select")["outputs"].get("subset_sha256")
    path = run.subset
    if budget is not None:
        further = read_object(run.selection / "manifest.json").get("further_budgets", {})
        if budget not in further:
            known = ", ".join(further) or "none"
            raise UserError(
                f"{run.selection}: no further budget {budget}; selection.budgets cut {known}"
            )
        path, recorded = run.selection / further[budget]["file"], further[budget]["subset_sha256"]
    if not path.exists():
        raise UserError(
            f"{path}: the selection wrote it, and it is gone; `prism-tune select CONFIG` "
            "writes it anew"
        )
    if recorded is not None and recorded != fingerprint_file(path):
        raise UserError(
            f"{path}: not the file that the selection wrote (its SHA-256 is another than in "
            f"{Stage(run.selection).path}); `prism-tune select CONFIG` writes it anew; to train on "
            "records of your own, name them in data.records with training.records=pool"
        )
    image_dir = str(find_image_dir(data))
    return data.model_copy(update={"records": str(path), "image_dir": image_dir})

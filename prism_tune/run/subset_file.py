"""The subset of a finished selection, as records to open.

In: a run folder. Out: the config of its subset, once it is certain that the selection wrote it.
"""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import DataConfig
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.stage import Stage


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
        further = read_json(run.selection / "manifest.json").get("further_budgets", {})
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
    image_dir = data.image_dir or str(Path(data.records).parent)
    return data.model_copy(update={"records": str(path), "image_dir": image_dir})

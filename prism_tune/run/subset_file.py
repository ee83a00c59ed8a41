"""The subset of a finished selection, as records to open.

In: a run folder. Out: the config of its subset, once it is certain that the selection wrote it.
"""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import DataConfig
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage


def subset_data(data: DataConfig, run: RunDir) -> DataConfig:
    """The pool's config, with the subset in place of the pool's records.

    Raises:
        UserError: the selection has not finished, or its subset is not the file that it wrote.
    """
    recorded = Stage(run.selection).require("select")["outputs"].get("subset_sha256")
    if not run.subset.exists():
        raise UserError(
            f"{run.subset}: the selection wrote it, and it is gone; `prism-tune select CONFIG` "
            "writes it anew"
        )
    if recorded is not None and recorded != fingerprint_file(run.subset):
        raise UserError(
            f"{run.subset}: not the file that the selection wrote (its SHA-256 is another than in "
            f"{Stage(run.selection).path}); `prism-tune select CONFIG` writes it anew; to train on "
            "records of your own, name them in data.records with training.records=pool"
        )
    image_dir = data.image_dir or str(Path(data.records).parent)
    return data.model_copy(update={"records": str(run.subset), "image_dir": image_dir})

"""What a stage leaves, as an artifact in Weights & Biases: of a config that tracks there, no other.

In: `tracking`, files and what is to be known of them. Out: a run of its own beside the training's,
in one group with it, offline unless WANDB_MODE says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_tune.config.secrets import redact
from prism_tune.config.sections import TrackingConfig
from prism_tune.processes import is_main
from prism_tune.run.folder import RunDir


def log_artifact(
    tracking: TrackingConfig,
    run: RunDir,
    kind: str,
    files: Sequence[Path],
    described: Mapping[str, Any],
) -> None:
    """Log files, or whole folders, as `<run>-<kind>`; on the main process, where W&B is asked for.

    Args:
        tracking: of the config that the user runs.
        run: the run folder.
        kind: of artifact: selection, evaluation-<benchmark>, report.
        files: what it holds.
        described: its metadata, and the summary of the W&B run; secrets are left out.
    """
    if not tracking.wandb or not is_main():
        return
    import wandb

    name = f"{run.root.resolve().name}-{kind}"
    metadata = redact(dict(described))
    opened = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        group=run.root.resolve().name,
        job_type=kind.partition("-")[0],
        name=name,
        dir=str(run.root),
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
        reinit="create_new",  # one that somebody else has opened goes on
    )
    with opened:
        artifact = wandb.Artifact(name, type=kind.partition("-")[0], metadata=metadata)
        for path in files:
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name)
            else:
                artifact.add_file(str(path))
        opened.log_artifact(artifact)
        opened.summary.update(metadata)

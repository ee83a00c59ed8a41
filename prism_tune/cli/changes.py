"""Would a finished stage run again, and for which of its inputs? Nothing is run or written.

The stages themselves say so, by the inputs that they decide by; a plan shows it.
"""

from __future__ import annotations

from prism_tune.config.sections import Config
from prism_tune.errors import UserError, first_line
from prism_tune.run.folder import RunDir


def find_changes(config: Config, run: RunDir, verb: str) -> list[str]:
    """What a stage that has finished would run again for; empty: nothing.

    Args:
        config: the run's.
        run: its folder.
        verb: audit, select, train or evaluate.
    """
    from prism_tune.audit.audit import find_changes as of_audit
    from prism_tune.evaluation.evaluate import find_changes as of_evaluate
    from prism_tune.selection.select import find_changes as of_select
    from prism_tune.training.inputs import find_changes as of_train

    look = {"audit": of_audit, "select": of_select, "train": of_train, "evaluate": of_evaluate}
    try:
        return look[verb](config, run) or []
    except UserError as error:
        return [f"cannot be looked at: {first_line(error)}"]

"""Logging of a run: the console (rich) and `runs/<name>/log.txt`; other ranks only to the file."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from prism_tune.processes import rank

console = Console()
"""Where tables and other results are printed (stdout)."""

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def setup_logging(log_file: Path | None = None) -> None:
    """Send prism_tune's log to stderr and, when given, append it to `log_file`."""
    logger = logging.getLogger("prism_tune")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    if rank() == 0:
        stderr = Console(stderr=True)
        logger.addHandler(RichHandler(console=stderr, show_path=False, show_level=False))
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(log_file)
        to_file.setFormatter(logging.Formatter(f"[rank {rank()}] {_FORMAT}"))
        logger.addHandler(to_file)

"""Logging of a run: the console and `runs/<name>/log.txt`; other ranks only to the file.

On a terminal rich writes it, beside bars; a file or a pipe gets plain lines, none redrawn.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from prism_tune.config.secrets import RedactingFilter
from prism_tune.processes import rank

console = Console(markup=False, emoji=False)
"""Where tables and other results are printed (stdout), as they are: names come from data."""

AS_BAR = {"shown": "where there are no bars"}
"""`extra` of a line that says what a bar shows on a terminal."""
IN_FILE = {"shown": "never"}
"""`extra` of a line for the run's file alone, as what it says is printed otherwise."""

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOGGER = logging.getLogger("prism_tune")
_LIBRARIES = r"(transformers|peft|accelerate|deepspeed|torch)\b"


class _LogFile(logging.FileHandler):
    """A log that cannot be written (a full disk) says so once, and does not end what it tells."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """In place of a traceback for every line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            sys.stderr.write(f"{self.baseFilename}: nothing is logged there any more: {error}\n")

    def close(self) -> None:
        """What could not be written cannot be flushed either, which has been said."""
        with suppress(OSError):
            super().close()


class _ShownFilter(logging.Filter):
    """Keeps lines off the console that stand there already."""

    def filter(self, record: logging.LogRecord) -> bool:
        shown = getattr(record, "shown", "")
        return not shown or (shown == AS_BAR["shown"] and not is_terminal())


def is_terminal() -> bool:
    """Whether stderr, where bars and the log go, is looked at by somebody."""
    return sys.stderr.isatty()


def setup_logging() -> None:
    """Send prism_tune's log to stderr. For a run's file it waits until a stage begins."""
    if not is_terminal():
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars, drawn by carriage returns
    if not sys.warnoptions:  # what libraries tell one another; -W or PYTHONWARNINGS shows it
        warnings.filterwarnings("ignore", category=FutureWarning, module=_LIBRARIES)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
    for handler in list(_LOGGER.handlers):
        _LOGGER.removeHandler(handler)
        if isinstance(handler, MemoryHandler):
            _close_file(handler)
        handler.close()
    if rank() == 0:
        handler = _open_console()
        handler.addFilter(RedactingFilter())
        handler.addFilter(_ShownFilter())
        _LOGGER.addHandler(handler)
    _LOGGER.addHandler(MemoryHandler(capacity=1))  # keeps everything until it has a target


def _open_console() -> logging.Handler:
    if is_terminal():
        return RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler


def keep_log() -> None:
    """For a run's file alone, within somebody else's program: its own logging stays as it is."""
    for handler in list(_LOGGER.handlers):
        if isinstance(handler, MemoryHandler):
            _LOGGER.removeHandler(handler)
            _close_file(handler)
    if _LOGGER.level == logging.NOTSET:
        _LOGGER.setLevel(logging.INFO)
    _LOGGER.addHandler(MemoryHandler(capacity=1))


def open_log(log_file: Path) -> None:
    """Append to a run's file from here on, beginning with what has waited.

    A stage calls it when it really begins, on every rank: what only looks, is skipped or fails
    before leaves no line. Without `setup_logging` (prism_tune as a library) nothing is written.
    """
    for waiting in _LOGGER.handlers:
        if isinstance(waiting, MemoryHandler):
            _close_file(waiting)
            log_file.parent.mkdir(parents=True, exist_ok=True)
            to_file = _LogFile(log_file)
            to_file.setFormatter(logging.Formatter(f"[rank {rank()}] {_FORMAT}"))
            to_file.addFilter(RedactingFilter())
            waiting.setTarget(to_file)
            waiting.flush()


def _close_file(waiting: MemoryHandler) -> None:
    if waiting.target is not None:
        waiting.target.close()

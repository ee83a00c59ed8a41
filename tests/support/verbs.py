"""The command line in a process of its own, without its seconds of imports.

As from a shell: another process with other streams, folder and environment, whose exit code counts.
It is forked from one that has loaded the libraries (`compare/workers.py`), once for all tests of a
worker. That the command starts from nothing, tests of the wheel, of the launcher and of the end to
end show.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prism_tune.compare.workers import start_server

_LIBRARIES = ["prism_tune.selection.select", "prism_tune.training.train", "pytest"]


def run_verb(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`prism-tune ARGUMENTS`, as `subprocess.run` tells of it."""
    start_server(_LIBRARIES, {})
    context = multiprocessing.get_context("forkserver")
    whole = {**os.environ, **(environment or {})}
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        given = (arguments, str(cwd or Path.cwd()), whole, [str(path) for path in streams])
        process = context.Process(target=_serve, args=given)
        process.start()
        process.join()
        written = [path.read_text() for path in streams]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, *written)


def _serve(arguments: list[str], cwd: str, environment: dict[str, str], streams: list[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in zip((1, 2), streams, strict=True):
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["prism-tune", *arguments]
    from prism_tune.cli.app import main

    main()

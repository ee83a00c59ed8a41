"""`prism-tune doctor`, and the tests that mean something on a GPU, as a user starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_TESTS = (
    "tests/models/test_packing.py",
    "tests/training/test_packed.py",
    "tests/training/test_resume.py",
    "tests/selection/evidence/test_features.py",
    "tests/evaluation/test_generate.py",
)


def run_doctor(work: Path) -> dict[str, Any]:
    """What it prints."""
    return _run(sys.executable, "-m", "prism_tune", "doctor")


def run_tests(work: Path) -> dict[str, Any]:
    """The last lines of pytest; a failure is not necessarily one on a CPU."""
    found = [path for path in _TESTS if (_ROOT / path).is_file()]
    return _run(
        sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *found
    )


def _run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    return {"exit_code": done.returncode, "output": (done.stdout + done.stderr)[-4000:]}

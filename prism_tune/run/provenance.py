"""Which code computed something: prism_tune's version and git commit, and what it ran on.

In: the installed package and its repository. Out: a dictionary, kept in every `stage.json`.
"""

from __future__ import annotations

import json
import platform
import subprocess
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prism_tune import __version__

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "deepspeed",
    "peft",
    "datasets",
    "numpy",
    "pyarrow",
    "pillow",
    "torchvision",
    "lm_eval",
)
"""Those whose version can move a number."""

_ROOT = Path(__file__).parents[2]


@cache
def describe_software() -> dict[str, Any]:
    """`prism_tune`, `git_commit` (None where unknown), `python` and `packages`."""
    return {
        "prism_tune": __version__,
        "git_commit": find_commit(_ROOT) or _installed_commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def find_commit(root: Path) -> str | None:
    """The commit checked out in `root`, with " (changed)" where prism_tune's code differs from it.

    None where `root` is not a repository itself, as in an installed wheel, or git is missing.
    """
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    asked = ("status", "--porcelain", "--untracked-files=normal")  # whatever git is set to show
    changes = _git(root, *asked, "--", "prism_tune")
    return f"{commit} (changed)" if commit and changes else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _installed_commit() -> str | None:
    """What `pip install git+https://...` noted (PEP 610)."""
    try:
        noted = Distribution.from_name("prism_tune").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    commit: str | None = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id")
    return commit


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

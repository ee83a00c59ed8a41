"""Make a release of what is there: its version, its date, and the changes that were waiting.

    python scripts/cut_release.py VERSION [YYYY-MM-DD]

Writes the version into `prism_tune/__init__.py` (its one place), with the date into CITATION.cff,
and puts what stands under Unreleased in CHANGELOG.md under the version: a new heading, or the one
that is there. Then `make release-check`, a commit and a tag.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_WAITING = re.compile(r"(?ms)^## Unreleased\n(.*?)(?=^## |\Z)")


def cut(root: Path, version: str, day: date) -> None:
    """Rewrite the files that say which release this is.

    Raises:
        ValueError: no version, or a file does not have the place for it.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version}: expected a version such as 0.2.0 or 0.2.0rc1")
    places = (
        ("prism_tune/__init__.py", r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"'),
        ("CITATION.cff", r"(?m)^version: .*$", f"version: {version}"),
        ("CITATION.cff", r"(?m)^date-released: .*$", f"date-released: {day}"),
        ("docs/install.md", r"dist/prism_tune-\S+?-py3", f"dist/prism_tune-{version}-py3"),
    )
    for name, pattern, text in places:
        _replace(root / name, pattern, text)
    changes = root / "CHANGELOG.md"
    changes.write_text(move_waiting(changes.read_text(), version, day))


def move_waiting(changes: str, version: str, day: date) -> str:
    """The changelog with what was unreleased under the version."""
    found = _WAITING.search(changes)
    if found is None:
        raise ValueError("CHANGELOG.md: no heading `## Unreleased`")
    waiting = found[1].strip()
    rest = changes[found.end() :]
    before = f"{changes[: found.start()]}## Unreleased\n\n"
    heading = re.search(rf"(?m)^## {re.escape(version)}( .*)?\n", rest)
    if heading is None:
        return f"{before}## {version} ({day})\n\n{waiting}\n\n{rest}"
    dated = f"{rest[: heading.start()]}## {version} ({day})\n"
    added = f"\n{waiting}\n" if waiting else ""
    return f"{before}{dated}{added}{rest[heading.end() :]}"


def _replace(path: Path, pattern: str, text: str) -> None:
    content, number = re.subn(pattern, text, path.read_text())
    if number == 0:
        raise ValueError(f"{path}: nothing there like {pattern}")
    path.write_text(content)


def main() -> None:
    """Cut what the command line names."""
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    day = date.fromisoformat(sys.argv[2]) if len(sys.argv) == 3 else date.today()
    cut(ROOT, sys.argv[1], day)


if __name__ == "__main__":
    main()

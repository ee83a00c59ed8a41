"""Is this tree ready to be released? One version everywhere, a changelog cut for it, built files.

    python scripts/check_release.py [DIST]

Reads `prism_tune/__init__.py` (the one place of the version), CITATION.cff and CHANGELOG.md; with a
folder of built files also their names and the wheel's metadata. Exit code 1 with a line a fault.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find_faults(root: Path, dist: Path | None = None) -> Iterator[str]:
    """What is not ready, a line each."""
    version = _search(root / "prism_tune/__init__.py", r'__version__ = "(.+)"')
    cited = _search(root / "CITATION.cff", r"(?m)^version: (.+)$")
    if cited != version:
        yield f"CITATION.cff: version {cited}, and prism_tune.__version__ is {version}"
    changes = (root / "CHANGELOG.md").read_text()
    newest = re.search(r"(?m)^## (\d\S*)(?: \((\S+)\))?", changes)
    if newest is None or newest[1] != version:
        found = newest[1] if newest else "none"
        yield f"CHANGELOG.md: the newest release there is {found}, expected {version}"
    elif newest[2] != (cited_day := _search(root / "CITATION.cff", r"(?m)^date-released: (.+)$")):
        yield f"CITATION.cff: released {cited_day}, and CHANGELOG.md says {newest[2]}"
    waiting = re.search(r"(?ms)^## Unreleased\n(.*?)^## ", changes)
    if waiting is not None and "\n- " in waiting[1]:
        command = f"python scripts/cut_release.py {version}"
        yield f"CHANGELOG.md: lines under Unreleased; `{command}` moves them"
    if dist is not None:
        yield from _find_build_faults(dist, version)


def _find_build_faults(dist: Path, version: str) -> Iterator[str]:
    for name in (f"prism_tune-{version}.tar.gz", f"prism_tune-{version}-py3-none-any.whl"):
        if not (dist / name).is_file():
            yield f"{dist / name}: not built"
    wheel = dist / f"prism_tune-{version}-py3-none-any.whl"
    if wheel.is_file():
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        for needed in ("prism_tune/configs/experiments/quickstart.yaml", "prism_tune/py.typed"):
            if needed not in names:
                yield f"{wheel}: without {needed}"


def _search(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.read_text())
    return found[1].strip() if found else "none"


def main() -> None:
    """Print the faults."""
    dist = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    faults = list(find_faults(ROOT, dist))
    sys.stdout.write("".join(f"{fault}\n" for fault in faults) or "ready\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

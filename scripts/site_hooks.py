"""What mkdocs calls while it builds the site: pages that lie outside of docs/ are put into it.

Their links, and those to them, are led on; a link to any other file outside becomes its name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = {"benchmarks/RESULTS.md": "measured.md", "data/README.md": "files.md"}
"""File of the repository -> page of the site."""

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]+)?\)")
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links on, outside of code."""
    path = page.file.src_uri
    own = next((Path(file) for file, name in OUTSIDE.items() if name == path), Path("docs", path))
    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: _lead(found, own, path), part) for part in parts[::2]]
    return "".join(parts)


def _lead(found: re.Match[str], own: Path, page: str) -> str:
    text, target, anchor = found[1], found[2], found[3] or ""
    file = (ROOT / own.parent / target).resolve()
    if not file.is_relative_to(ROOT):
        return found[0]
    name = file.relative_to(ROOT).as_posix()
    to = OUTSIDE.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else None)
    if to is None or not (name in OUTSIDE or file.suffix in (".md", ".webp", ".svg")):
        return text if text.strip("`") == target else f"{text} (`{name}`)"
    up = "../" * page.count("/")
    return f"[{text}]({up}{to}{anchor})"

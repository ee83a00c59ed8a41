"""What the page is put together from: sections, and the folder that their files go to."""

from __future__ import annotations

import base64
import gzip
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

TEMPLATES = Path(__file__).parent / "templates"
_ASSETS = Path(__file__).parent / "assets"

_INERT = {b"<": b"\\u003c", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
"""What could end a script or a line of one; inside of JSON strings only."""


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        id: the anchor, and the name of its data.
        title: the heading.
        template: a file in `templates/`; it sees `values` as `v`, everything escaped.
        values: what the template shows.
        scripts: files that the page loads for it, relative to the page, in this order.
        styles: its style sheets, likewise.
    """

    id: str
    title: str
    template: str
    values: Mapping[str, Any]
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


class PageFolder:
    """The folder of a page that is being built: `index.html` and folders of what it loads.

    The page is opened from disk, where a script may not fetch anything. So data are scripts too:
    `data/<name>.js` puts its value into `PRISM.data["<name>"]`.

    Args:
        root: where it is built.
        home: where it will lie; None: there.
    """

    def __init__(self, root: Path, home: Path | None = None) -> None:
        self.root = root
        self.home = home or root

    def add_data(self, name: str, value: Any) -> str:
        """Write `data/<name>.js`; the path that `Section.scripts` takes.

        NaN and infinity become null; numpy arrays and scalars are accepted.
        """
        content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        for mark, escape in _INERT.items():
            content = content.replace(mark, escape)
        return self._write_value(name, content)

    def add_packed(self, name: str, content: bytes) -> str:
        """Write `data/<name>.js` whose value is the base64 text of the gzipped content.

        For what is large, or made of text that a script should never hold as it is.
        """
        return self._write(f"data/{name}.js", pack(name, content))

    def add_asset(self, name: str) -> str:
        """Copy a script or style sheet of this package's to `assets/`; its path."""
        return self.add_file(_ASSETS / name, name)

    def add_file(self, source: Path, name: str) -> str:
        """Copy any file to `assets/`; its path."""
        target = self.root / "assets" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return f"assets/{name}"

    def add_picture(self, name: str, content: bytes) -> str:
        """Write `pictures/<name>.webp`; its path."""
        return self._write(f"pictures/{name}.webp", content)

    def _write_value(self, name: str, value: bytes) -> str:
        return self._write(f"data/{name}.js", _assign(name, value))

    def _write(self, path: str, content: bytes) -> str:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return path


def pack(name: str, content: bytes) -> bytes:
    """A script whose value `name` is the base64 text of the gzipped content."""
    packed = base64.b64encode(gzip.compress(content, compresslevel=4, mtime=0))
    return _assign(name, b'"%s"' % packed)


def _assign(name: str, value: bytes) -> bytes:
    return b'PRISM.data["%s"] = %s;\n' % (name.encode(), value)


def add_cards(page: PageFolder) -> tuple[str, ...]:
    """The scripts that sections of cards share, packed data, pages, dialog and pictures."""
    return (
        page.add_data("served", False),  # the server says otherwise
        *map(page.add_asset, ("packed.js", "words.js", "elements.js", "pager.js", "dialog.js")),
    )

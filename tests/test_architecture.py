"""What docs/architecture.md and CONTRIBUTING.md name is there; the picture of the rooms is true."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
PATH_AND_NAME = r"`([\w./]+/[\w./]*\w\.py|[\w./]+/)(?::(\w+))?`"
NAMED = [
    (page, *found)
    for page in PAGES
    for found in re.findall(
        r"`([\w./]+/[\w./]*\w\.py|[\w./]+/)(?::(\w+))?`", (ROOT / page).read_text()
    )
]


def load_drawing():
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "scripts" / "draw_rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_walk_names_functions():
    assert sum(bool(name) for _, _, name in NAMED) > 15


@pytest.mark.parametrize(("page", "path", "name"), NAMED)
def test_what_the_pages_name_is_there(page, path, name):
    assert (ROOT / path).exists(), f"{page} names {path}"
    if name:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {getattr(node, "name", None) for node in tree.body}, f"{path} has no {name}"


def test_the_picture_of_the_rooms_is_current():
    drawing = load_drawing()
    assert drawing.PICTURE.read_text() == drawing.draw(drawing.read_arrows()), (
        "the imports have changed: python scripts/draw_rooms.py"
    )


def test_an_arrow_that_follows_from_others_is_not_drawn():
    drawing = load_drawing()
    arrows = {"cli": {"run", "config"}, "run": {"config"}, "config": set()}
    assert drawing.reduce_arrows(arrows) == [("cli", "run"), ("run", "config")]
    assert drawing.find_floors(arrows) == {"cli": 2, "run": 1, "config": 0}

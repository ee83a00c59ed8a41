"""Draw the rooms of prism_tune and who imports whom: docs/images/rooms.svg, out of the imports.

    python scripts/draw_rooms.py

A room stands one floor above the highest room it imports from. Of the arrows only those are drawn
that do not follow from others.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "prism_tune"
PICTURE = ROOT / "docs" / "images" / "rooms.svg"

BOX_WIDTH, BOX_HEIGHT = 104, 34
STEP_X, STEP_Y = 124, 74
MARGIN = 20
GROUND = "the ground"
"""The modules at the top of the package: words everyone speaks."""
LIBRARY = "api"
"""The one that stands above the rooms."""


def read_arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Room -> the rooms it imports from, itself left out."""
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {LIBRARY}
    arrows: dict[str, set[str]] = {room: set() for room in sorted(rooms | {GROUND})}
    for path in sorted(package.rglob("*.py")):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        if here == "__main__":
            continue
        room = here if here in rooms else GROUND
        for module in _imported(path):
            _, _, rest = module.partition("prism_tune.")
            there = rest.split(".")[0]
            if rest:
                arrows[room].add(there if there in rooms else GROUND)
    return {room: targets - {room} for room, targets in arrows.items()}


def find_floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its floor, the ground being 0."""

    @cache
    def floor(room: str) -> int:
        return max((1 + floor(target) for target in arrows[room]), default=0)

    return {room: floor(room) for room in arrows}


def reduce_arrows(arrows: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from others, sorted."""

    @cache
    def below(room: str) -> frozenset[str]:
        return frozenset(arrows[room]).union(*(below(target) for target in arrows[room]))

    return [
        (room, target)
        for room, targets in sorted(arrows.items())
        for target in sorted(targets)
        if not any(target in below(other) for other in targets - {target})
    ]


def draw(arrows: dict[str, set[str]]) -> str:
    """The picture."""
    floors = find_floors(arrows)
    rows = [
        [room for room in sorted(floors) if floors[room] == number]
        for number in range(max(floors.values()) + 1)
    ]
    width = 2 * MARGIN + STEP_X * max(map(len, rows))
    height = 2 * MARGIN + STEP_Y * len(rows)
    places = {
        room: (
            width // 2 + STEP_X * (2 * place - len(row) + 1) // 2,
            height - MARGIN - STEP_Y * number - STEP_Y // 2,
        )
        for number, row in enumerate(rows)
        for place, room in enumerate(row)
    }
    lines = [_line(places[room], places[target]) for room, target in reduce_arrows(arrows)]
    boxes = [_box(room, *place) for room, place in sorted(places.items())]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="14">',
            "<title>The rooms of prism_tune; a line leads down to what a room imports</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "prism_tune":
            names.update(f"prism_tune.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name for name in names if name.startswith("prism_tune.")}


def _line(upper: tuple[int, int], lower: tuple[int, int]) -> str:
    half = BOX_HEIGHT // 2
    return (
        f'<line x1="{upper[0]}" y1="{upper[1] + half}" x2="{lower[0]}" y2="{lower[1] - half}" '
        'stroke="#8a94a6" stroke-width="1.2"/>'
    )


def _box(room: str, x: int, y: int) -> str:
    return (
        f'<rect x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="6" fill="#eef3fb" stroke="#35507a"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" fill="#1c2b45">{room}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(read_arrows()))

"""The plan of the house: imports run downward, and stage rooms meet through files only."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "prism_tune"
FLOORS = (
    {"__init__", "errors", "schema", "intervals", "processes", "interrupts", "chat"},
    {"config"},
    {"run"},
    {"features"},
    {"data", "models"},
    {"audit", "selection", "training", "evaluation", "quickstart", "results"},
    {"report"},
    {"compare"},
    {"cli", "__main__", "api"},
)
MOST_FILES = 20
STAGES = {"audit", "selection", "training", "evaluation", "quickstart"}
APART = ({"data", "models"}, STAGES | {"results"})  # these rooms do not know each other
WITHOUT_STAGES = {"report", "compare"}  # above the stages, and meet them through files only
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room_of(module: str) -> str:
    """`prism_tune.data.records` -> `data`; the package itself counts as `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_modules(path: Path) -> set[str]:
    """Every module of the package that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
            names.add(str(node.module))
    found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in MODULES}


IMPORTS = {module: imported_modules(path) for module, path in MODULES.items()}


def test_the_walk_sees_imports():
    """At the top, inside functions and under TYPE_CHECKING."""
    assert "prism_tune.errors" in IMPORTS["prism_tune.config.load"]
    assert "prism_tune.selection.select" in IMPORTS["prism_tune.cli.stages"]
    assert "prism_tune.config.sections" in IMPORTS["prism_tune.cli.options"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module):
    room = room_of(module)
    assert room in FLOOR_OF, f"{module}: say on which floor of the house `{room}` stands"
    for target in sorted(IMPORTS[module]):
        other = room_of(target)
        assert FLOOR_OF[other] <= FLOOR_OF[room], f"{module} imports upward: {target}"
        if room != other:
            neighbours = any({room, other} <= floor for floor in APART)
            assert not neighbours, f"{module} imports from the room beside it: {target}"
            through_files = room in WITHOUT_STAGES and other in STAGES
            assert not through_files, (
                f"{module} meets a stage otherwise than by its files: {target}"
            )


def find_second_hand(module: str) -> list[str]:
    """What a file imports from a module that has it by import itself."""
    found = [
        node
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
    ]
    return [
        f"{alias.name} from {node.module}"
        for node in found
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES and alias.name in TAKEN[str(node.module)]
    ]


def taken_names(path: Path) -> set[str]:
    """What a file's `from ... import` names bring in."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = (node for node in nodes if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name for node in found for alias in node.names}


TAKEN = {module: taken_names(path) for module, path in MODULES.items()}


def test_names_are_imported_from_where_they_are_made():
    """Else moving an import in one file breaks another, and nobody sees what depends on what."""
    assert {module: found for module in MODULES if (found := find_second_hand(module))} == {}


def sub_room_of(module: str) -> str:
    """`prism_tune.selection.evidence.store` -> `selection.evidence`; a loose file is its own."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts else "__init__"


def test_sub_rooms_have_floors():
    """No circle of arrows between a room's sub-rooms and its loose files."""
    arrows: dict[str, set[str]] = {}
    for module, targets in IMPORTS.items():
        here = sub_room_of(module)
        arrows.setdefault(here, set()).update(sub_room_of(target) for target in targets)
    graphlib.TopologicalSorter(
        {here: {there for there in targets if there != here} for here, targets in arrows.items()}
    ).prepare()


def test_rooms_are_small():
    """At most eight loose modules at the top, and so many files side by side."""
    crowded = {
        folder: len(list(folder.glob("*.py")))
        for folder in [PACKAGE, *PACKAGE.rglob("*/")]
        if folder.name not in {"scorers", "benchmarks"}
    }
    assert crowded.pop(PACKAGE) <= 8
    assert {folder: number for folder, number in crowded.items() if number > MOST_FILES} == {}


def test_no_module_leads_back_to_itself():
    graphlib.TopologicalSorter(
        {module: targets - {module} for module, targets in IMPORTS.items()}
    ).prepare()


def test_results_and_report_never_load_torch():
    rooms = [module for module in MODULES if room_of(module) in {"results", "report"}]
    assert rooms
    code = f"import sys, {', '.join(rooms)}\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packages_hold_nothing_but_the_two_registries():
    """`__init__.py` is empty but for `SCORERS` and `BENCHMARKS`."""
    filled = {
        module: path.read_text()
        for module, path in MODULES.items()
        if path.name == "__init__.py" and path.read_text().strip()
    }
    assert set(filled) == {
        "prism_tune",
        "prism_tune.selection.scorers",
        "prism_tune.evaluation.benchmarks",
    }
    assert "SCORERS" in filled["prism_tune.selection.scorers"]
    assert "BENCHMARKS" in filled["prism_tune.evaluation.benchmarks"]

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
    {"errors", "schema", "distributed", "config", "config_errors", "log"}
    | {"resampling", "student_t", "provenance", "energy", "__init__"},
    {"run_dir", "stages", "timings", "process_group", "feature_shards"},
    {"data", "models"},
    {"audit", "selection", "training", "evaluation", "tables", "report", "quickstart", "compare"},
    {"cli", "cli_compare", "cli_models", "cli_tables", "cli_report", "doctor", "__main__"},
)
APART = (FLOORS[2], FLOORS[3])  # rooms on these floors do not know their neighbours
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
    assert "prism_tune.errors" in IMPORTS["prism_tune.config"]
    assert "prism_tune.selection.select" in IMPORTS["prism_tune.cli"]
    assert "prism_tune.config" in IMPORTS["prism_tune.cli"]


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


def test_no_module_leads_back_to_itself():
    graphlib.TopologicalSorter(
        {module: targets - {module} for module, targets in IMPORTS.items()}
    ).prepare()


def test_tables_and_report_never_load_torch():
    rooms = [module for module in MODULES if room_of(module) in {"tables", "report"}]
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

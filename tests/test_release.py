"""The tree is one release: one version, a changelog cut for it; what the image runs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest

from prism_tune import __version__

ROOT = Path(__file__).parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_faults(root, dist=None):
    return list(load("check_release").find_faults(root, dist))


def copy_tree(tmp_path):
    for folder in ("prism_tune", "docs"):
        (tmp_path / folder).mkdir()
    for name in ("prism_tune/__init__.py", "CITATION.cff", "CHANGELOG.md", "docs/install.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_one_version_stands_everywhere():
    """Whatever is waiting for the next."""
    versions = [fault for fault in find_faults(ROOT) if "Unreleased" not in fault]
    assert versions == []


def test_what_is_not_ready_is_named(tmp_path):
    root = copy_tree(tmp_path)
    (root / "CITATION.cff").write_text("version: 9.9.9\n")
    changes = (root / "CHANGELOG.md").read_text()
    changes = changes.replace("## Unreleased\n", "## Unreleased\n\n- New.\n")
    (root / "CHANGELOG.md").write_text(changes)
    citation, dated, waiting, sdist, wheel = find_faults(root, root)
    assert dated.startswith("CITATION.cff: released none, and CHANGELOG.md says 20")
    assert citation == f"CITATION.cff: version 9.9.9, and prism_tune.__version__ is {__version__}"
    assert waiting.startswith("CHANGELOG.md: lines under Unreleased")
    assert sdist.endswith(f"prism_tune-{__version__}.tar.gz: not built")
    assert wheel.endswith(f"prism_tune-{__version__}-py3-none-any.whl: not built")


@pytest.mark.parametrize("version", ["9.9.9", __version__])
def test_a_release_is_cut_by_one_command(tmp_path, version):
    """A new version, and a line that came in last for the one that is cut already."""
    root = copy_tree(tmp_path)
    changes = root / "CHANGELOG.md"
    waiting = changes.read_text().replace("## Unreleased\n", "## Unreleased\n\n- A new thing.\n")
    changes.write_text(waiting)
    assert any("lines under Unreleased" in fault for fault in find_faults(root))
    load("cut_release").cut(root, version, date(2030, 1, 2))
    assert find_faults(root) == []
    told = changes.read_text()
    before, _, after = told.partition("- A new thing.")
    assert "## Unreleased\n\n## " in before
    assert f"## {version} (2030-01-02)" in before
    assert "The first release" in after
    assert f"prism_tune-{version}-py3" in (root / "docs/install.md").read_text()


def test_the_image_runs_any_verb():
    script = ["bash", ROOT / "scripts/container.sh"]
    path = {"PATH": "/usr/bin:/bin"}
    shown = subprocess.run([*script, "prism-tune", "--version"], env=path, capture_output=True)
    assert b"prism-tune" in shown.stderr  # handed on: there is none on this PATH
    helped = subprocess.run([*script, "--help"], env=path, capture_output=True, text=True)
    assert "select_and_finetune.sh" in helped.stdout

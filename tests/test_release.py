"""The tree is one release: one version, a changelog cut for it; what the image runs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find_faults(root, dist=None):
    spec = importlib.util.spec_from_file_location("check", ROOT / "scripts/check_release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.find_faults(root, dist))


def copy_tree(tmp_path):
    (tmp_path / "prism_tune").mkdir()
    for name in ("prism_tune/__init__.py", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_one_version_stands_everywhere():
    versions = [fault for fault in find_faults(ROOT) if "Unreleased" not in fault]
    assert versions == []


def test_what_is_not_ready_is_named(tmp_path):
    root = copy_tree(tmp_path)
    (root / "CITATION.cff").write_text("version: 9.9.9\n")
    changes = (root / "CHANGELOG.md").read_text().replace("Nothing yet.", "Soon:\n\n- New.")
    (root / "CHANGELOG.md").write_text(changes)
    citation, waiting, sdist, wheel = find_faults(root, root)
    assert citation == "CITATION.cff: version 9.9.9, and prism_tune.__version__ is 0.1.0"
    assert waiting.startswith("CHANGELOG.md: lines under Unreleased")
    assert sdist.endswith("prism_tune-0.1.0.tar.gz: not built")
    assert wheel.endswith("prism_tune-0.1.0-py3-none-any.whl: not built")


def test_the_image_runs_any_verb():
    script = ["bash", ROOT / "scripts/container.sh"]
    path = {"PATH": "/usr/bin:/bin"}
    shown = subprocess.run([*script, "prism-tune", "--version"], env=path, capture_output=True)
    assert b"prism-tune" in shown.stderr  # handed on: there is none on this PATH
    helped = subprocess.run([*script, "--help"], env=path, capture_output=True, text=True)
    assert "select_and_finetune.sh" in helped.stdout

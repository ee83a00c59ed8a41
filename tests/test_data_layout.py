"""data/README.md shows every file and folder that a preset looks for, at its place in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_tune.config.load import load_config

ROOT = Path(__file__).parent.parent
PRESETS = sorted((ROOT / "configs/experiments").glob("*.yaml"))
TREE = (ROOT / "data/README.md").read_text().split("```")[1].strip().split("\n")


def shown_paths():
    """The paths of the tree: two spaces deeper is a folder deeper; files behind a folder are in it.

    A line's remark begins at the first word that is no path.
    """
    open_folders, shown = {}, set()
    for line in TREE:
        depth = (len(line) - len(line.lstrip())) // 2
        parent = open_folders.get(depth - 1, Path())
        for entry in line.split():
            if not set(entry) & set("./*") or entry.startswith("("):
                break
            shown.add(str(parent / entry.rstrip("/,")))
            if entry.endswith("/"):
                parent = open_folders[depth] = parent / entry
    return shown


def named_paths(config):
    yield config.data.records
    yield from filter(None, [config.data.image_dir])
    for data in config.evaluation.data.values():
        yield data.annotations
        yield from filter(None, [data.image_dir])


@pytest.mark.parametrize("preset", PRESETS, ids=[path.stem for path in PRESETS])
def test_every_path_of_a_preset_is_in_the_tree(preset):
    shown = {*shown_paths()}
    folders = {str(parent) for path in shown for parent in Path(path).parents}
    for path in named_paths(load_config(preset)):
        if not path.startswith("data/quickstart"):
            assert path in shown | folders, path

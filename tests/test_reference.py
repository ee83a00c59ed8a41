"""docs/reference/ says what the code says, and every config key has a meaning."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from prism_tune.config.load import load_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reference():
    path = ROOT / "scripts" / "write_reference.py"
    spec = importlib.util.spec_from_file_location("write_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_has_a_meaning_and_every_meaning_a_key(reference):
    keys = [key.name for key in reference.list_keys()]
    assert len(keys) == len(set(keys)) > 90
    assert {"selection.reference.warmup.share", "evaluation.data.NAME.metric"} <= set(keys)
    assert set(keys) == set(reference.MEANINGS), "scripts/meanings.yaml has a line for every key"


@pytest.mark.parametrize("page", ["config.md", "commands.md", "messages.md"])
def test_the_pages_are_as_the_code_is(reference, page):
    written = (ROOT / "docs" / "reference" / page).read_text()
    assert written == reference.PAGES[page](), "run: python scripts/write_reference.py"


def test_a_key_is_described_in_full(reference):
    text = (ROOT / "docs" / "reference" / "config.md").read_text()
    assert (
        "| `layer` | integer from 0 | `1` | The decoder layer that features are read behind; "
        "0 is the embeddings. | select |" in text
    )
    assert "| `keep` | `low`, `middle`, `high` or null | `null` |" in text
    assert "| `share` | number above 0 to 1 | `0.08` |" in text


def test_every_page_is_in_the_site():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = {page for section in site["nav"] for pages in section.values() for page in pages}
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert there <= listed


def test_the_configs_of_the_tutorial_load(tmp_path):
    """The second adds the two lines about marks, and nothing else."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    path = tmp_path / "my.yaml"
    loaded = []
    for block in blocks:
        path.write_text(block)
        loaded.append(load_config(path))
    first, second = loaded
    marks = {"must_keep": "marks-mine.json", "must_drop": "marks-mine.json"}
    assert second.selection == first.selection.model_copy(update=marks)
    assert second.training == first.training

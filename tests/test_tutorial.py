"""docs/tutorial.md: its commands, run one after another, print what stands below them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_MEASURED = re.compile(
    r"\d[\d.,]*(?:e[+-]\d+)?(?= ?(?:/s\b|s\b))|(?<=/s )\d[\d.]*|(?<=loss )\d[\d.]*"
    r"|\d+:\d\d:\d\d|\d\.\de[+-]\d+|\b\d\.\d\d(?= \|)|(?<=in torch\.)\w+"
)
"""Times, speeds, sizes, differences of floats, and what a CPU computes in: not of the program."""


@pytest.fixture
def tutorial():
    path = ROOT / "scripts" / "write_tutorial.py"
    spec = importlib.util.spec_from_file_location("write_tutorial", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare(text):
    """What does not depend on the machine; columns are as wide as what is measured."""
    return re.sub(r"[ \-─━]{2,}", " ", _MEASURED.sub("#", text)).splitlines()


@pytest.mark.slow
def test_the_commands_print_what_the_page_says(tutorial, tmp_path, monkeypatch):
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    again = tutorial.write_page(tmp_path)
    assert bare(again) == bare(tutorial.PAGE.read_text()), "run: python scripts/write_tutorial.py"

"""What a finished selection prints."""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import SelectionConfig
from prism_tune.selection.outputs import print_sources


def test_names_of_sources_and_folders_are_printed_as_they_are(capsys):
    sources = {name: {"kept": 1, "total": 2} for name in ("vqa[en]", "[/x]", ":cat:")}
    print_sources(sources, SelectionConfig(), Path("runs/[b]/subset.json"))
    printed = capsys.readouterr().out
    assert [name for name in sources if name not in printed] == []
    assert "subset: runs/[b]/subset.json" in printed

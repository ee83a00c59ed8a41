"""A comparison at its smallest: a tiny model, 16 drawn images, verbs that are the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny_runs import draw_questions, tiny_config

from prism_tune.compare.workers import start_server


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> dict[str, str]:
    return draw_questions(tmp_path_factory.mktemp("held_out"))


@pytest.fixture(scope="session")
def server() -> None:
    """What verbs are forked from, with what their stand-ins import."""
    start_server(["torch", "prism_tune.compare.run_grid", "pytest"], {})


@pytest.fixture
def write_config(tiny_llava_dir, drawn_pool, questions, tmp_path):
    """Writes comparison.yaml with this `compare` section; returns its path."""

    def write(compare: dict[str, Any], **sections: Any) -> Path:
        config = tiny_config(tmp_path, tiny_llava_dir, drawn_pool, questions)
        config["compare"] = {"metrics": ["quickstart.accuracy"], **compare}
        path = tmp_path / "comparison.yaml"
        path.write_text(yaml.safe_dump({**config, **sections}))
        return path

    return write

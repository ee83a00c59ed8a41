"""Every published preset's selection through the whole stage, shrunk to a tiny pool and model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_encoders import save_encoder

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.selection.select import select

PRESETS = sorted(
    (Path(__file__).parents[2] / "configs" / "experiments" / "published").glob("*.yaml")
)
pytestmark = pytest.mark.slow
COUNTS = {"scalselect": 4}  # 16 % of 24 image records; of the others 20 % of 26 rows, and so on
SHRUNK = {"num_clusters": 4}


def shrink(path, workplace):
    """The preset's selection over the drawn pool and the tiny LLaVA."""
    selection = load_config(path).selection.model_dump(mode="json")
    options = {key: SHRUNK.get(key, value) for key, value in selection["options"].items()}
    if "model" in options:
        options["model"] = str(save_encoder("clip", workplace.root / "clip"))
    base = workplace.config().model_dump(mode="json")
    reference = selection["reference"] and {"model": base["model"]["path"]}
    if reference:
        reference["template"] = "vicuna_v1"
    selection |= {"options": options, "reference": reference, "dtype": "float32"}
    selection["layer"] = min(selection["layer"], 4)
    return Config.model_validate({**base, "name": path.stem, "selection": selection})


def kept(config, name):
    run = RunDir(Path(config.output_dir) / name)
    select(config, run)
    records = json.loads(run.subset.read_text())
    return sorted(record["id"] for record in records)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_selects_the_same_records_in_any_order(path, workplace):
    config = shrink(path, workplace)
    found = kept(config, "once")
    share = config.selection.budget
    assert len(found) == COUNTS.get(path.stem, int(share * 26 + 0.5))
    workplace.write_records(workplace.records()[::-1])
    assert kept(config, "reversed") == found

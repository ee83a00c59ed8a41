"""A model with code of its own in its directory: trusted where the config says so, and copied."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from support.tiny import save_tiny_llava
from transformers import AutoModelForImageTextToText

from prism_tune.config.load import render_config
from prism_tune.config.sections import Config, ModelConfig, TrainingConfig
from prism_tune.models.export import ExportOptions, export
from prism_tune.models.load import load_model, load_shallow
from prism_tune.models.processor import load_processor
from prism_tune.models.tuning import prepare_tuning

CODE = """
import transformers

class LlavaModel(transformers.LlavaModel):
    pass

class LlavaForConditionalGeneration(transformers.LlavaForConditionalGeneration):
    pass
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A sharded tiny LLaVA whose classes stand in modeling_own.py."""
    folder = save_tiny_llava(tmp_path_factory.mktemp("remote") / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    # Weights of a model with code of its own are read by the names that it gives them.
    save_torch_state_dict(model.state_dict(), folder, max_shard_size="100KB")
    (folder / "modeling_own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoModel": "modeling_own.LlavaModel",
        "AutoModelForImageTextToText": "modeling_own.LlavaForConditionalGeneration",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def is_own(model):
    return type(model).__module__.endswith("modeling_own")


def test_code_is_run_where_the_config_trusts_it_and_nowhere_else(directory):
    trusted = ModelConfig(path=str(directory), trust_remote_code=True)
    assert is_own(load_model(trusted, dtype=torch.float32))
    assert is_own(load_shallow(trusted, 1, dtype=torch.float32))
    plain = load_model(ModelConfig(path=str(directory)), dtype=torch.float32)
    assert not is_own(plain)


def test_the_code_goes_into_an_export(directory, tmp_path):
    trusted = ModelConfig(path=str(directory), trust_remote_code=True)
    final = tmp_path / "run" / "training" / "final"
    load_model(trusted, dtype=torch.float32).save_pretrained(final)
    load_processor(trusted).save_pretrained(final)
    assert (final / "modeling_own.py").exists()
    config = Config(name="run", model=trusted, data={"records": "pool.json"})
    (final / "prism_tune.yaml").write_text(render_config(config))
    export(tmp_path / "run", tmp_path / "plain")  # that a record says so is not enough
    assert not (tmp_path / "plain" / "modeling_own.py").exists()
    export(tmp_path / "run", tmp_path / "clean", ExportOptions(trust_remote_code=True))
    assert (tmp_path / "clean" / "modeling_own.py").exists()
    again = load_model(
        trusted.model_copy(update={"path": str(tmp_path / "clean")}), dtype=torch.float32
    )
    assert is_own(again)


def test_a_strangers_adapter_runs_no_code_whatever_its_config_says(directory, tmp_path):
    marker = tmp_path / "code-ran"
    base = tmp_path / "base"
    shutil.copytree(directory, base)
    (base / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\n{CODE}")
    model = load_model(ModelConfig(path=str(base)), dtype=torch.float32)
    section = TrainingConfig(lora={"r": 4, "lora_alpha": 8})
    adapter = tmp_path / "adapter"
    prepare_tuning(model, section, weights_dtype=torch.float32).save_pretrained(adapter)
    trusting = ModelConfig(path=str(base), trust_remote_code=True)
    config = Config(name="run", model=trusting, data={"records": "pool.json"})
    (adapter / "prism_tune.yaml").write_text(render_config(config))
    export(adapter, tmp_path / "clean")
    assert not marker.exists()
    export(adapter, tmp_path / "trusted", ExportOptions(trust_remote_code=True))
    assert marker.exists()

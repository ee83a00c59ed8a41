"""A path that is not there and could be a hub id: asked for once, and not waited for."""

from __future__ import annotations

import json
import logging
import time
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.evaluation.judge.local import LocalJudge
from prism_tune.models import hub
from prism_tune.models.assembly.read_parts import load_language_model
from prism_tune.models.load import load_model, load_model_config
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.embeddings.dual_encoder import DualEncoder

PATH = "models/my-llava"
READERS = {
    "config": lambda path: load_model_config(ModelConfig(path=path)),
    "processor": lambda path: load_processor(ModelConfig(path=path)),
    "weights": lambda path: load_model(ModelConfig(path=path), dtype=torch.float32),
    "encoder": lambda path: DualEncoder(path, None, torch.float32, torch.device("cpu")),
    "judge": LocalJudge,
    "part": load_language_model,
}


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """No network; the addresses that are asked for."""
    asked = []

    def ask(url, **_options):
        asked.append(url)
        raise HTTPError("[Errno -2] Name or service not known")

    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub._ask_hub.cache_clear()
    return asked


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_folder_is_said_at_once_whoever_reads_it(reader, asked, caplog):
    caplog.set_level(logging.INFO)
    began = time.process_time()
    with pytest.raises(
        UserError, match="'models/my-llava' is no directory here, and the hub"
    ) as error:
        READERS[reader](PATH)
    assert time.process_time() - began < 2
    assert "(HTTPError: [Errno -2] Name or service not known)" in str(error.value)
    assert "give the directory, or check the network" in str(error.value)
    assert "models/my-llava is no directory here: asking https://huggingface.co" in caplog.text
    assert len(asked) == 2


def test_the_folder_that_is_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(UserError, match=r"no directory here \(models is one, without it\)"):
        hub.require_here_or_hub(PATH, None, "model.path")


def test_an_answer_or_a_copy_in_the_cache_goes_on(monkeypatch, asked):
    """What the hub says of the name is for the reader to tell."""
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    hub.require_here_or_hub(PATH, None, "model.path")
    assert asked == []
    hub._ask_hub.cache_clear()
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)

    def refuse(url, **_options):
        raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(hub, "get_hf_file_metadata", refuse)
    hub.require_here_or_hub(PATH, None, "model.path")


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """A model in the hub's cache, as if it had been fetched: its config.json."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def publish(settings):
        folder, commit = tmp_path / "models--models--my-llava", "0" * 40
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
        (folder / "snapshots" / commit / "config.json").write_text(json.dumps(settings))

    return publish


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.Own"}},
            "needs code of its own; read it, and .* model.trust_remote_code=true",
        ),
        ({"model_type": "unheard_of"}, "model type `unheard_of` but Transformers does not"),
        (
            {"model_type": "llava_llama", "mm_vision_tower": "openai/clip"},
            "layout of the original LLaVA code .*`prism-tune export FOLDER --to NEW`",
        ),
        (
            {"model_type": "llava", "mm_vision_tower": "openai/clip"},
            "layout of the original LLaVA code",
        ),
    ],
)
@pytest.mark.parametrize("here", [False, True])
def test_a_model_that_is_found_is_not_called_unreachable(publish, settings, says, here, tmp_path):
    publish(settings)
    path = PATH
    if here:
        path = str(next(tmp_path.glob("*/snapshots/*")))
    with pytest.raises(UserError, match=f"model.path: {path}.*{says}"):
        load_model_config(ModelConfig(path=path))


def test_a_model_that_the_hub_does_not_have_is_unreachable(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nor a hub id that can be reached"):
        load_model_config(ModelConfig(path=PATH))

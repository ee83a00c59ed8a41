"""What is kept and shown has no secrets in it: they are named, and redacted."""

from __future__ import annotations

import logging

import pytest

from prism_tune.config.load import load_config, render_config
from prism_tune.config.secrets import find_secrets, redact, redact_text
from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.run.log import keep_log, open_log
from prism_tune.run.stage import Stage

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
CONFIG = Config.model_validate(
    {
        "name": "run",
        "model": {"path": "m"},
        "data": {"records": "pool.json"},
        "training": {"hf": {"hub_token": "plain-words", "per_device_train_batch_size": 2}},
        "evaluation": {"base_url": "https://me:hunter22@host/v1"},
    }
)


def test_a_finished_stage_keeps_names_and_no_secrets(tmp_path):
    stage = Stage(tmp_path / "training")
    stage.finish({"training.deepspeed": {"api_key": "plain-words"}}, config=CONFIG)
    kept = stage.config_path.read_text() + stage.path.read_text()
    assert "plain-words" not in kept
    assert "hunter22" not in kept
    assert "hub_token: <redacted>" in kept
    assert '"api_key": "<redacted>"' in kept
    assert "https://<redacted>@host/v1" in kept
    assert stage.changed_inputs({"training.deepspeed": {"api_key": "plain-words"}}) == []
    again = load_config(stage.config_path, ["evaluation.base_url=null"])
    assert again.training.hf["hub_token"] == "<redacted>"
    assert "plain-words" not in render_config(CONFIG, "training.hf.hub_token")


@pytest.mark.parametrize(
    "text",
    [
        f"{TOKEN}",
        f"401 for https://hub/api?token={TOKEN[3:]}&x=1",
        "openai said: invalid sk-proj-AbCdEfGhIjKlMnOpQrStUv",
        "training.hf.hub_token=Geheim1234",
        "{'api_key': 'Geheim1234'}",
        "Authorization: Bearer Geheim1234",
        "https://user:Geheim1234@host/v1",
        "the key Geheim1234 of the environment",
        "login failed with the token: Geheim1234",
        "Give the token: Geheim1234, and no other",
        "vllm serve m --api-key=Geheim-1234x",
        "vllm serve m --api-key Geheim-1234x --port 8000",
        "serve --hf-token 'Geheim-1234x'",
        "serve --password Geheim-1234x",
        "Authorization: Basic Geheim-1234x",
    ],
)
def test_texts(text, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "Geheim1234")
    shown = redact_text(text)
    assert "<redacted>" in shown
    assert "Geheim" not in shown
    assert TOKEN[3:] not in shown
    assert "AbCdEfGh" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "training.tokens_per_batch=16384",
        "tokens: 300",
        "selection.tokens_per_batch: 16384",
        "max_new_tokens=128",
        "the token <image> = 32000",
        "https://host:8000/v1/models@main",
        "image_token_id: 32000",
        "/data/keys/monkey.png",
        "hub_token: None",
        "Give the token: digits only.",
        "Answer with one token: Yes/No.",
        "serve --image-token-id 3 --tokens-per-batch 77 --port 8000",
        "serve --eos-token stop --skip-auth --port 8000",
    ],
)
def test_what_is_no_secret_stays(text, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/data/keys/monkey.png")
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "token: sesame",
        "the hub_token: sesame",
        "the password: sesame",
        "the token=sesame",
        "the token: 'sesame'",
        "the token: abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_a_key_of_letters_alone_is_none_only_in_prose_on_tokens(text):
    assert "<redacted>" in redact_text(text)


def test_the_keys_that_hold_secrets_are_named():
    assert find_secrets(CONFIG.model_dump(mode="json")) == [
        "training.hf.hub_token",
        "evaluation.base_url",
    ]
    assert find_secrets({"a": [{"b": TOKEN}], "tokens": ["x"], "c": {}}) == ["a"]


def test_keys_of_a_tree():
    tree = {"wandb": {"api_key": "abc"}, "tokens_per_batch": 5, "image_token": "<image>", "n": None}
    # `image_token` sounds like a secret and is a word of the model's: not one of a config of ours.
    assert redact({k: v for k, v in tree.items() if k != "image_token"}) == {
        "wandb": {"api_key": "<redacted>"},
        "tokens_per_batch": 5,
        "n": None,
    }


def test_the_log_of_a_run_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "Geheim1234")
    keep_log()
    open_log(RunDir(tmp_path).log)
    logging.getLogger("prism_tune").info("asks with %s at %s", "Geheim1234", f"x?token={TOKEN}")
    kept = RunDir(tmp_path).log.read_text()
    assert "asks with <redacted> at x?token=<redacted>" in kept

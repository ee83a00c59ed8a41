"""`evaluation.backend: openai` against a real server: `transformers serve` of a tiny checkpoint."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from PIL import Image
from support.evaluation_runs import Setting
from support.tiny import draw_image

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.serving.chat_api import ChatApi
from prism_tune.evaluation.serving.server import Server, pad_to_square
from prism_tune.models.processor import load_processor

slow = pytest.mark.slow


@pytest.fixture(scope="session")
def served(tiny_llava_dir, tmp_path_factory):
    """The address of a server that has the tiny model in float32."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="transformers serve needs transformers[serving]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", str(tiny_llava_dir)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = (tmp_path_factory.mktemp("server") / "log.txt").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/v1/models", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def _wait(address, process):
    for _ in range(240):
        assert process.poll() is None
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address}: no server")


def ask(setting, served, template="processor", **changes):
    config = setting.config(backend="openai", base_url=served, served_model=str(setting.model_dir))
    tree = config.model_dump(mode="json")
    tree["model"]["template"] = template
    tree["evaluation"] |= changes
    return Config.model_validate(tree)


@slow
def test_the_answers_are_those_of_the_model_in_memory(setting, served, tmp_path):
    from prism_tune.evaluation.evaluate import evaluate

    evaluate(ask(setting, served, backend="transformers"), setting.run, force=False)
    here = [line["text"] for line in setting.lines()]
    other = Setting(setting.model_dir, setting.data_dir, tmp_path / "other")
    evaluate(ask(other, served), other.run, force=False)
    assert [line["text"] for line in other.lines()] == here
    result = other.results()
    assert result["provenance"]["backend"] == "openai"
    assert result["provenance"]["served_model"] == str(setting.model_dir)
    assert result["provenance"]["dtype"] == "the server's"
    assert not any("server's prompts" in note for note in result["notes"])
    assert {line["metadata"]["finished"] for line in other.lines()} <= {True, False}


@slow
def test_another_template_is_said_and_a_stopped_evaluation_goes_on(setting, served, monkeypatch):
    from prism_tune.evaluation.evaluate import evaluate

    config = ask(setting, served, template="vicuna_v1", concurrency=1)
    complete, calls = ChatApi._complete, []

    def fail_later(self, body):
        calls.append(body["max_tokens"])
        if len([c for c in calls if c > 1]) > 3:
            raise UserError("the server is gone")
        return complete(self, body)

    with monkeypatch.context() as patch:
        patch.setattr(ChatApi, "_complete", fail_later)
        with pytest.raises(UserError, match="the server is gone"):
            evaluate(config, setting.run, force=False)
    calls.clear()

    def count(self, body):
        calls.append(body["max_tokens"])
        return complete(self, body)

    monkeypatch.setattr(ChatApi, "_complete", count)
    evaluate(config, setting.run, force=False)
    assert len([c for c in calls if c > 1]) == 12 - 3
    assert len(setting.lines()) == 12
    assert any(
        "prompts are not those of template vicuna_v1" in n for n in setting.results()["notes"]
    )


def test_the_picture_sent_is_the_one_the_profile_asks_for(tiny_llava_dir, tmp_path):
    """A server that crops the middle sees of it what the padding processor sees of the image."""
    model = Config.model_validate(
        {"name": "x", "model": {"path": str(tiny_llava_dir)}, "data": {"records": "p"}}
    ).model
    path = tmp_path / "1.png"
    draw_image(path, 1)
    with Image.open(path) as drawn:
        wide = drawn.convert("RGB").resize((64, 40))
    padding = load_processor(model)
    cropping = load_processor(model.model_copy(update={"image_aspect_ratio": "crop"}))
    mean = padding.image_processor.image_mean
    ours = padding.image_processor(wide, return_tensors="pt")["pixel_values"]
    theirs = cropping.image_processor(pad_to_square(wide, mean), return_tensors="pt")[
        "pixel_values"
    ]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("key", ["base_url", "served_model"])
def test_what_is_missing_is_named(setting, key):
    values = {"backend": "openai", "base_url": "http://x/v1", "served_model": "m", key: None}
    config = setting.config(**values)
    with pytest.raises(ConfigError, match=rf"evaluation\.{key}: missing"):
        Server(config.evaluation, None, template="vicuna_v1")


def test_language_benchmarks_are_not_asked_of_a_server(setting):
    with pytest.raises(ConfigError, match=r"asks no language benchmark \(mmlu\)"):
        setting.evaluate(benchmarks=("quickstart", "mmlu"), backend="openai")

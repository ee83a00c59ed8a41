"""One image library for a run, chosen by the config and not by what is installed."""

from __future__ import annotations

import importlib.util

import pytest
from transformers import AutoProcessor
from transformers.utils.import_utils import TORCHVISION_IMPORT_ERROR

from prism_tune.config.depends import fields_of, name_image_library
from prism_tune.config.sections import Config, ModelConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.models import processor as opened
from prism_tune.models.processor import image_backend_of, load_processor

ARTIFACTS = ("audit", "features", "answer_losses", "gradient_norms", "subset", "model", "answers")


def test_images_go_through_pillow_whatever_is_installed(tiny_llava_dir):
    """Holds with torchvision too (`make test-torchvision`), where transformers would take it."""
    processor = load_processor(ModelConfig(path=str(tiny_llava_dir)))
    assert image_backend_of(processor) == "pil"
    assert type(processor.image_processor).__name__ == "LlavaImageProcessorPil"


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_whatever_pixels_go_into_depends_on_their_library_and_its_version(artifact, monkeypatch):
    config = Config.model_validate({"name": "a", "model": {"path": "m"}, "data": {"records": "p"}})
    before = fields_of(config, artifact)["model.image_backend"]
    assert before == name_image_library("pil")
    assert before.startswith("pillow ")
    monkeypatch.setattr("prism_tune.config.depends.version", lambda package: "99.0")
    assert fields_of(config, artifact)["model.image_backend"] == "pillow 99.0"


def test_torchvision_asked_for_and_missing_is_said(tiny_llava_dir, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        opened.importlib.util,
        "find_spec",
        lambda name: None if name == "torchvision" else find(name),
    )
    config = ModelConfig(path=str(tiny_llava_dir), image_backend="torchvision")
    with pytest.raises(ConfigError, match="torchvision is not installed: pip install torchvision"):
        load_processor(config)


def test_a_processor_of_another_library_than_asked_is_refused(tiny_llava_dir, monkeypatch):
    """As code of a model's own may have it: transformers falls back without a word."""

    class TorchvisionBackend:
        pass

    class TheirImageProcessor(TorchvisionBackend):
        pass

    real = AutoProcessor.from_pretrained(tiny_llava_dir, backend="pil")
    real.image_processor = TheirImageProcessor()
    monkeypatch.setattr(opened.AutoProcessor, "from_pretrained", lambda *_, **__: real)
    with pytest.raises(UserError, match=r"only TheirImageProcessor, .*image_backend=torchvision"):
        load_processor(ModelConfig(path=str(tiny_llava_dir)))


def test_a_processor_that_needs_torchvision_says_so_in_a_line(tiny_llava_dir, monkeypatch):
    def refuse(*_, **__):
        raise ImportError(TORCHVISION_IMPORT_ERROR.format("PixtralProcessor"))

    monkeypatch.setattr(opened.AutoProcessor, "from_pretrained", refuse)
    with pytest.raises(UserError) as error:
        load_processor(ModelConfig(path=str(tiny_llava_dir)))
    assert str(error.value) == (
        f"model.path: {tiny_llava_dir} has no usable processor: PixtralProcessor needs "
        "torchvision: pip install torchvision, from where torch came; "
        "`prism-tune doctor` names the families"
    )

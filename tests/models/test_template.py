"""`model.template: auto`: which one it becomes, what is refused, and what a stage records."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml
from support.chat_templates import LLAVA_15, LLAVA_MISTRAL, VIPLLAVA
from support.tiny import CHAT_TEMPLATE

from prism_tune.audit.audit import audit
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.models.processor import resolve_template
from prism_tune.run.folder import RunDir, read_json, write_json
from prism_tune.selection.select import select
from prism_tune.training.train import train

ENDS = "its own chat template, which ends no answer: the tokenizer's </s> does"


@pytest.fixture
def make_config(tiny_llava_dir, drawn_pool, tmp_path):
    """A config of the tiny LLaVA with another chat template, or end of texts."""

    def make(chat_template, *, eos=None, **model):
        folder = tmp_path / "model"
        shutil.copytree(tiny_llava_dir, folder)
        (folder / "chat_template.jinja").unlink()
        if chat_template is not None:
            (folder / "chat_template.jinja").write_text(chat_template)
        if eos is not None:
            settings = read_json(folder / "tokenizer_config.json")
            write_json(folder / "tokenizer_config.json", {**settings, "eos_token": eos or None})
        return Config.model_validate(
            {
                "name": "run",
                "output_dir": str(tmp_path / "runs"),
                "model": {"path": str(folder), **model},
                "data": {"records": str(drawn_pool), "num_workers": 0,
                         "image_dir": str(drawn_pool.parent / "images")},
            }
        )  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("chat_template", "eos", "chosen", "why"),
    [
        (LLAVA_15, None, "vicuna_v1", "asked as LLaVA-1.5 is"),
        (None, None, "vicuna_v1", "asked as LLaVA-1.5 is"),
        *((endless, None, "processor", ENDS) for endless in (LLAVA_MISTRAL, VIPLLAVA)),
        (CHAT_TEMPLATE, None, "processor", "its own chat template"),
    ],
)
def test_auto_is_the_models_own_template(make_config, caplog, chat_template, eos, chosen, why):
    config = make_config(chat_template, eos=eos)
    assert config.model.template == "auto"
    with caplog.at_level(logging.INFO, "prism_tune"):
        assert resolve_template(config).model.template == chosen
    (line,) = [r.getMessage() for r in caplog.records if "model.template" in r.getMessage()]
    assert line == f"model.template: {chosen} ({config.model.path}: {why})"


def test_what_no_model_could_learn_to_stop_with_is_refused(make_config):
    listed = r"vicuna_v1 \(ends with </s>\), phi .*, chatml .*, llama3 "
    with pytest.raises(ConfigError, match=f"auto finds no chat template in .*{listed}"):
        resolve_template(make_config(None, eos="<|im_end|>"))


@pytest.mark.parametrize("stage", [audit, select, train, partial(evaluate, force=False)])
def test_a_template_without_end_is_refused_before_anything_is_written(make_config, stage):
    config = make_config(LLAVA_15, eos="", template="processor")
    run = RunDir(Path(config.output_dir) / "run")
    with pytest.raises(UserError, match="writes no end token behind an answer"):
        stage(config, run)
    assert not run.root.exists()


def test_a_stage_records_what_auto_became(make_config):
    config = make_config(CHAT_TEMPLATE)
    run = RunDir(Path(config.output_dir) / "run")
    assert audit(config, run)
    recorded = yaml.safe_load((run.audit / "config.yaml").read_text())
    assert recorded["model"]["template"] == "processor"

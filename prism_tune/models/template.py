"""Which template conversations are written in: `model.template: auto` becomes a name.

A config goes in; the config as a stage runs with it, and records it, comes out.
"""

from __future__ import annotations

import logging

from prism_tune.chat_templates import (
    check_end_token,
    has_chat_template,
    is_llava15,
    list_templates,
)
from prism_tune.config.sections import Config, Template
from prism_tune.errors import ConfigError
from prism_tune.models.adapters import name_base
from prism_tune.models.load import load_model_config
from prism_tune.models.processor import load_processor
from prism_tune.processes import is_main

logger = logging.getLogger(__name__)


def resolve_template(config: Config) -> Config:
    """The config with its template's name, checked to end answers, before anything is touched.

    `auto` is LLaVA's own `vicuna_v1` where the model is LLaVA-1.5, whose published chat template
    writes no end token, and the processor's own chat template for every other model.

    Raises:
        ConfigError: `auto`, and the model has no chat template.
        UserError: no processor; the processor's template would not let the model learn to stop.
    """
    if config.model.template not in ("auto", "processor"):
        return config
    base = name_base(config.model)
    processor = load_processor(base)
    if config.model.template == "processor":
        check_end_token("processor", processor)
        return config
    model_type = load_model_config(base).model_type
    chosen: Template
    if is_llava15(processor, model_type):
        chosen, why = "vicuna_v1", "a LLaVA-1.5"
    elif has_chat_template(processor):
        chosen, why = "processor", "its own chat template"
    else:
        raise ConfigError(
            f"model.template: auto finds no chat template in {base.path}; {list_templates()}"
        )
    check_end_token(chosen, processor)
    if is_main():
        logger.info("model.template: %s (%s: %s)", chosen, base.path, why)
    return config.model_copy(update={"model": config.model.model_copy(update={"template": chosen})})

"""What a training refuses whatever it reads: for before anything is paid for."""

from __future__ import annotations

from prism_tune.config.sections import Config
from prism_tune.models.tuning import check_parts
from prism_tune.training.arguments import check_options, deepspeed_options


def check_training(config: Config) -> None:
    """Check what the config says of tuning; neither model, records nor device are looked at.

    Raises:
        ConfigError: options that transformers or peft do not take, parts that do not go with the
            way of tuning, or a DeepSpeed file that is not there or cannot be used.
    """
    if config.training.tuning == "none":
        return
    check_options(config)
    check_parts(config.training)
    deepspeed_options(config)

"""What is evaluated: the run's tuned checkpoint or a model as it is, and how it is opened."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from prism_tune import __version__
from prism_tune.chat.templates import check_end_token
from prism_tune.config.armed import disarm
from prism_tune.config.depends import list_fields, name_image_library
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.generate import Decoder
from prism_tune.evaluation.serving.server import Server
from prism_tune.evaluation.serving.started import reached_server
from prism_tune.models.adapters import ADAPTER_CONFIG, name_base, require_base
from prism_tune.models.checkpoint import load_tuned
from prism_tune.models.devices import name_dtype, pick_device, resolve_dtype
from prism_tune.models.export import ExportOptions, export
from prism_tune.models.processor import load_processor
from prism_tune.processes import world_size
from prism_tune.run.fingerprints import fingerprint, fingerprint_model
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "pillow")


@dataclass(frozen=True)
class Checkpoint:
    """What is evaluated: `path` is None for an untuned model; `fingerprint` identifies it.

    `made_with`: what its training ran with, where one of this run made it.
    """

    path: Path | None
    fingerprint: str
    made_with: Config | None = None

    def describe(self, asked: Config) -> Config:
        """The config of what is evaluated: the model was tuned as its training recorded."""
        if self.made_with is None:
            return asked
        sections = {"training": self.made_with.training, "selection": self.made_with.selection}
        return asked.model_copy(update=sections)


def find_checkpoint(config: Config, run: RunDir) -> Checkpoint:
    """The tuned checkpoint; where nothing is tuned the model as it is.

    `model.path` may itself be an adapter directory (`tuning: none`): then it is the checkpoint,
    and its base counts as well.

    Raises:
        ConfigError: a template that cannot carry a question.
        UserError: the run has not been trained, its training did not finish, or the model below
            its adapter is another by now.
    """
    if config.model.template == "plain":
        raise ConfigError(
            "model.template: plain has no place for a question; choose the template the model "
            "was tuned with"
        )
    if config.training.tuning != "none":
        found, made_with = _require_training(run), Stage(run.training).config()
        if (run.checkpoint / ADAPTER_CONFIG).exists():
            require_base(run.checkpoint, name_base(config.model))
        if made_with is not None:
            _say_differences(config, made_with)
        return Checkpoint(run.checkpoint, found, made_with)
    own = fingerprint_model(config.model.path, config.model.revision)
    base = name_base(config.model)
    if base is config.model:
        return Checkpoint(None, own)
    of_base = fingerprint_model(base.path, base.revision)
    return Checkpoint(Path(config.model.path), fingerprint([own, of_base]))


def servable_model(config: Config, checkpoint: Checkpoint, run: RunDir) -> str:
    """A model directory that any server reads; a LoRA checkpoint is merged into one, once.

    It is `evaluation/_merged-*/` of the run, which no benchmark can be called; what earlier
    trainings left there, and other dtypes, is removed.
    """
    if checkpoint.path is None:
        return config.model.path
    if not (checkpoint.path / ADAPTER_CONFIG).exists():
        return str(checkpoint.path)
    dtype = config.evaluation.dtype
    merged = run.evaluation / f"_merged-{checkpoint.fingerprint[:12]}-{dtype}"
    for other in run.evaluation.glob("_merged-*"):
        if other != merged:
            shutil.rmtree(other)
    if not merged.is_dir():
        logger.info("evaluation: merging %s into %s for the server", checkpoint.path, merged)
        trusts = config.model.trust_remote_code
        options = ExportOptions(dtype=dtype, trust_remote_code=trusts)
        export(checkpoint.path, merged, options)
    return str(merged)


@contextmanager
def opened_decoder(
    config: Config, checkpoint: Checkpoint, run: RunDir
) -> Iterator[Decoder | Server]:
    """The processor now, the model (or a server that has it) from the first open question on.

    Raises:
        ConfigError: a server without address or model name, or a command that cannot start one.
        UserError: as `open_decoder`.
    """
    if config.evaluation.backend != "openai":
        yield open_decoder(config, checkpoint)
        return
    servable = partial(servable_model, config, checkpoint, run)
    with reached_server(config.evaluation, servable, run.evaluation / "server.log") as open_api:
        yield Server(
            open_api,
            _open_processor(config),
            template=config.model.template,
            concurrency=config.evaluation.concurrency,
        )


def open_decoder(config: Config, checkpoint: Checkpoint) -> Decoder:
    """The processor now, the model from the first open question on.

    Raises:
        UserError: a template that does not fit the tokenizer, or no processor.
    """
    base = config.model_copy(update={"model": name_base(config.model)})
    device = pick_device()
    dtype = resolve_dtype(config.evaluation.dtype, device)

    def load_model() -> Any:
        logger.info("loading %s in %s", checkpoint.path or base.model.path, dtype)
        return load_tuned(base, checkpoint.path, dtype=dtype, device=device)

    return Decoder(
        load_model,
        _open_processor(config),
        template=config.model.template,
        batch_size=config.evaluation.batch_size,
        num_workers=config.data.num_workers,
    )


def describe_evaluation(config: Config, checkpoint: Checkpoint) -> dict[str, Any]:
    """With what a result was made, beside its inputs."""
    model, device = name_base(config.model), pick_device()
    dtype = resolve_dtype(config.evaluation.dtype, device)
    described = {
        "model": model.path,
        "model_revision": model.revision,
        "attn_implementation": model.attn_implementation,
        "checkpoint_path": str(checkpoint.path) if checkpoint.path else None,
        "image_library": name_image_library(model.image_backend),
        "dtype": name_dtype(dtype),
        "device": device.type,
        "num_processes": world_size(),
        "evaluator": f"prism_tune {__version__}",
        "packages": {name: version(name) for name in _PACKAGES},
    }
    if config.evaluation.backend == "openai":  # what runs there is not ours to know
        described |= dict.fromkeys(("dtype", "device", "attn_implementation"), "the server's")
    return described


def _open_processor(config: Config) -> ProcessorMixin:
    processor = load_processor(name_base(config.model))
    check_end_token(config.model.template, processor)
    return processor


def _say_differences(asked: Config, made_with: Config) -> None:
    """An evaluation does not tune: what is asked of tuning otherwise has no effect, and is said."""
    tree = asked.model_dump(mode="json")
    disarm(tree)  # as the record is
    before, now = (list_fields(config) for config in (made_with, Config.model_validate(tree)))
    changed = [k for k in now if k.startswith("training.") and now[k] != before[k]]
    changed += [k for k in ("selection.scorer", "selection.budget") if now[k] != before[k]]
    if changed:
        logger.warning(
            "evaluation: of the model as it was tuned; without effect here: %s", ", ".join(changed)
        )
    backend = "model.image_backend"
    if now[backend] != before[backend]:
        logger.warning(
            "evaluation: %s=%s, and the model was tuned with %s: its pixels are a little different",
            *(backend, now[backend], before[backend]),
        )


def _require_training(run: RunDir) -> str:
    """The finished training's fingerprint."""
    stage = Stage(run.training)
    if run.checkpoint.exists() and not stage.path.exists():
        raise UserError(
            f"{run.checkpoint}: there, but its training has not finished ({stage.path} is "
            "missing); run `prism-tune train CONFIG`, which goes on where it stopped, or evaluate "
            f"the folder as it is with training.tuning=none model.path={run.checkpoint}"
        )
    found: str = stage.require("train")["fingerprint"]
    if not run.checkpoint.is_dir():
        raise UserError(
            f"{run.checkpoint}: not there, although {stage.path} says that the training finished; "
            "put it back, or run `prism-tune train CONFIG --force`"
        )
    return found

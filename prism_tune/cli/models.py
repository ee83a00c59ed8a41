"""The verbs that make checkpoints: export and assemble. Parsing only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from prism_tune.chat.formats import ChatFormat
from prism_tune.cli.options import NewFolder, spread
from prism_tune.config.sections import DType


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Also the original LLaVA layout.")
    ],
    to: NewFolder,
    dtype: Annotated[DType, typer.Option(help="auto never rounds.")] = "auto",
    base_model: Annotated[
        str | None, typer.Option(help="In place of the base model that an adapter names.")
    ] = None,
    vision_tower: Annotated[
        str | None, typer.Option(help="In place of the one that the original layout names.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let code run that came with the model."),
    ] = False,
) -> None:
    """Merge LoRA or convert, and write a clean Hugging Face directory, verified by its logits."""
    from prism_tune.models.export import ExportOptions
    from prism_tune.models.export import export as run_export
    from prism_tune.run.log import setup_logging

    setup_logging()
    run_export(source, to, ExportOptions(dtype, base_model, vision_tower, trust_remote_code))


@dataclass(frozen=True)
class AssembleOptions:
    """How the two parts are joined."""

    image_token: Annotated[str, typer.Option(help="Added where it is no token.")] = "<image>"
    template: Annotated[
        ChatFormat | None, typer.Option(help="Chat template; else the tokenizer's own.")
    ] = None
    feature_layer: Annotated[int, typer.Option(help="Hidden state that is projected.")] = -2
    image_size: Annotated[
        int | None, typer.Option(min=1, help="In pixels; else the tower's own.")
    ] = None
    fold_output_bias: Annotated[
        bool, typer.Option("--fold-output-bias", help="For Phi-2; approximate.")
    ] = False


@spread
def assemble(
    vision_tower: Annotated[str, typer.Option(help="CLIP, SigLIP or DINOv2: path or hub id.")],
    language_model: Annotated[str, typer.Option(help="A causal language model: path or hub id.")],
    to: NewFolder,
    asked: AssembleOptions,
) -> None:
    """Join a vision tower and a language model by a random projector, to be aligned next."""
    from prism_tune.models.assemble import Recipe
    from prism_tune.models.assemble_checkpoint import assemble_checkpoint
    from prism_tune.run.log import setup_logging

    setup_logging()
    assemble_checkpoint(
        vision_tower,
        language_model,
        to,
        Recipe(asked.image_token, asked.feature_layer, asked.image_size),
        chat_format=asked.template,
        fold_bias=asked.fold_output_bias,
    )

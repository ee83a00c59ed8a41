"""The verbs that make checkpoints: export and assemble. Parsing only, as in `app.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Also the original LLaVA layout.")
    ],
    to: Annotated[Path, typer.Option("--to", help="A new directory.")],
    dtype: Annotated[
        str, typer.Option(help="auto (never rounds), float32, bfloat16 or float16.")
    ] = "auto",
    base_model: Annotated[
        str, typer.Option(help="In place of the base model that an adapter names.")
    ] = "",
    vision_tower: Annotated[
        str, typer.Option(help="In place of the one that the original layout names.")
    ] = "",
) -> None:
    """Merge LoRA or convert, and write a clean Hugging Face directory, verified by its logits."""
    from prism_tune.models.export import ExportOptions, check_dtype
    from prism_tune.models.export import export as run_export
    from prism_tune.run.log import setup_logging

    setup_logging()
    options = ExportOptions(check_dtype(dtype), base_model or None, vision_tower or None)
    run_export(source, to, options)


def assemble(
    vision_tower: Annotated[str, typer.Option(help="CLIP, SigLIP or DINOv2: path or hub id.")],
    language_model: Annotated[str, typer.Option(help="A causal language model: path or hub id.")],
    to: Annotated[Path, typer.Option("--to", help="A new directory.")],
    image_token: Annotated[str, typer.Option(help="Added where it is no token.")] = "<image>",
    template: Annotated[
        str, typer.Option(help="Chat template: vicuna_v1, phi, chatml or llama3.")
    ] = "",
    feature_layer: Annotated[int, typer.Option(help="Hidden state that is projected.")] = -2,
    image_size: Annotated[int, typer.Option(min=0, help="In pixels; 0: the tower's own.")] = 0,
    fold_output_bias: Annotated[
        bool, typer.Option("--fold-output-bias", help="For Phi-2; approximate.")
    ] = False,
) -> None:
    """Join a vision tower and a language model by a random projector, to be aligned next."""
    from prism_tune.chat_formats import check_format
    from prism_tune.models.assemble import Recipe
    from prism_tune.models.assemble_checkpoint import assemble_checkpoint
    from prism_tune.run.log import setup_logging

    setup_logging()
    recipe = Recipe(image_token, feature_layer, image_size or None)
    chat_format = check_format(template) if template else None
    assemble_checkpoint(
        vision_tower,
        language_model,
        to,
        recipe,
        chat_format=chat_format,
        fold_bias=fold_output_bias,
    )

"""The verbs that make checkpoints: export and assemble. Parsing only."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from prism_tune.chat.builtin_templates import ChatFormat
from prism_tune.cli.options import NewFolder, spread
from prism_tune.config.sections import DType


@dataclass(frozen=True)
class ExportTo:
    """What is written, and where it goes."""

    to: NewFolder
    dtype: Annotated[DType, typer.Option(help="auto never rounds.")] = "auto"
    base_model: Annotated[
        str | None, typer.Option(help="In place of the base model that an adapter names.")
    ] = None
    vision_tower: Annotated[
        str | None, typer.Option(help="In place of the one that the original layout names.")
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let code run that came with the model."),
    ] = False
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Send it there, with its card.")
    ] = None
    private: Annotated[bool, typer.Option("--private", help="The hub repository, if new.")] = False


@spread
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Also the original LLaVA layout.")
    ],
    asked: ExportTo,
) -> None:
    """Merge LoRA or convert, and write a clean Hugging Face directory, verified by its logits."""
    from prism_tune.run.log import setup_logging

    setup_logging()
    typer.echo(f"exporting {source} to {asked.to} ...", err=True)
    from prism_tune.cli.push_model import require_token
    from prism_tune.models.export import ExportOptions
    from prism_tune.models.export import export as run_export

    if asked.push_to_hub is not None:
        require_token(asked.push_to_hub)
    given = (asked.dtype, asked.base_model, asked.vision_tower, asked.trust_remote_code)
    cards = _write_cards(source)  # first: what appears has its card, or nothing appears
    run_export(source, asked.to, ExportOptions(*given), cards)
    for name in cards:
        typer.echo(f"card: {asked.to / name}")
    if asked.push_to_hub is not None:
        _push(asked.to, asked.push_to_hub, private=asked.private)


def _write_cards(source: Path) -> dict[str, str]:
    """The card of a run's model, by its file's name; none of a checkpoint without a run."""
    from prism_tune.errors import UserError
    from prism_tune.report.model_card import write_model_card
    from prism_tune.run.folder import RunDir

    run = RunDir(source)
    if not run.checkpoint.is_dir():
        return {}
    try:
        return {"README.md": write_model_card(run)}
    except UserError as error:
        raise UserError(
            f"{error}\nnothing was written: the model's card is made of this; without a card: "
            f"prism-tune export {shlex.quote(str(run.checkpoint))} --to ..."
        ) from error


def _push(folder: Path, repository: str, *, private: bool) -> None:
    """As `push_model`; where that fails, says how what lies there is sent without a new export."""
    from prism_tune.cli.push_model import push_model
    from prism_tune.errors import UserError

    try:
        push_model(folder, repository, private=private)
    except UserError as error:
        options = ["--private"] if private else []
        again = shlex.join(["hf", "upload", repository, str(folder), *options])
        raise UserError(f"{error}; `{again}` sends it as it is") from error


def chat(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or a model directory.")
    ],
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="Shown first; again for more.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 512,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let code run that came with the model."),
    ] = False,
) -> None:
    """Talk to a tuned model: questions from the keyboard or a pipe, /image FILE, /new, /quit."""
    from prism_tune.run.log import setup_logging

    setup_logging()
    typer.echo(f"opening {source} ... (/image FILE, /new, /quit)", err=True)
    from prism_tune.cli.chat import open_chat
    from prism_tune.errors import UserError

    talk = open_chat(source, max_new_tokens=max_new_tokens, trust_remote_code=trust_remote_code)
    for path in image or []:
        talk.show(path)
    for line in _read_lines():
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        try:
            if command == "/image":
                talk.show(_expand(rest.strip()))
            elif command == "/new":
                talk.begin()
            else:
                typer.echo(talk.ask(line))
        except UserError as error:  # a slip of the keyboard does not end a conversation
            typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)


def _expand(typed: str) -> Path:
    """A path with the home directory for `~`, where there is one."""
    try:
        return Path(typed).expanduser()
    except RuntimeError:  # nobody of that name: as it is it is no file, which is said
        return Path(typed)


def _read_lines() -> Iterator[str]:
    """What is typed, line by line, empty ones left out; to the end of the input."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        typer.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


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
    from prism_tune.models.assembly.assemble import Recipe
    from prism_tune.models.assembly.assemble_checkpoint import assemble_checkpoint
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

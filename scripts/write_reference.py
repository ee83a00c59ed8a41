"""Write the pages of docs/reference/ out of the code: config keys, commands, messages.

    python scripts/write_reference.py

A test keeps them current.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prism_tune.cli.app import app
from prism_tune.config.depends import DEPENDS
from prism_tune.config.sections import Config

ROOT = Path(__file__).parents[1]
MEANINGS = yaml.safe_load(Path(__file__).with_name("meanings.yaml").read_text())
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Written by scripts/write_reference.py; change the code it reads, then run it. -->\n\n"
_RANGES = ((Gt, "gt", "above"), (Ge, "ge", "from"), (Lt, "lt", "below"), (Le, "le", "to"))
_STAGES = {
    "audit": ("audit",),
    "select": ("subset",),
    "train": ("model",),
    "evaluate": ("answers", "language_answers"),
}


class Key(typing.NamedTuple):
    """One key: its dotted name (`NAME` for one that the user chooses), and its field."""

    name: str
    field: FieldInfo


def list_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    """Every key, sections of sections included; a section itself only where it may be null."""
    for name, field in section.model_fields.items():
        inner = find_section(field.annotation)
        if inner is None or type(None) in get_args(field.annotation) or is_mapping(field):
            yield Key(prefix + name, field)
        if inner is not None:
            named = ".NAME." if is_mapping(field) else "."
            yield from list_keys(inner, f"{prefix}{name}{named}")


def find_section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, alone or as values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := find_section(part))), None)


def is_mapping(field: FieldInfo) -> bool:
    """Whether its keys are the user's own."""
    return get_origin(field.annotation) is dict


def describe_type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type as people write it: `a` or `b`; number above 0; list of ...; null."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0], (*arguments[1:], *metadata))
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        parts = [describe_type(part, metadata) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys([*parts, *(["null"] * (type(None) in arguments))]))
    if origin is tuple:
        return f"list of {describe_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {describe_type(arguments[1])}"
    names = {str: "text", bool: "true or false", int: "integer", float: "number", Any: "anything"}
    name = names.get(annotation, "section")
    return f"{name}{describe_range(metadata)}"


def describe_range(metadata: tuple[Any, ...]) -> str:
    """` above 0 to 1`."""
    flat = [part for item in metadata for part in (getattr(item, "metadata", None) or [item])]
    words = [
        f"{word} {getattr(part, attribute):g}"
        for kind, attribute, word in _RANGES
        for part in flat
        if isinstance(part, kind)
    ]
    return f" {' '.join(words)}" if words else ""


def describe_default(field: FieldInfo) -> str:
    """The default as YAML writes it."""
    if field.is_required():
        return "**required**"
    default = field.default
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    if default is None or isinstance(default, bool):
        return f"`{str(default).lower().replace('none', 'null')}`"
    return f"`{default if default != {} else '{}'}`"


def describe_reruns(name: str) -> str:
    """The stages whose results a change of the key makes anew."""
    top = ".".join(name.split(".")[:2])
    artifacts = DEPENDS.get(top, DEPENDS.get(name.split(".")[0], ()))
    stages = [stage for stage, own in _STAGES.items() if set(own) & set(artifacts)]
    return ", ".join(stages) or "none"


def describe_key(key: Key) -> str:
    """Its row."""
    cells = (
        f"`{key.name.rpartition('.')[2]}`",
        describe_type(key.field.annotation, tuple(key.field.metadata)),
        describe_default(key.field),
        MEANINGS[key.name],
        describe_reruns(key.name),
    )
    return f"| {' | '.join(cells)} |"


def write_config() -> str:
    """docs/reference/config.md."""
    lines = [
        "# Config keys\n",
        "Every key of a config: what it may be, its default, what it means, and which stages run",
        "anew when it changes (of what is finished, the rest is kept). A config begins with",
        "`base:` where it takes the keys of another file or preset; `key=value` behind a command",
        "wins over both. Unknown keys and values of another type are refused, with the nearest",
        "name.\n",
    ]
    sections: dict[str, list[Key]] = {}
    for key in list_keys():
        sections.setdefault(key.name.rpartition(".")[0], []).append(key)
    for section, keys in sections.items():
        title = f"`{section}`" if section else "At the top"
        lines += [f"\n## {title}\n", "| key | may be | default | meaning | reruns |"]
        lines += ["|---|---|---|---|---|", *map(describe_key, keys)]
    return MADE + "\n".join(lines) + "\n"


def list_commands(command: Any, name: str = "prism-tune") -> Iterator[tuple[str, Any]]:
    """Every verb, with those of groups."""
    for verb, own in sorted(getattr(command, "commands", {}).items()):
        if hasattr(own, "commands"):
            yield from list_commands(own, f"{name} {verb}")
        else:
            yield f"{name} {verb}", own


def write_commands() -> str:
    """docs/reference/commands.md."""
    lines = [
        "# Commands\n",
        "Every command ends with 0 when it is done, 1 when something failed, and 2 when the",
        "command or its config is wrong. `prism-tune COMMAND --help` prints the same.",
    ]
    for name, command in list_commands(typer.main.get_command(app)):
        parameters = [p for p in command.params if not getattr(p, "hidden", False)]
        arguments = [spell_argument(p) for p in parameters if is_argument(p)]
        options = [p for p in parameters if not is_argument(p) and p.name != "help"]
        usage = " ".join([name, *(["[OPTIONS]"] * bool(options)), *arguments])
        lines += [f"\n## {name}\n", clean(command.help or ""), f"\n```text\n{usage}\n```\n"]
        described = [(p, getattr(p, "help", None)) for p in parameters if p.name != "help"]
        if described:
            lines += ["| | default | |", "|---|---|---|"]
        for parameter, meaning in described:
            spelt = (
                spell_argument(parameter)
                if is_argument(parameter)
                else ", ".join([*parameter.opts, *parameter.secondary_opts])
            )
            lines.append(f"| {code(spelt)} | {show_default(parameter)} | {clean(meaning or '')} |")
    return MADE + "\n".join(lines) + "\n"


def spell_argument(parameter: Any) -> str:
    """As the usage has it: `RUN`, `[OTHER]...`."""
    return str(parameter.metavar or parameter.name.upper())


def is_argument(parameter: Any) -> bool:
    """An argument, not an option."""
    return parameter.param_type_name == "argument"


def show_default(parameter: Any) -> str:
    """What is taken where it is not given."""
    default = parameter.default
    if parameter.required:
        return "required"
    if default is None or default is False or callable(default) or default == ():
        return ""
    return f"`{default}`" if isinstance(default, str | int | float | Path) else ""


def clean(text: str) -> str:
    """One line, safe in a table of Markdown."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")


def write_messages() -> str:
    """docs/reference/messages.md, of the table that tests/test_mistakes.py goes through."""
    table = yaml.safe_load((ROOT / "tests" / "mistakes.yaml").read_text())
    lines = [
        "# Messages\n",
        "What the command line says to mistakes, to be searched for with the browser: every row",
        "is a test. The message itself says how to mend it; what it does not say stands in",
        "[troubleshooting](../troubleshooting.md).\n",
        "## Of a config\n",
        "| message (a part) | comes of |",
        "|---|---|",
    ]
    lines += [f"| {code(says)} | {code(given)} |" for given, _, says in table["settings"]]
    lines += ["\n## Of files that are damaged or gone\n"]
    lines += ["| message (a part) | file | what happened to it |", "|---|---|---|"]
    damages = {"empty": "it is empty", "cut": "half of it is there", "gone": "it is gone"}
    damages |= {"junk": "it holds something else", "object": "it holds `{}`"}
    damages |= {
        "list": "it holds `[]`",
        "null": "it holds `null`",
        "deep": "it is nested too deeply",
    }
    damages |= {"loop": "it is a link to itself", "rows": "its rows hold something else"}
    damages |= {"full": "the disk is full", "thin": "it is 1 pixel wide and very long"}
    damages |= {"words": "its values are of another kind", "pickled": "it is a pickle"}
    rows = dict.fromkeys(
        (says, pattern, damages.get(damage, f"it says `{damage}`"))
        for pattern, damage, _, ended, says in table["files"]
        if ended
    )
    lines += [f"| {code(says)} | {code(pattern)} | {damage} |" for says, pattern, damage in rows]
    return MADE + "\n".join(lines) + "\n"


def code(text: object) -> str:
    """As code, whatever it contains."""
    bare = str(text).replace("|", "\\|")
    fence = "``" if "`" in bare else "`"
    pad = " " if "`" in bare else ""
    return f"{fence}{pad}{bare}{pad}{fence}"


PAGES = {"config.md": write_config, "commands.md": write_commands, "messages.md": write_messages}


def main() -> None:
    """Write all."""
    FOLDER.mkdir(exist_ok=True)
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write())


if __name__ == "__main__":
    main()

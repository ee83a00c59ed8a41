"""What is wrong with a config, in the user's words: a pydantic error in, one line per key out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]


def describe_errors(error: ValidationError, where: str, schema: type[BaseModel]) -> str:
    """One line per offending key: the file, the dotted key, the value, what was expected.

    A field's `description` says what is expected where the type alone does not (a union would
    otherwise be reported once per member).
    """
    lines: dict[str, None] = {}
    for item in error.errors():
        key, field = _locate(schema, item["loc"])
        if item["type"] == "extra_forbidden":
            lines[f"{where}: unknown key `{key}`{_nearest(schema, item['loc'])}"] = None
        elif item["type"] == "missing":
            lines[f"{where}: `{key}` is missing and has no default"] = None
        else:
            expected = field.description if field and field.description else item["msg"]
            said = f"expected {_shorten(expected)}{_hint_at_quotes(item)}"
            lines[f"{where}: `{key}` = {item['input']!r}: {said}"] = None
    return "\n".join(lines)


def _hint_at_quotes(item: ErrorDetails) -> str:
    """For a text that YAML has read as a number or a truth: 2024, 1e5, no."""
    is_other = item["type"] == "string_type" and isinstance(item["input"], int | float)
    return "; YAML reads this as a number or as true or false: put it into quotes" * is_other


def complete_key(key: str, schema: type[BaseModel]) -> str:
    """`benchmarks` -> `evaluation.benchmarks` where exactly one section knows the first part."""
    head = key.partition(".")[0]
    if head in schema.model_fields:
        return key
    owners = [name for name, section in _sections(schema) if head in section.model_fields]
    return f"{owners[0]}.{key}" if len(owners) == 1 else key


def _locate(schema: type[BaseModel], loc: Location) -> tuple[str, FieldInfo | None]:
    """The dotted key of an error, without pydantic's union tags, and the innermost field on it."""
    parts: list[str] = []
    section: type[BaseModel] | None = schema
    field: FieldInfo | None = None
    for part in loc:
        if field is not None and field.description:
            break
        parts.append(str(part))
        if section is not None and part in section.model_fields:
            field = section.model_fields[str(part)]
            section = _section_class(field.annotation)
    return ".".join(part for part in parts if part != "[key]"), field


def _nearest(schema: type[BaseModel], loc: Location) -> str:
    """The nearest known key: the same word elsewhere, else one beside, else anywhere.

    Where there is none, what is known.
    """
    wrong = str(loc[-1])
    prefix = [str(part) for part in loc[:-1]]
    section = schema
    for part in prefix:
        field = section.model_fields.get(part)
        section = (_section_class(field.annotation) if field else None) or section
    beside = {name: ".".join([*prefix, name]) for name in section.model_fields}
    anywhere = {path.rpartition(".")[2]: path for path in _paths(schema)}
    if wrong in anywhere:
        return f"; did you mean `{anywhere[wrong]}`?"
    for known in (beside, anywhere):
        close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
        if close:
            return f"; did you mean `{known[close[0]]}`?"
    if not beside:
        return "; there are none"
    place = f"in `{'.'.join(prefix)}`" if prefix else "at the top"
    return f"; known keys {place}: {', '.join(beside)}"


def _paths(schema: type[BaseModel]) -> Iterator[str]:
    for name, section in _sections(schema):
        yield from (f"{name}.{key}" for key in section.model_fields)
    yield from schema.model_fields


def _sections(schema: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    candidates = ((name, field.annotation) for name, field in schema.model_fields.items())
    return [
        (name, annotation)
        for name, annotation in candidates
        if isinstance(annotation, type) and issubclass(annotation, BaseModel)
    ]


def _section_class(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds: its own class, or the value class of a mapping of sections."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _shorten(message: str) -> str:
    for opening in ("Input should be ", "Value error, "):
        if message.startswith(opening):
            return message[len(opening) :]
    return message

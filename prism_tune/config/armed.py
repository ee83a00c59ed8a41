"""What a record of a run cannot do, somebody else's above all: let code or programs run, or send.

In: the tree of a config that lies in a run folder or beside a checkpoint. Out: where it would, and
what its user can say in its place. The rows and selectors of `compare` hold whole sections of
their own, so that a name counts at any depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ARMED = {
    "model.trust_remote_code": (
        "switch on model.trust_remote_code, which lets code run that came with a model",
        "{key}=true",
    ),
    "plugins": (
        "name plugins, whose code would run",
        "{key}=[FILE] (or =[] for none)",
    ),
    "evaluation.serve_command": (
        "name a program to be started",
        "{key}='...' (or =null for none)",
    ),
    "evaluation.base_url": (
        "name a server, which would be sent the questions, their images and OPENAI_API_KEY",
        "{key}=... (or =null for none)",
    ),
    "hf.push_to_hub": ("switch on an upload to the hub", "{key}=true (or =false)"),
    "compare.before": (
        "name configs to be trained first, which would count as one's own",
        "{key}=[FILE] (or =[] for none)",
    ),
}
"""The end of a key, what it would do, and what is said anew."""


def find_armed(tree: Any, place: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Each mapping of a tree that holds something armed, and the name it has there."""
    if isinstance(tree, list):
        for entry in tree:
            yield from find_armed(entry, place)
    if not isinstance(tree, dict):
        return
    for name, value in list(tree.items()):
        key = f"{place}.{name}"
        if _match(key) and value not in (None, False, [], ""):
            yield tree, name
        yield from find_armed(value, key)


def explain_armed(key: str) -> str | None:
    """What a record cannot do by that dotted key, and what to say instead; None: it can."""
    name = _match(f".{key}")
    if name is None:
        return None
    reason, remedy = _ARMED[name]
    if "[" in key:  # a row's or selector's, which no override reaches
        return f"{reason} (`{key}`); leave the grid out (compare=null), or write one of your own"
    return f"{reason}; if you know it, say so yourself, on the command line: " + remedy.format(
        key=key
    )


def disarm(tree: dict[str, Any]) -> None:
    """Take out of a record what does not count there."""
    for section, name in list(find_armed(tree)):
        section.pop(name, None)


def _match(key: str) -> str | None:
    return next((name for name in _ARMED if key.endswith(f".{name}")), None)

"""One record as a row of the layouts that trainers read.

`<image>` stays where it is in the text, but in `to_parts`, where it becomes a part of the content.
An answer without loss says so (`loss: false`, as in ms-swift) where a row may have such a key.
"""

from __future__ import annotations

from typing import Any

from prism_tune.data.conversation import split_content
from prism_tune.schema import Record

Row = dict[str, Any]

_ROLES = {"human": "user", "gpt": "assistant"}


def to_llava(record: Record) -> Row:
    """LLaVA's `image` and `conversations`; `image` is a list where there are several."""
    row = to_sharegpt(record)
    names = row.pop("images")
    conversations = row.pop("conversations")
    image = {"image": names[0] if len(names) == 1 else names} if names else {}
    return {**row, **image, "conversations": conversations}


def to_sharegpt(record: Record) -> Row:
    """`conversations` of `from` and `value`, a list of `images`, and `system` where it has one."""
    conversations = [
        {"from": turn.role, "value": turn.text, **({} if turn.has_loss else {"loss": False})}
        for turn in record.turns
    ]
    system = {"system": record.system} if record.system else {}
    return {**_label(record), **system, "conversations": conversations}


def to_messages(record: Record) -> Row:
    """`messages` of `role` and `content`, the system's first, and a list of `images`."""
    row = to_plain_messages(record)
    answers = [message for message in row["messages"] if message["role"] != "system"]
    for turn, message in zip(record.turns, answers, strict=True):
        if not turn.has_loss:
            message["loss"] = False
    return row


def to_plain_messages(record: Record) -> Row:
    """The same without a word on loss: all messages have the same two keys."""
    messages = [{"role": _ROLES[turn.role], "content": turn.text} for turn in record.turns]
    return {**_label(record), "messages": [*_speak_first(record, record.system), *messages]}


def to_parts(record: Record) -> Row:
    """The same, with each content as a list of parts, the images' places among them."""
    messages = [
        {"role": _ROLES[turn.role], "content": split_content(turn.text)} for turn in record.turns
    ]
    system = _speak_first(record, split_content(record.system))
    return {**_label(record), "messages": [*system, *messages]}


def _speak_first(record: Record, content: Any) -> list[dict[str, Any]]:
    return [{"role": "system", "content": content}] if record.system else []


def _label(record: Record) -> Row:
    """What every row has; the images are an empty list where there are none, as columns need it."""
    return {"id": record.id, "source": record.source, "images": list(record.images)}

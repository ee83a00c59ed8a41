"""One record as a row of the layouts that trainers read.

`<image>` stays where it is in the text, but in `to_parts`, where it becomes a part of the content.
Image names stay as the pool has them: relative to its image folder.
"""

from __future__ import annotations

from typing import Any

from prism_tune.data.conversation import split_content
from prism_tune.schema import Record

Row = dict[str, Any]

_ROLES = {"human": "user", "gpt": "assistant"}


def to_llava(record: Record) -> Row:
    """LLaVA's `image` and `conversations`; `image` is a list where there are several."""
    row = _label(record)
    names = row.pop("images")
    image = {"image": names[0] if len(names) == 1 else names} if names else {}
    return {**row, **image, "conversations": _converse(record)}


def to_sharegpt(record: Record) -> Row:
    """`conversations` of `from` and `value`, and a list of `images`."""
    return {**_label(record), "conversations": _converse(record)}


def to_messages(record: Record) -> Row:
    """`messages` of `role` and `content`, and a list of `images`."""
    messages = [{"role": _ROLES[turn.role], "content": turn.text} for turn in record.turns]
    return {**_label(record), "messages": messages}


def to_parts(record: Record) -> Row:
    """The same, with each content as a list of parts, the images' places among them."""
    messages = [
        {"role": _ROLES[turn.role], "content": split_content(turn.text)} for turn in record.turns
    ]
    return {**_label(record), "messages": messages}


def _label(record: Record) -> Row:
    """What every row has; the images are an empty list where there are none, as columns need it."""
    return {"id": record.id, "source": record.source, "images": list(record.images)}


def _converse(record: Record) -> list[dict[str, str]]:
    return [{"from": turn.role, "value": turn.text} for turn in record.turns]

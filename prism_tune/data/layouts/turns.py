"""A raw record's conversation: its system line, its questions and its answers.

Read are `conversations` of `from`/`value` and `messages` of `role`/`content`, prompt and
completion, pairs of `user` and `assistant`, and flat columns (`flat.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from prism_tune.data.layouts.columns import Column, Columns
from prism_tune.data.layouts.contents import read_content
from prism_tune.data.layouts.flat import list_flat, read_flat
from prism_tune.data.layouts.further import LOSS_KEYS, is_number, read_further
from prism_tune.data.layouts.image_values import NamedImage, is_unicode, shorten
from prism_tune.data.layouts.placing import Slot, Slots, misplaced
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import IMAGE_PLACEHOLDER, Role, Turn

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("human", "user"), "human"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot"), "gpt"),
}
_USUAL_ROLES = ("human", "user", "gpt", "assistant", "system")
_SYSTEM_ROLES = ("system", "developer")
_TOOL_ROLES = (
    *("tool", "tools", "function", "observation", "ipython", "tool_call", "tool_calls"),
    *("function_call", "tool_response", "tool_result", "function_response"),
)
_NUM_USUAL_KEYS = 2
_NUM_NAMED = 8

_Way = Literal["turns", "lists", "flat"]


class Conversation(NamedTuple):
    """As it stands in the record.

    `slots`: what stands at each `<image>` of the questions. `unlearnt`: numbers of the answers
    that carry no loss. `unread`: keys of turns that say something that is not read.
    """

    system: str
    turns: tuple[Turn, ...]
    slots: Slots
    unlearnt: tuple[int, ...] = ()
    unread: tuple[str, ...] = ()


def read_conversation(
    raw: Mapping[str, Any], columns: Columns, *, drops_system: bool
) -> Conversation:
    """Find a record's turns, in whichever layout.

    Args:
        raw: the record.
        columns: which keys hold what.
        drops_system: leave out its system line, and system turns wherever they stand.

    Raises:
        BadRecordError: there are no turns, or one that cannot be read.
    """
    items = find_items(raw, columns)
    turns: list[Turn] = []
    slots: list[Slot] = []
    spoken: list[str] = []
    unlearnt: list[int] = []
    unread: dict[str, None] = {}
    role_key, text_key = columns.keys["role"][0], columns.keys["text"][0]
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            wrong = f"turn {number}: expected an object, got {shorten(item)}"
            raise BadRecordError("bad_field", wrong)
        # Millions of turns go through here: the usual keys are looked up without a call.
        role = item.get(role_key) or columns.find("role", item)
        content = item.get(text_key) or columns.find("text", item)
        spoken_by = _ROLES.get(role) if type(role) is str else None
        spoken_by = spoken_by or _find_role(role)
        if spoken_by is None:
            if role in _SYSTEM_ROLES and (drops_system or not turns):
                spoken.append(_read_system(content, f"turn {number}"))
                continue
            raise _unknown_role(number, role, columns)
        has_loss = True
        own: tuple[NamedImage, ...] = ()
        if len(item) != _NUM_USUAL_KEYS:
            further = read_further(item, f"turn {number}", spoken_by, columns)
            has_loss, own = further.has_loss, further.images
            unread |= dict.fromkeys(further.unread)
        is_plain = type(content) is str and (content.isascii() or is_unicode(content))
        if not is_plain or own or "<im" in content:
            where = f"turn {number}: {columns.name('text')}"
            content, filled = _read_turn(content, own, where, spoken_by)
            slots.extend(filled)
        if not has_loss:
            unlearnt.append(len(turns))
        turns.append(Turn(spoken_by, content, has_loss))
    _check_order(turns, len(items) - len(turns))
    if len(unlearnt) * 2 == len(turns):
        raise BadRecordError("no_label", "no answer carries loss")
    system = "" if drops_system else _join_system(spoken, raw, columns)
    return Conversation(system, tuple(turns), tuple(slots), tuple(unlearnt), tuple(unread))


def _find_role(role: Any) -> Role | None:
    """Who speaks; `User` and `ASSISTANT` are roles like those in small letters."""
    if not isinstance(role, str):
        return None
    return _ROLES.get(role) or _ROLES.get(role.lower())


def _read_turn(
    content: Any, own: Sequence[NamedImage], where: str, role: Role
) -> tuple[str, Slots]:
    """A turn's text, with an `<image>` for each image that it names or holds beside the text."""
    if is_number(content):
        content = str(content)
    text, slots = read_content(content, where, reads_tags=role == "human")
    if own:
        if slots and (len(slots) != len(own) or any(slot is not None for slot in slots)):
            raise BadRecordError(
                "image_count", f"{where}: {len(slots)} {IMAGE_PLACEHOLDER}, {len(own)} images"
            )
        text = text if slots else f"{IMAGE_PLACEHOLDER}\n" * len(own) + text
        slots = tuple(own)
    if slots and role == "gpt":
        raise misplaced(len(slots), "an answer")
    return text, slots


def check_filled(turns: Sequence[Turn]) -> None:
    """Refuse an empty question or answer.

    Raises:
        BadRecordError: naming the turn, the system's not counted.
    """
    for number, turn in enumerate(turns):
        if not turn.text or turn.text.isspace():
            if turn.role == "gpt":
                raise BadRecordError("empty_answer", f"turn {number}: the answer is empty")
            raise BadRecordError("empty_question", f"turn {number}: the question is empty")


def find_items(raw: Mapping[str, Any], columns: Columns) -> list[Any]:
    """The turns as objects of role and text.

    Raises:
        BadRecordError: there are none.
    """
    way = _find_way(raw, columns)
    if way == "flat":
        return read_flat(raw, columns)
    if way == "lists":
        return [*columns.find("question", raw), *columns.find("answer", raw)]
    if way == "turns":
        return _list_items(columns.find("conversations", raw), columns)
    found = ", ".join(f"{shorten(key)}" for key in list(raw)[:_NUM_NAMED]) or "nothing"
    raise BadRecordError(
        "no_conversations",
        f"no {columns.name('conversations')}, nor {columns.name('question')} with "
        f"{columns.name('answer')}; found {found}; data.columns names other keys",
    )


def list_read_columns(raw: Mapping[str, Any], columns: Columns) -> list[Column]:
    """The columns that are read of this record."""
    spoken: dict[_Way | None, list[Column]] = {
        "turns": ["conversations"],
        "lists": ["question", "answer"],
        "flat": list_flat(raw, columns),
    }
    return ["id", "source", "image", "system", *spoken.get(_find_way(raw, columns), [])]


def _find_way(raw: Mapping[str, Any], columns: Columns) -> _Way | None:
    """Where a record has its turns: a configured `question` counts before all else."""
    if "question" in columns.configured:
        return "flat"
    if columns.find("conversations", raw) is not None:
        return "turns"
    question, answer = columns.find("question", raw), columns.find("answer", raw)
    if isinstance(question, list) and isinstance(answer, list):
        return "lists"
    return None if question is None or answer is None else "flat"


def _list_items(items: Any, columns: Columns) -> list[Any]:
    given = items
    if isinstance(items, str) and items.lstrip().startswith("["):
        items = _parse(items)
    if isinstance(items, dict) and all(isinstance(column, list) for column in items.values()):
        # How `datasets` keeps a sequence of objects: an object of lists.
        items = _transpose(items, columns.name("conversations"))
    if not isinstance(items, list) or not items:
        expected = f"{columns.name('conversations')}: expected a non-empty list of turns"
        raise BadRecordError("no_conversations", f"{expected}, got {shorten(given)}")
    if isinstance(items[0], dict) and "user" in items[0] and "assistant" in items[0]:
        return [turn for item in items for turn in _split_pair(item, columns)]
    return items


def _transpose(lists: Mapping[str, list[Any]], where: str) -> list[dict[str, Any]]:
    """An object of lists as a list of objects."""
    if len({len(values) for values in lists.values()}) > 1:
        found = ", ".join(f"{len(values)} of {shorten(key)}" for key, values in lists.items())
        wrong = f"{where}: expected one value a turn in each of its lists, got {found}"
        raise BadRecordError("bad_field", wrong)
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _split_pair(item: Any, columns: Columns) -> list[dict[str, Any]]:
    """The Cauldron's {"user": ..., "assistant": ...}; its further keys are the question's.

    But those of the loss: they are said of the answer.
    """
    pair = dict(item) if isinstance(item, dict) else {}
    asked, said = pair.pop("user", None), pair.pop("assistant", None)
    loss = {key: pair.pop(key) for key in LOSS_KEYS if key in pair}
    return [
        {**pair, **columns.build_turn("user", asked)},
        {**loss, **columns.build_turn("assistant", said)},
    ]


def _join_system(spoken: Sequence[str], raw: Mapping[str, Any], columns: Columns) -> str:
    """The system line of the turns or of a column of its own."""
    value = columns.find("system", raw)
    if value is None and not spoken:
        return ""
    where = columns.name("system")
    column = _read_system(value, where)
    line = "\n".join(filter(None, spoken))
    if line and column and line != column:
        wrong = f"{where}: another text than that of the system turn; remove one"
        raise BadRecordError("bad_field", wrong)
    line = line or column
    if IMAGE_PLACEHOLDER in line:
        raise misplaced(line.count(IMAGE_PLACEHOLDER), "the system line")
    return line


def _read_system(value: Any, where: str) -> str:
    if value is None:
        return ""
    text, _ = read_content(value, where)
    return text if text.strip() else ""


def _unknown_role(number: int, role: Any, columns: Columns) -> BadRecordError:
    if role in _SYSTEM_ROLES:
        place = f"turn {number}: a system turn behind the first question"
        return BadRecordError("system_turn", f"{place}; expected at the beginning only")
    if role in _TOOL_ROLES:
        return BadRecordError("tool_turn", f"turn {number}: the role is {role!r}")
    expected = f"{columns.name('role')}: expected one of {', '.join([*_USUAL_ROLES])}"
    return BadRecordError("unknown_role", f"turn {number}: {expected}, got {shorten(role)}")


def _check_order(turns: Sequence[Turn], num_before: int) -> None:
    expected: tuple[Role, ...] = ("human", "gpt")
    for number, turn in enumerate(turns):
        if turn.role != expected[number % 2]:
            raise BadRecordError(
                "not_alternating",
                f"turn {number + num_before}: expected {expected[number % 2]}, got {turn.role}",
            )
    if len(turns) % 2 or not turns:
        raise BadRecordError("not_alternating", "the last turn is a question without an answer")

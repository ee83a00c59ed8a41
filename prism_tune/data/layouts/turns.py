"""A raw record's conversation: its system line, its questions and its answers.

Read are `conversations` of `from`/`value` and `messages` of `role`/`content`, prompt and
completion, pairs of `user` and `assistant`, and flat columns: question and answer, with choices,
earlier pairs (`history`) and an input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_tune.data.layouts.columns import Columns, is_null
from prism_tune.data.layouts.contents import read_content
from prism_tune.data.layouts.image_values import is_unicode, shorten
from prism_tune.data.layouts.placing import Slots, misplaced
from prism_tune.data.policy import BadRecordError
from prism_tune.schema import IMAGE_PLACEHOLDER, Role, Turn

_ROLES: dict[str, Role] = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
_SYSTEM_ROLES = ("system", "developer")
_TOOL_ROLES = (
    *("tool", "tools", "function", "observation", "ipython", "tool_call", "tool_calls"),
    *("function_call", "tool_response", "tool_result", "function_response"),
)
LOSS_KEYS = ("loss", "weight", "train")
"""ms-swift's, OpenAI's and OpenChat's, and axolotl's: whether a turn is learnt."""

_NUM_USUAL_KEYS = 2


@dataclass(frozen=True)
class Conversation:
    """As it stands in the record.

    `slots`: what stands at each `<image>` of the questions. `unlearnt`: numbers of the answers
    that carry no loss.
    """

    system: str
    turns: tuple[Turn, ...]
    slots: Slots
    unlearnt: tuple[int, ...] = ()


def read_conversation(
    raw: Mapping[str, Any], columns: Columns, *, drops_system: bool = False
) -> Conversation:
    """Find a record's turns, in whichever layout.

    Args:
        raw: the record.
        columns: which keys hold what.
        drops_system: leave out its system line, and system turns wherever they stand.

    Raises:
        BadRecordError: there are no turns, or one that cannot be read.
    """
    items = _find_items(raw, columns)
    turns: list[Turn] = []
    slots: list[Any] = []
    spoken: list[str] = []
    unlearnt: list[int] = []
    role_key, text_key = columns.keys["role"][0], columns.keys["text"][0]
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            wrong = f"turn {number}: expected an object, got {shorten(item)}"
            raise BadRecordError("bad_field", wrong)
        # Millions of turns go through here: the usual keys are looked up without a call.
        role = item.get(role_key) or columns.find("role", item)
        content = item.get(text_key) or columns.find("text", item)
        if role in _SYSTEM_ROLES and (drops_system or not turns):
            spoken.append(_read_system(content, f"turn {number}"))
            continue
        if not isinstance(role, str) or role not in _ROLES:
            raise _unknown_role(number, role, columns)
        has_loss = len(item) == _NUM_USUAL_KEYS or _read_further(number, item, role)
        if type(content) is not str or not is_unicode(content) or IMAGE_PLACEHOLDER in content:
            content, filled = read_content(content, f"turn {number}: {columns.name('text')}")
            if filled and _ROLES[role] == "gpt":
                raise misplaced(len(filled), "an answer")
            slots.extend(filled)
        if not has_loss:
            unlearnt.append(len(turns))
        turns.append(Turn(_ROLES[role], content, has_loss))
    _check_order(turns, len(items) - len(turns))
    if len(unlearnt) * 2 == len(turns):
        raise BadRecordError("no_label", "no answer carries loss")
    system = "" if drops_system else _join_system(spoken, raw, columns)
    return Conversation(system, tuple(turns), tuple(slots), tuple(unlearnt))


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


def _find_items(raw: Mapping[str, Any], columns: Columns) -> list[Any]:
    """The turns as objects of role and text."""
    if "question" in columns.configured:
        return _read_flat(raw, columns)
    items = columns.find("conversations", raw)
    if items is None:
        question, answer = columns.find("question", raw), columns.find("answer", raw)
        if isinstance(question, list) and isinstance(answer, list):
            return [*question, *answer]
        if question is not None and answer is not None:
            return _read_flat(raw, columns)
    return _list_items(items, columns)


def _list_items(items: Any, columns: Columns) -> list[Any]:
    given = items
    if isinstance(items, str) and items.lstrip().startswith("["):
        items = _parse(items)
    if isinstance(items, dict) and all(isinstance(column, list) for column in items.values()):
        # How `datasets` keeps a sequence of objects: an object of lists.
        items = [dict(zip(items, row, strict=False)) for row in zip(*items.values(), strict=False)]
    if not isinstance(items, list) or not items:
        expected = f"{columns.name('conversations')}: expected a non-empty list of turns"
        raise BadRecordError("no_conversations", f"{expected}, got {shorten(given)}")
    if isinstance(items[0], dict) and {"user", "assistant"} <= items[0].keys():
        return [turn for item in items for turn in _split_pair(item)]
    return items


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _split_pair(item: Any) -> list[dict[str, Any]]:
    """The Cauldron's {"user": ..., "assistant": ...}."""
    pair = item if isinstance(item, dict) else {}
    return [{"role": role, "content": pair.get(role)} for role in ("user", "assistant")]


def _read_flat(raw: Mapping[str, Any], columns: Columns) -> list[dict[str, Any]]:
    """Question and answer as turns, behind those of `history`."""
    question, answer = columns.find("question", raw), _name_answer(raw, columns)
    if question is None or answer is None:
        missing = columns.name("question" if question is None else "answer")
        raise BadRecordError("no_conversations", f"{missing}: expected text, got None")
    added = columns.find("input", raw) if _has_input(raw, columns) else None
    if isinstance(question, str) and isinstance(added, str) and added:
        question = f"{question}\n{added}"
    choices = columns.find_filled("choices", raw)
    if choices is not None:
        question, answer = _write_choices(question, answer, choices, columns)
    history = columns.find_filled("history", raw)
    pairs = [*_read_history(history, columns), (question, answer)]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _has_input(raw: Mapping[str, Any], columns: Columns) -> bool:
    """Alpaca's `input` goes with `instruction`; elsewhere the key may mean anything."""
    return "input" in columns.configured or columns.key("question", raw) == "instruction"


def _name_answer(raw: Mapping[str, Any], columns: Columns) -> Any:
    """An answer in a column of its own may be a number, or the only one of a list."""
    answer = columns.find("answer", raw)
    if isinstance(answer, list):
        if len(answer) != 1:
            expected = f"{columns.name('answer')}: expected one answer"
            raise BadRecordError("bad_field", f"{expected}, got {len(answer)}: {shorten(answer)}")
        answer = answer[0]
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    return str(answer) if is_number else answer


def _read_history(history: Any, columns: Columns) -> list[tuple[Any, Any]]:
    if history is None:
        return []
    if not isinstance(history, list) or not all(
        isinstance(p, list) and len(p) == 2 for p in history
    ):
        expected = f"{columns.name('history')}: expected a list of [question, answer]"
        raise BadRecordError("bad_field", f"{expected}, got {shorten(history)}")
    return [(question, answer) for question, answer in history]


def _write_choices(question: Any, answer: Any, choices: Any, columns: Columns) -> tuple[Any, Any]:
    """Choices as lettered lines below the question; the number of a choice becomes its letter."""
    if isinstance(choices, dict):  # of labels and texts, or of letter -> text
        choices = choices.get("text") or list(choices.values())
    texts = choices if isinstance(choices, list) else []
    if not texts or not all(isinstance(choice, str) for choice in texts) or len(texts) > 26:
        expected = f"{columns.name('choices')}: expected a list of up to 26 texts"
        raise BadRecordError("bad_field", f"{expected}, got {shorten(choices)}")
    letters = [chr(ord("A") + number) for number in range(len(texts))]
    if isinstance(answer, str) and answer.isdigit() and answer not in texts:
        if int(answer) >= len(texts):
            wrong = f"{columns.name('answer')}: number {answer} of {len(texts)} choices"
            raise BadRecordError("bad_field", f"{wrong}; they are counted from 0")
        answer = letters[int(answer)]
    if not isinstance(question, str):
        return question, answer
    lines = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    return "\n".join([question, *lines]), answer


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
    expected = f"{columns.name('role')}: expected one of {', '.join([*_ROLES, 'system'])}"
    return BadRecordError("unknown_role", f"turn {number}: {expected}, got {shorten(role)}")


def _read_further(number: int, item: Mapping[str, Any], role: str) -> bool:
    """Whether a turn that says more than its role and text is learnt.

    Raises:
        BadRecordError: it calls tools, or says of its loss something else than yes or no.
    """
    for key in ("tool_calls", "function_call"):
        if item.get(key):
            raise BadRecordError("tool_turn", f"turn {number}: it calls tools (`{key}`)")
    for key in LOSS_KEYS:
        value = item.get(key)
        if is_null(value) or _ROLES[role] != "gpt":
            continue
        if value not in (0, 1):
            expected = f"turn {number}: `{key}`: expected true or false"
            raise BadRecordError("bad_field", f"{expected}, got {shorten(value)}")
        if not value:
            return False
    return True


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

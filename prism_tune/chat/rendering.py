"""Rendering a chat template, which is a program that came with a model: within limits.

jinja's sandbox, which transformers uses, keeps a template from files and code, and lets it loop
as long as it likes. Here it is stopped after some seconds, and so is a text without end.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from prism_tune.errors import UserError, first_line

SECONDS = 10.0
"""Templates of conversations take milliseconds."""
CHARACTERS = 50_000_000
DAY = datetime(2024, 7, 26)
"""What a template is told of today: the day that Llama 3's write where they are told none."""

_REMEDY = (
    "choose one of the built-in templates (model.template), or leave system lines out with "
    "data.system=drop"
)
_CODES = (*"aAbBcdDFHIjmMpSTuUVwWxXyY", "-d", "-m")
_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError)


class _TooLong(BaseException):
    """No `Exception`: nothing in between may take it for an error of its own."""


def render_limited(render: Callable[[], object]) -> str:
    """What `render` writes.

    Raises:
        UserError: the template refuses the conversation, fails, does not end, or writes no end of
            text.
    """
    from jinja2 import TemplateError

    try:
        with _time_limit():
            written = str(render())
    except _TooLong:
        raise UserError(
            f"the chat template did not end within {SECONDS:g} seconds: it loops; {_REMEDY}"
        ) from None
    except (TemplateError, ValueError, *_FAULTS) as error:
        raise UserError(
            f"the chat template refuses a conversation: {first_line(error)}; {_REMEDY}"
        ) from error
    if len(written) > CHARACTERS:
        raise UserError(
            f"the chat template writes {len(written):,} characters for one conversation; {_REMEDY}"
        )
    return written


def fix_day(chat_template: str | Mapping[str, str]) -> str | None:
    """The template, of several the default, such that it writes the same text tomorrow.

    A template can ask for the day (`strftime_now`): a prompt would change with it, and no recorded
    answer or feature be found again. A macro of that name stands before transformers' function.
    """
    text = chat_template if isinstance(chat_template, str) else chat_template.get("default")
    if text is None or "strftime_now" not in text:
        return text
    written = "".join(f"|replace('%{code}', '{DAY:%{code}}')" for code in _CODES)
    return "{% macro strftime_now(format) %}{{ format" + written + " }}{% endmacro %}\n" + text


def template_options(chat_template: str | Mapping[str, str]) -> dict[str, Any]:
    """What `apply_chat_template` is given of a template: the text of `fix_day`, without thinking.

    What a template has no word for, transformers would hand on to a processor, with a warning.
    """
    quiet = {"enable_thinking": False} if "enable_thinking" in str(chat_template) else {}
    return {"chat_template": fix_day(chat_template), **quiet}


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raises `_TooLong` between two instructions of this thread once the time is over."""
    if threading.current_thread() is not threading.main_thread():
        with _watched_thread():
            yield
        return

    def end(signum: int, frame: FrameType | None) -> None:
        raise _TooLong

    handler = signal.signal(signal.SIGALRM, end)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _watched_thread() -> Iterator[None]:
    """The same where signals do not arrive: in any thread but the main one."""
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(SECONDS, lambda: raise_in(thread, ctypes.py_object(_TooLong)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

"""Which tests `make fast` leaves out: those that start processes, or a browser.

A test counts as one where its code, that of its fixtures, or of any function of the tests that
these name, comes upon one of `STARTERS`. Files whose tests put models through whole stages are
marked by hand, as is what else takes seconds.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any

STARTERS = {"subprocess", "multiprocessing", "playwright.sync_api", "support.ranks"}
"""Modules that start processes."""

_popen = subprocess.Popen.__init__


@cache
def starts_processes(function: Callable[..., Any]) -> bool:
    """Whether the function, or one of the tests' own that it names, comes upon a starter."""
    seen: set[Any] = set()
    waiting: list[Any] = [function]
    while waiting:
        found = waiting.pop()
        if isinstance(found, type):
            waiting += vars(found).values()
        elif isinstance(found, FunctionType) and found not in seen:
            seen.add(found)
            for name in _names(found.__code__):
                value = found.__globals__.get(name)
                home = getattr(value, "__module__", None) or getattr(value, "__name__", None)
                if name in STARTERS or home in STARTERS:
                    return True
                if str(home).startswith(("tests", "support")):
                    waiting.append(value)
    return False


def refuse_processes(self: Any, arguments: Any, *others: Any, **named: Any) -> None:
    """In place of `subprocess.Popen.__init__`: git alone may run, as every stage asks for it."""
    if arguments[0] != "git":
        raise AssertionError(f"a fast test starts {arguments}: mark it slow")
    _popen(self, arguments, *others, **named)


def _names(code: CodeType) -> Iterator[str]:
    """Globals and imports that the code, and the functions inside it, name."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)

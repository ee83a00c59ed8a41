"""Errors a user can mend. The command line prints their message, without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """Bad input: the message names the file, record or key, what was expected and how to mend it.

    The command line exits with 1.
    """


class SharedError(UserError):
    """What every process of a launch meets with: the main one alone says it.

    `code` is the exit code, that of the error on the process that has found it.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class ConfigError(UserError):
    """A config or a command line that cannot be used. The command line exits with 2."""


def say(error: BaseException) -> str:
    """What an error says, without the traceback that a loader's worker puts into it."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    kind = type(error)
    return text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def list_some(names: Sequence[object], most: int = 5) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more

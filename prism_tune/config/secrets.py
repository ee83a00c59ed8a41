"""Secrets: tokens, keys and passwords that a config, a command line or a text may hold.

What is kept or shown (config.yaml, stage.json, the log, reports, W&B, checkpoints) goes through
`redact`: each secret is replaced by `<redacted>`, its name stays. What a name says is a secret is
one, and so is what looks like a token of a known service, a password in an address, and the value
of an environment variable whose name says so, wherever it stands.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

REDACTED = "<redacted>"

_WORDS = (
    r"token|secret|password|passwd|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|auth"
)
_OF_TEXT = "".join(f"(?<!{w}[_-])" for w in ("image", "video", "audio", "bos", "eos", "pad", "unk"))
"""Before `token`: those that a tokenizer has are no secrets."""
_NAME = re.compile(rf"(?:^|[_.-]){_OF_TEXT}(?:{_WORDS})$", re.IGNORECASE)
_VARIABLE = re.compile(rf"(?:^|_)(?:{_WORDS}|key)$", re.IGNORECASE)
_SHORTEST = 8
_SERVICES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}|AKIA[0-9A-Z]{16}|glpat-[\w-]{16,}|xox[abpr]-[\w-]{10,}"
    r"|wandb_v\d_\w{16,}|AIza[\w-]{30,})"
)
_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*(?::[^\s/@]*)?@", re.IGNORECASE)
_PAIR = re.compile(
    rf"((?:^|[\s?&;'\"{{,.])[\w.-]*?{_OF_TEXT}(?:{_WORDS})['\"]?\s*[=:]\s*['\"]?)"
    r"(?!<redacted>|None\b|null\b|True\b|False\b)([^\s'\"&,}]{4,})",
    re.IGNORECASE,
)
_PROSE = re.compile(r"\w\s+token: $", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][a-z]{1,12}(?:/[A-Za-z][a-z]{1,12})*[.;:!?)]*")
"""`Give the token: digits only.` is of the trade's tokens; a key of letters alone is none."""
_HEADER = re.compile(r"(\b(?:Bearer|Authorization:\s*[A-Za-z]+)\s+)[^\s'\"]+", re.IGNORECASE)
_OPTION = re.compile(
    rf"((?:^|[\s'\"])--?[\w-]*?{_OF_TEXT}(?:{_WORDS})\s+['\"]?)(?!<redacted>)([^\s'\"-][^\s'\"]*)",
    re.IGNORECASE,
)
"""An option of a command and its value, as a server's: `--api-key VALUE`."""


def redact(value: Any) -> Any:
    """The value without its secrets: mappings by their keys, texts at any depth by what is in them.

    Returns:
        A copy of the same shape; None and numbers are no secrets.
    """
    if isinstance(value, dict):
        return {
            key: REDACTED
            if isinstance(content, str) and content and is_secret(str(key))
            else redact(content)
            for key, content in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(map(redact, value))
    return redact_text(value) if isinstance(value, str) else value


def find_secrets(tree: dict[str, Any], key: str = "") -> list[str]:
    """The dotted keys below `key` whose values `redact` would not leave as they are."""
    found: list[str] = []
    for name, redacted in redact(tree).items():
        below = f"{key}.{name}" if key else str(name)
        if isinstance(redacted, dict):
            found += find_secrets(tree[name], below)
        elif redacted != tree[name]:
            found.append(below)
    return found


def is_secret(name: str) -> bool:
    """Whether a key of a config names a secret: `hub_token`, not `tokens_per_batch`."""
    return _NAME.search(name) is not None


def redact_text(text: str) -> str:
    """A text, for instance a message or an argument `key=value`, without the secrets in it."""
    for secret in _environment_secrets():
        text = text.replace(secret, REDACTED)
    text = _SERVICES.sub(REDACTED, text)
    text = _ADDRESS.sub(rf"\1{REDACTED}@", text)
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    text = _OPTION.sub(rf"\1{REDACTED}", text)
    return _PAIR.sub(_redact_pair, text)


def _redact_pair(pair: re.Match[str]) -> str:
    before = pair.string[: pair.end(1)]
    if _PROSE.search(before) and _WORD.fullmatch(pair[2]):
        return pair[0]
    return f"{pair[1]}{REDACTED}"


class RedactingFilter(logging.Filter):
    """Lets every record of a log through, without the secrets in its message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """The message is put together here, as an argument may hold a secret."""
        message = record.getMessage()
        redacted = redact_text(message)
        if redacted != message:
            record.msg, record.args = redacted, None
        return True


def _environment_secrets() -> list[str]:
    """Values of the variables that hold secrets, the longest first; a path is none."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and not value.startswith(("/", "~")) and _VARIABLE.search(name)
    }
    return sorted(found, key=len, reverse=True)

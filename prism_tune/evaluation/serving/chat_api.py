"""An OpenAI-compatible address: chat messages in, an answer out; asked again where it fails.

The key is read from OPENAI_API_KEY; it goes into the request's header and nowhere else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from prism_tune.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"
_NUM_TRIES = 6
_LONGEST_PAUSE_SECONDS = 60.0
_TRY_AGAIN = (408, 409, 429)
REFUSED = (401, 403)
"""Statuses that say so of the key."""
_NUM_SHOWN = 200
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_NO_HEADER_TEXT = re.compile(r"[^\x20-\x7e\xa0-\xff]")
_NO_PATH = re.compile(r"[^\x21-\x7e]")
_NO_HOST = re.compile(r"[\x00-\x20\x7f]")


class NoRedirect(HTTPRedirectHandler):
    """A redirect is an error: the key must not follow it to another host."""

    def redirect_request(self, *args: Any) -> None:
        """None leaves it an HTTPError."""
        return None


class ChatApi:
    """Asks a chat model.

    Args:
        base_url: up to and including the version, for example https://host/v1.
        model: its name there, as a request has it.
        pause: waits between tries; seconds in.
        option: what an error calls the address.
        timeout: of one try, in seconds.

    Raises:
        ConfigError: `base_url` is no plain http(s) address, or the key cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        pause: Callable[[float], None] = time.sleep,
        option: str = "--base-url",
        timeout: float = 120.0,
    ) -> None:
        base_url = base_url.strip()
        _check_address(base_url, option)
        self.model = model
        self._key = read_key()
        self.url = base_url.rstrip("/") + "/chat/completions"
        self._pause = pause
        self._timeout = timeout
        is_here = urlsplit(base_url).hostname in _THIS_MACHINE  # which no proxy has to know
        self._opener = build_opener(NoRedirect, *([ProxyHandler({})] if is_here else []))

    def complete(self, body: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """The answer's text, the model that the server says has given it, and the whole reply.

        Raises:
            UserError: the server refuses, or does not answer after several tries.
        """
        reply = found = self._post(body)
        try:
            found = reply["choices"][0]["message"]["content"]
            return _read_text(found), str(reply.get("model") or self.model), reply
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"{self.url}: expected a chat completion with choices[0].message.content as text "
                f"or a list with text parts, found {self._redact(str(found))}"
            ) from error

    def _post(self, body: dict[str, Any]) -> Any:
        reason = ""
        for number in range(_NUM_TRIES):
            pause_seconds = float(2**number)
            try:
                return self._read(self._send(body))
            except HTTPError as error:
                reason = self._describe(error)
                if error.code not in _TRY_AGAIN and error.code < 500:
                    raise UserError(reason) from error
                pause_seconds = max(pause_seconds, _read_pause(error.headers))
            except (OSError, HTTPException) as error:
                reason = self._redact(f"{self.url}: {error}")
            if number + 1 < _NUM_TRIES:
                logger.info("%s; asked again in %.0f s", reason, pause_seconds)
                self._pause(pause_seconds)
        raise UserError(
            f"{reason}, {_NUM_TRIES} times; the same command goes on where this stopped"
        )

    def _send(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", **key_header(self._key)}
        request = Request(self.url, json.dumps(body).encode(), headers)
        with self._opener.open(request, timeout=self._timeout) as response:
            content: bytes = response.read()
        return content

    def _read(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            found = self._redact(content.decode(errors="replace"))
            raise UserError(f"{self.url}: expected JSON, found {found}") from error

    def _describe(self, error: HTTPError) -> str:
        if error.code in REFUSED:
            return describe_refusal(self.url, error.code, self._key)
        try:
            content = error.read()
        except IncompleteRead as broken:
            content = broken.partial
        except (OSError, HTTPException):  # the status alone is known
            content = b""
        return f"{self.url}: status {error.code}: {self._redact(content.decode(errors='replace'))}"

    def _redact(self, text: str) -> str:
        hidden = text.replace(self._key, "***") if self._key else text
        return " ".join(hidden.split())[:_NUM_SHOWN]


def read_key() -> str:
    """The key of the environment, without white space around it; empty where none is set.

    Raises:
        ConfigError: it has characters that no header takes; they are not shown.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if found := _NO_HEADER_TEXT.search(key):
        raise ConfigError(
            f"{KEY_VARIABLE}: its character {found.start() + 1} cannot be sent in a request's "
            "header; expected the key alone, in one line and without typographic quotes"
        )
    return key


def key_header(key: str) -> dict[str, str]:
    """The request's header that carries the key, if there is one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def describe_refusal(url: str, status: int, key: str) -> str:
    """What one of the statuses `REFUSED` says of the key."""
    state = "was refused" if key else "is not set"
    return f"{url}: status {status}; the key in {KEY_VARIABLE} {state}"


def _check_address(base_url: str, option: str) -> None:
    try:
        parts = urlsplit(base_url)
        is_plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query
        _ = parts.port  # read here: it raises on what is no port
    except ValueError as error:  # a port or an IPv6 address that is none
        raise ConfigError(f"{option}: expected http(s)://host/v1: {error}") from error
    if not is_plain:
        raise ConfigError(f"{option}: expected http(s)://host/v1, found {parts.netloc!r}")
    if parts.username or parts.password:
        raise ConfigError(f"{option}: put the key into {KEY_VARIABLE}, not into the address")
    _check_names(base_url, parts, option)


def _check_names(base_url: str, parts: SplitResult, option: str) -> None:
    """The host as it is looked up, the path as it is sent."""
    host = unquote(parts.hostname or "")
    if not _is_name(host):
        raise ConfigError(
            f"{option}: {host!r} is no host name: a part between its dots is empty, longer than "
            "63 characters or of characters that no name has; expected http(s)://host/v1"
        )
    if found := _NO_PATH.search(base_url.replace(parts.netloc, "", 1)):
        raise ConfigError(
            f"{option}: found {found[0]!r} in the address; expected http(s)://host/v1 without "
            "white space, and what is not ASCII after the host as %XX"
        )


def _is_name(host: str) -> bool:
    try:
        return not _NO_HOST.search(host.encode("idna").decode())
    except UnicodeError:
        return False


def _read_text(content: Any) -> str:
    """The text of a message's content, or of the text parts of a list.

    Raises:
        KeyError, TypeError: it is neither.
    """
    if isinstance(content, list):
        texts = [part["text"] for part in content if part["type"] == "text"]
        if texts or not content:
            return "".join(texts)
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError("no text")


def _read_pause(headers: Message) -> float:
    """What the server asks to wait, in seconds, within reason."""
    asked = headers.get("retry-after", "")
    return min(float(asked), _LONGEST_PAUSE_SECONDS) if asked.isdecimal() else 0.0

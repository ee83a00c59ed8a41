"""An OpenAI-compatible address: chat messages in, an answer out; asked again where it fails.

The key is read from OPENAI_API_KEY; it goes into the request's header and nowhere else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from prism_tune.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"
_NUM_TRIES = 6
_LONGEST_PAUSE_SECONDS = 60.0
_TRY_AGAIN = (408, 409, 429)
_REFUSED = (401, 403)
_NUM_SHOWN = 200


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an error: the key must not follow it to another host."""

    def redirect_request(self, *args: Any) -> None:
        return None


class ChatApi:
    """Asks a chat model.

    Args:
        base_url: up to and including the version, for example https://host/v1.
        model: its name there.
        pause: waits between tries; seconds in.
        option: what an error calls the address.
        timeout: of one try, in seconds.

    Raises:
        ConfigError: `base_url` is no plain http(s) address.
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
        self._model = model
        self._key = os.environ.get(KEY_VARIABLE, "")
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._pause = pause
        self._timeout = timeout
        self._opener = build_opener(_NoRedirect)

    def _complete(self, body: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """The answer's text, the model that the server says has given it, and the whole reply."""
        reply = self._post(body)
        try:
            content = reply["choices"][0]["message"]["content"] or ""
            return str(content), str(reply.get("model") or self._model), reply
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"{self._url}: expected a chat completion with choices[0].message.content, found "
                f"{self._redact(str(reply))}"
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
                reason = self._redact(f"{self._url}: {error}")
            if number + 1 < _NUM_TRIES:
                logger.info("%s; asked again in %.0f s", reason, pause_seconds)
                self._pause(pause_seconds)
        raise UserError(
            f"{reason}, {_NUM_TRIES} times; the same command goes on where this stopped"
        )

    def _send(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self._url, json.dumps(body).encode(), headers)
        with self._opener.open(request, timeout=self._timeout) as response:
            content: bytes = response.read()
        return content

    def _read(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            found = self._redact(content.decode(errors="replace"))
            raise UserError(f"{self._url}: expected JSON, found {found}") from error

    def _describe(self, error: HTTPError) -> str:
        if error.code in _REFUSED:
            state = "was refused" if self._key else "is not set"
            return f"{self._url}: status {error.code}; the key in {KEY_VARIABLE} {state}"
        content = error.read().decode(errors="replace")
        return f"{self._url}: status {error.code}: {self._redact(content)}"

    def _redact(self, text: str) -> str:
        hidden = text.replace(self._key, "***") if self._key else text
        return " ".join(hidden.split())[:_NUM_SHOWN]


def _read_pause(headers: Message) -> float:
    """What the server asks to wait, in seconds, within reason."""
    asked = headers.get("retry-after", "")
    return min(float(asked), _LONGEST_PAUSE_SECONDS) if asked.isdecimal() else 0.0

"""A judge behind an OpenAI-compatible address: a prompt in, a grade or a review out.

MM-Vet's official protocol: one user message, temperature 0, at most 3 new tokens; the score is the
first word. Where it is no number from 0 to 1 the judge is asked again, with a sentence added, at
temperatures 0, 0.5, 1 and 1.5, and after that the score is 0.
LLaVA-Bench's: a system message and one of the user's, temperature 0.2, at most 1,024 new tokens.
The key is read from OPENAI_API_KEY; it goes into the request's header and nowhere else.
"""

from __future__ import annotations

import json
import logging
import math
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
from prism_tune.evaluation.benchmarks.grades import Grade
from prism_tune.evaluation.judge.prompt import ASK_AGAIN
from prism_tune.evaluation.judge.review_prompt import REVIEW_NEW_TOKENS, SYSTEM, Review

logger = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_NEW_TOKENS = 3
_REVIEW_TEMPERATURE = 0.2
_TEMPERATURES_AGAIN = (0.0, 0.5, 1.0, 1.5)
_NUM_TRIES = 6
_LONGEST_PAUSE_SECONDS = 60.0
_TIMEOUT_SECONDS = 120.0
_TRY_AGAIN = (408, 409, 429)
_REFUSED = (401, 403)
_NUM_SHOWN = 200


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an error: the key must not follow it to another host."""

    def redirect_request(self, *args: Any) -> None:
        return None


class ApiJudge:
    """Grades by asking a chat model.

    Args:
        base_url: up to and including the version, for example https://host/v1.
        model: its name there.
        pause: waits between tries; seconds in.

    Raises:
        ConfigError: `base_url` is no plain http(s) address.
    """

    def __init__(
        self, base_url: str, model: str, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(f"--base-url: expected http(s)://host/v1, found {parts.netloc!r}")
        if parts.username or parts.password:
            raise ConfigError(f"--base-url: put the key into {KEY_VARIABLE}, not into the address")
        self._model = model
        self._key = os.environ.get(KEY_VARIABLE, "")
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._pause = pause
        self._opener = build_opener(_NoRedirect)

    def grade(self, prompt: str) -> Grade:
        """One graded answer.

        Raises:
            UserError: the server refuses, or does not answer after several tries.
        """
        content, model = self._ask_grade(prompt, 0.0)
        for temperature in _TEMPERATURES_AGAIN:
            score = parse_score(content)
            if score is not None:
                return Grade(score, content, model)
            content, model = self._ask_grade(prompt + ASK_AGAIN, temperature)
        return Grade(parse_score(content) or 0.0, content, model)

    def review(self, message: str) -> Review:
        """One answer pair compared.

        Raises:
            UserError: as `grade`.
        """
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
        return Review(*self._ask(messages, _REVIEW_TEMPERATURE, REVIEW_NEW_TOKENS))

    def _ask_grade(self, prompt: str, temperature: float) -> tuple[str, str]:
        return self._ask([{"role": "user", "content": prompt}], temperature, MAX_NEW_TOKENS)

    def _ask(
        self, messages: list[dict[str, str]], temperature: float, max_new_tokens: int
    ) -> tuple[str, str]:
        """The answer's text, and the model that the server says has given it."""
        body = {
            "model": self._model,
            "messages": messages,
            "temperature": temperature,
            "max_tokens": max_new_tokens,
        }
        reply = self._post(body)
        try:
            content = reply["choices"][0]["message"]["content"] or ""
            return str(content), str(reply.get("model") or self._model)
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
                logger.info("judge: %s; asked again in %.0f s", reason, pause_seconds)
                self._pause(pause_seconds)
        raise UserError(
            f"{reason}, {_NUM_TRIES} times; the same command goes on where this stopped"
        )

    def _send(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self._url, json.dumps(body).encode(), headers)
        with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
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


def parse_score(content: str) -> float | None:
    """The first word as a number from 0 to 1; None where it is none."""
    try:
        score = float(content.split(" ")[0].strip())
    except ValueError:
        return None
    return score if math.isfinite(score) and 0 <= score <= 1 else None


def _read_pause(headers: Message) -> float:
    """What the server asks to wait, in seconds, within reason."""
    asked = headers.get("retry-after", "")
    return min(float(asked), _LONGEST_PAUSE_SECONDS) if asked.isdecimal() else 0.0

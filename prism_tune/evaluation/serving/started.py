"""A server of one's own command, for as long as the questions take.

In: `evaluation.serve_command`, for example `vllm serve {model} --port {port}`, and the model. Out:
its address, once the server answers there. It is started when the first question is to be asked,
and ended with the evaluation, however that ends.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from prism_tune.config.sections import EvaluationConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.serving.chat_api import (
    REFUSED,
    ChatApi,
    NoRedirect,
    describe_refusal,
    key_header,
    read_key,
)
from prism_tune.evaluation.serving.server import open_api
from prism_tune.interrupts import follow_parent
from prism_tune.processes import world_size

logger = logging.getLogger(__name__)

_START_SECONDS = 1800.0
"""A large model is read and compiled first."""
_PAUSE_SECONDS = 0.5
_END_SECONDS = 15.0
_NUM_LINES = 12


@contextmanager
def reached_server(
    config: EvaluationConfig, servable: Callable[[], str], log: Path
) -> Iterator[Callable[[], ChatApi]]:
    """What gives the server's address; if a command starts it, when that is first asked for.

    Args:
        config: with an address or a command.
        servable: gives the model directory (or hub id) that any server reads.
        log: for what the server prints.

    Raises:
        ConfigError: no address, or a command that has no place for the port, or beside an address;
            a key that cannot be sent.
        UserError: what is given raises it: the command ended, or did not answer in half an hour,
            with its last lines; or the server refuses the key.
    """
    if config.serve_command is None:
        api = open_api(config)
        yield lambda: api
        return
    _check(config)
    read_key()
    with ExitStack() as until_the_end:
        yield lambda: open_api(until_the_end.enter_context(_started(config, servable(), log)))


@contextmanager
def _started(config: EvaluationConfig, model: str, log: Path) -> Iterator[EvaluationConfig]:
    """With the address of the server that the command has started."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}/v1"
    words = [
        word.replace("{model}", model).replace("{port}", str(port))
        for word in _split(config.serve_command or "")
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = _start(words, output.fileno())
        try:
            _wait(address, read_key(), process, log)
            found = {"base_url": address, "served_model": config.served_model or model}
            yield config.model_copy(update=found)
        finally:
            _end(process)


def _check(config: EvaluationConfig) -> None:
    if config.base_url is not None:
        raise ConfigError(
            "evaluation.serve_command starts a server, evaluation.base_url names one that runs: "
            "set one of them"
        )
    words = _split(config.serve_command or "")
    if not any("{port}" in word for word in words):
        raise ConfigError(
            "evaluation.serve_command: no {port} in it; for example "
            "`vllm serve {model} --port {port}`"
        )
    if world_size() > 1:
        raise ConfigError(
            "evaluation.serve_command: the server takes the devices; evaluate in one process"
        )


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"evaluation.serve_command: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _start(words: list[str], output: int) -> subprocess.Popen[bytes]:
    logger.info("evaluation: starting %s", shlex.join(words))
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=follow_parent,
        )
    except OSError as error:
        raise ConfigError(
            f"evaluation.serve_command: {words[0]}: {error.strerror}; is the server installed in "
            "this environment?"
        ) from error


def _wait(address: str, key: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers; it is on this machine, whatever proxy is set."""
    opener = build_opener(ProxyHandler({}), NoRedirect)
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UserError(
                f"evaluation.serve_command ended with exit code {process.returncode} before it "
                f"answered; the last lines of {log}:\n{_last_lines(log)}"
            )
        if _is_up(f"{address}/models", key, opener):
            return
        time.sleep(_PAUSE_SECONDS)
    raise UserError(
        f"evaluation.serve_command: no answer at {address} in {_START_SECONDS / 60:.0f} minutes; "
        f"the last lines of {log}:\n{_last_lines(log)}"
    )


def _is_up(url: str, key: str, opener: OpenerDirector) -> bool:
    """Whether it answers, if only by a status that is no server's error: it need list no models."""
    try:
        with opener.open(Request(url, headers=key_header(key)), timeout=5):
            return True
    except HTTPError as error:
        error.close()
        if error.code in REFUSED:
            raise UserError(
                f"evaluation.serve_command: {describe_refusal(url, error.code, key)}; set it to "
                "the key that the command gives the server"
            ) from error
        return error.code < 500
    except (OSError, HTTPException):
        return False


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_NUM_LINES:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server and its workers to end, and end what has not gone by then."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it

"""A server of one's own command: when it counts as up, and with which key it is asked."""

import shlex
import sys

import pytest

from prism_tune.config.sections import EvaluationConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.serving import started

pytestmark = pytest.mark.slow

SCRIPT = """
import http.server, sys

statuses = [int(status) for status in sys.argv[2:]]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = statuses.pop(0) if statuses else 200
        if status == 200 and self.headers.get("Authorization") != "Bearer sk-secret":
            status = 401
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/v1/models")
        self.send_header("Content-Length", "0")
        self.end_headers()


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """`start(statuses)`: the address asked, once a server that first gives these statuses is up."""
    (tmp_path / "server.py").write_text(SCRIPT)
    monkeypatch.setattr(started, "_START_SECONDS", 20.0)
    monkeypatch.setattr(started, "_PAUSE_SECONDS", 0.05)

    def start(statuses=""):
        program = shlex.join([sys.executable, str(tmp_path / "server.py")])
        command = f"{program} {{port}} {statuses}"
        config = EvaluationConfig(backend="openai", serve_command=command)
        with started.reached_server(config, lambda: "m", tmp_path / "server.log") as open_api:
            return open_api().url

    return start


def test_a_server_that_wants_the_key_is_asked_with_it(start, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    assert start().startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("key", "statuses", "message"),
    [
        ("", "", "status 401; the key in OPENAI_API_KEY is not set"),
        ("sk-other", "", "status 401; the key in OPENAI_API_KEY was refused"),
        ("sk-other", "403", "status 403; the key in OPENAI_API_KEY was refused"),
    ],
)
def test_a_server_that_refuses_the_key_is_not_waited_for(
    start, monkeypatch, key, statuses, message
):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match=rf"^evaluation\.serve_command: .*/models: {message}") as e:
        start(statuses)
    assert "sk-other" not in str(e.value)


@pytest.mark.parametrize("statuses", ["404", "503 503 405", "307"])
def test_any_status_but_a_servers_error_is_an_answer(start, monkeypatch, statuses):
    """It lists no models, or not there; the key does not follow it elsewhere."""
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert start(statuses).startswith("http://127.0.0.1:")


def test_a_key_that_cannot_be_sent_starts_no_server(start, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\nsecret")
    with pytest.raises(ConfigError, match=r"^OPENAI_API_KEY: "):
        start()
    assert not (tmp_path / "server.log").exists()

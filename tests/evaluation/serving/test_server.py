"""`evaluation.backend: openai` against a real server: `transformers serve` of a tiny checkpoint."""

import re
import shlex
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from PIL import Image
from support.chat_templates import QWEN, QWEN_THINKING
from support.evaluation_runs import Setting
from support.tiny import draw_image

from prism_tune.config.sections import Config
from prism_tune.data.pixels import pad_to_square
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.answer import VisionEvaluation
from prism_tune.evaluation.answer_store import AnswerStore
from prism_tune.evaluation.decoding.prompts import Request
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.evaluation.serving import server
from prism_tune.evaluation.serving.chat_api import ChatApi
from prism_tune.evaluation.serving.server import Server
from prism_tune.models.processor import load_processor

slow = pytest.mark.slow


@pytest.fixture(scope="session")
def served(tiny_llava_dir, tmp_path_factory):
    """The address of a server that has the tiny model in float32."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", str(tiny_llava_dir)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = (tmp_path_factory.mktemp("server") / "log.txt").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/v1/models", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def _wait(address, process):
    for _ in range(240):
        assert process.poll() is None
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address}: no server")


def ask(setting, served, template="processor", **changes):
    config = setting.config(backend="openai", base_url=served, served_model=str(setting.model_dir))
    tree = config.model_dump(mode="json")
    tree["model"]["template"] = template
    tree["evaluation"] |= changes
    return Config.model_validate(tree)


@slow
def test_the_answers_are_those_of_the_model_in_memory(setting, served, tmp_path):
    evaluate(ask(setting, served, backend="transformers"), setting.run, force=False)
    here = [line["text"] for line in setting.lines()]
    other = Setting(setting.model_dir, setting.data_dir, tmp_path / "other")
    evaluate(ask(other, served), other.run, force=False)
    assert [line["text"] for line in other.lines()] == here
    result = other.results()
    assert result["provenance"]["backend"] == "openai"
    assert result["provenance"]["served_model"] == str(setting.model_dir)
    assert result["provenance"]["dtype"] == "the server's"
    assert not any("server's prompts" in note for note in result["notes"])
    assert {line["metadata"]["finished"] for line in other.lines()} <= {True, False}


@slow
def test_another_template_is_said_and_a_stopped_evaluation_goes_on(setting, served, monkeypatch):
    config = ask(setting, served, template="vicuna_v1", concurrency=1)
    complete, calls = ChatApi.complete, []

    def fail_later(self, body):
        calls.append(body["max_tokens"])
        if len([c for c in calls if c > 1]) > 3:
            raise UserError("the server is gone")
        return complete(self, body)

    with monkeypatch.context() as patch:
        patch.setattr(ChatApi, "complete", fail_later)
        with pytest.raises(UserError, match="the server is gone"):
            evaluate(config, setting.run, force=False)
    calls.clear()

    def count(self, body):
        calls.append(body["max_tokens"])
        return complete(self, body)

    monkeypatch.setattr(ChatApi, "complete", count)
    evaluate(config, setting.run, force=False)
    assert len([c for c in calls if c > 1]) == 12 - 3
    assert len(setting.lines()) == 12
    assert any(
        "prompts are not those of template vicuna_v1" in n for n in setting.results()["notes"]
    )


def test_the_picture_sent_is_the_one_the_profile_asks_for(tiny_llava_dir, tmp_path):
    """A server that crops the middle sees of it what the padding processor sees of the image."""
    model = Config.model_validate(
        {"name": "x", "model": {"path": str(tiny_llava_dir)}, "data": {"records": "p"}}
    ).model
    path = tmp_path / "1.png"
    draw_image(path, 1)
    with Image.open(path) as drawn:
        wide = drawn.convert("RGB").resize((64, 40))
    padding = load_processor(model)
    cropping = load_processor(model.model_copy(update={"image_aspect_ratio": "crop"}))
    mean = padding.image_processor.image_mean
    ours = padding.image_processor(wide, return_tensors="pt")["pixel_values"]
    theirs = cropping.image_processor(pad_to_square(wide, mean), return_tensors="pt")[
        "pixel_values"
    ]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("key", ["base_url", "served_model"])
def test_what_is_missing_is_named(setting, key):
    values = {"backend": "openai", "base_url": "http://x/v1", "served_model": "m", key: None}
    with pytest.raises(ConfigError, match=rf"evaluation\.{key}: missing"):
        setting.evaluate(**values)


@pytest.mark.parametrize(
    ("usage", "count"),
    [({"completion_tokens": 3}, 3), ({"completion_tokens": "3"}, None), ([3], None), (None, None)],
)
def test_tokens_are_counted_where_the_server_gives_a_number(usage, count):
    assert server._read_usage({"usage": usage}, "completion_tokens") == count


@pytest.mark.parametrize(
    ("template", "beside"),
    [
        (QWEN, {}),
        (QWEN_THINKING, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"default": QWEN_THINKING}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_a_server_is_asked_greedily_and_without_thinking(monkeypatch, template, beside):
    """A penalty that is not named it takes from the checkpoint."""
    bodies = []

    def complete(self, body):
        bodies.append(body)
        return "a", "m", {"choices": [{}]}

    monkeypatch.setattr(ChatApi, "complete", complete)
    processor: Any = SimpleNamespace(chat_template=template)
    asking = Server(
        lambda: ChatApi("http://x/v1", "m"), processor, template="chatml", concurrency=1
    )
    list(asking.answer([Request("p", (), "q")], max_new_tokens=3))
    content = [{"type": "text", "text": "q"}]
    assert bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "frequency_penalty": 0,
            "max_tokens": 3,
            **beside,
        }
    ]


def test_a_refused_question_takes_no_answer_of_others_with_it(monkeypatch):
    """Those under way come after the refusal; they are paid for, and must not be asked again."""
    under_way, asked = Event(), []

    def complete(self, body):
        question = body["messages"][0]["content"][-1]["text"]
        asked.append(question)
        if question == "refused":
            assert under_way.wait(30)
            raise UserError("status 400")
        under_way.set()
        time.sleep(1)  # the refusal is there long before
        return question, "m", {"choices": [{}], "usage": {"completion_tokens": 3}}

    monkeypatch.setattr(ChatApi, "complete", complete)
    asking = Server(lambda: ChatApi("http://x/v1", "m"), None, template="chatml", concurrency=2)
    names = ("refused", "first", "second", "third", "fourth")
    answers = asking.answer([Request("p", (), name) for name in names], max_new_tokens=3)
    kept = []
    with pytest.raises(UserError, match="status 400"):
        kept.extend(answers)
    texts = {request.question: answer.text for each in kept for request, answer in each.items()}
    assert texts["first"] == "first"
    assert {*texts} == {*asked} - {"refused"}
    assert not {"third", "fourth"} & {*asked}
    assert asking.take() == {"images": 0, "tokens": 3 * len(kept)}


INTERRUPTED = """
import signal, time
from threading import Timer, main_thread
from prism_tune.evaluation.serving.under_way import UnderWay

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background

def ask(question):
    if question == "slow":
        Timer(1, signal.pthread_kill, (main_thread().ident, signal.SIGINT)).start()
        time.sleep(600)
    return question

try:
    for question, answer in UnderWay(ask, ["quick", "slow", "later", "last"], 2):
        print(answer, flush=True)
        time.sleep(0.1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@slow
def test_ctrl_c_does_not_wait_for_what_is_under_way():
    """Which would be a quarter of an hour for the slowest; the program itself has to end, too."""
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["quick", "later", "last", "interrupted"]


def answer_all(monkeypatch, content):
    """Every request is answered so; None: there is no server."""

    def complete(self, body):
        if content is None:
            raise UserError("no server")
        return content, "m", {"choices": [{}], "usage": {"prompt_tokens": 1}}

    monkeypatch.setattr(ChatApi, "complete", complete)


@slow
def test_scoring_again_needs_no_server_where_all_is_answered(setting, monkeypatch):
    where = {"backend": "openai", "base_url": "http://x/v1", "served_model": "m"}
    answer_all(monkeypatch, "red")
    setting.evaluate(**where)
    (note,) = [note for note in setting.results()["notes"] if "server's prompts" in note]
    answer_all(monkeypatch, None)
    given = setting.config().evaluation.data["quickstart"].model_dump(mode="json")
    fewer = {"data": {"quickstart": {**given, "limit": 5}}}
    setting.evaluate(**where, **fewer)
    assert setting.results()["num_examples"] == 5
    assert note in setting.results()["notes"]
    with pytest.raises(UserError, match="no server"):
        setting.evaluate(**where, **fewer, controls=["blind"])


@slow
@pytest.mark.parametrize("killed", ["between the last answer and the result", "half way"])
def test_prompts_that_differ_are_said_whenever_the_evaluation_is_killed(
    setting, monkeypatch, killed
):
    """Also where the server that goes on has other prompts."""
    where = {"backend": "openai", "base_url": "http://x/v1", "served_model": "m", "concurrency": 1}
    answer_all(monkeypatch, "red")
    with monkeypatch.context() as patch:
        if killed == "half way":
            append, calls = AnswerStore.append, []

            def stop(self, answers):
                append(self, answers)
                calls.append(answers)
                if len(calls) == 5:
                    raise KeyboardInterrupt

            patch.setattr(AnswerStore, "append", stop)
        else:
            patch.setattr(VisionEvaluation, "_score", interrupt)
        with pytest.raises(KeyboardInterrupt):
            setting.evaluate(**where)
    monkeypatch.setattr(Server, "check", lambda self, requests: [])
    setting.evaluate(**where)
    assert any("server's prompts are not those" in note for note in setting.results()["notes"])


def interrupt(*_):
    raise KeyboardInterrupt


COUNTING = """
import http.server, json, sys

sys.stdout.write("started\\n")
sys.stdout.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer({"choices": [{"message": {"content": "red"}}]})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@slow
def test_no_server_is_started_where_all_is_answered(setting, tmp_path):
    (tmp_path / "server.py").write_text(COUNTING)
    command = shlex.join([sys.executable, str(tmp_path / "server.py")]) + " {port}"
    where = {"backend": "openai", "serve_command": command}
    setting.evaluate(**where)
    log = setting.run.evaluation / "server.log"
    assert log.read_text().startswith("started")
    log.unlink()
    given = setting.config().evaluation.data["quickstart"].model_dump(mode="json")
    fewer = {"data": {"quickstart": {**given, "limit": 5}}}
    setting.evaluate(**where, **fewer)
    assert setting.results()["num_examples"] == 5
    assert not log.exists()
    setting.evaluate(**where, **fewer, controls=["blind"])
    assert log.exists()


SERVE = shlex.quote(str(Path(sys.executable).with_name("transformers"))) + " serve {model}"
SERVE += " --host 127.0.0.1 --port {port} --device cpu --dtype float32"


def running_servers():
    """The command lines of all processes that serve a model."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            words = path.read_bytes().decode(errors="replace").split("\0")
            if "serve" in words:
                found.add(" ".join(words))
    return found


@slow
def test_a_server_is_started_for_the_evaluation_and_ended_with_it(setting, tmp_path, monkeypatch):
    setting.evaluate()
    here = [line["text"] for line in setting.lines()]
    other = Setting(setting.model_dir, setting.data_dir, tmp_path / "other")
    config = other.config(backend="openai", serve_command=SERVE)
    tree = config.model_dump(mode="json")
    tree["model"]["template"] = "processor"
    seen, complete = set(), ChatApi.complete

    def look(self, body):
        seen.update(running_servers())
        return complete(self, body)

    monkeypatch.setattr(ChatApi, "complete", look)
    evaluate(Config.model_validate(tree), other.run, force=False)
    assert len(other.lines()) == len(here) == 12
    assert other.results()["provenance"]["backend"] == "openai"
    log = (other.run.evaluation / "server.log").read_text()
    (port,) = re.findall(r"Uvicorn running on http://127\.0\.0\.1:(\d+)", log)
    (started,) = [words for words in seen if f"--port {port} " in words]
    assert started not in running_servers()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serve_command": "serve {model}"}, r"no \{port\} in it"),
        ({"serve_command": "serve '{port}"}, "No closing quotation"),
        pytest.param(
            {"serve_command": "nosuchserver {port}"},
            "nosuchserver: No such file or directory; is",
            marks=slow,
        ),
        ({"serve_command": "s {port}", "base_url": "http://x/v1"}, "set one of them"),
    ],
)
def test_a_command_that_cannot_start_is_named(setting, changes, message):
    with pytest.raises(ConfigError, match=message):
        setting.evaluate(backend="openai", **changes)
    assert not setting.run.benchmark("quickstart").exists()


@slow
def test_a_server_that_ends_at_once_shows_its_last_lines(setting):
    command = f"{shlex.quote(sys.executable)} -c \"import sys; sys.exit('no device {{port}}')\""
    with pytest.raises(
        UserError, match=r"exit code 1 before it answered; .*\n(.*\n)*no device \d+"
    ):
        setting.evaluate(backend="openai", serve_command=command)


def test_language_benchmarks_are_not_asked_of_a_server(setting):
    with pytest.raises(ConfigError, match=r"asks no language benchmark \(mmlu\)"):
        setting.evaluate(benchmarks=("quickstart", "mmlu"), backend="openai")

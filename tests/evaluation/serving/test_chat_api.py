"""What an address may reply, and what a key and an address may be."""

import json

import pytest

from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.judge.api import ApiJudge
from prism_tune.evaluation.serving.chat_api import ChatApi


def reply(content):
    message = {"choices": [{"message": {"content": content}}], "model": "m-1"}
    body = json.dumps(message).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("content", "score"),
    [
        ([{"type": "text", "text": "1.0"}], 1.0),
        ([{"type": "text", "text": "0."}, {"type": "text", "text": "4"}], 0.4),
        ([{"type": "thinking", "thinking": "0.9?"}, {"type": "text", "text": "0.2"}], 0.2),
    ],
)
def test_an_answer_in_parts_is_their_text(server, content, score):
    server.replies = [reply(content)]
    grade = ApiJudge(server.url, "m").grade("P")
    assert grade.score == score
    assert len(server.requests) == 1


def test_a_server_on_this_machine_is_asked_without_the_proxy(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.replies = [reply("yes")]
    assert ChatApi(server.url, "m").complete({})[0] == "yes"


@pytest.mark.parametrize("content", [None, "", []])
def test_an_empty_answer_is_empty(server, content):
    server.replies = [reply(content)]
    assert ChatApi(server.url, "m").complete({})[:2] == ("", "m-1")


@pytest.mark.parametrize(
    "content",
    [
        0,
        1.0,
        {"text": "1.0"},
        [{"type": "refusal", "refusal": "no"}],
        [{"type": "text", "text": 1.0}],
        ["1.0"],
    ],
)
def test_an_answer_that_is_no_text_is_refused(server, content):
    server.replies = [reply(content)]
    with pytest.raises(UserError, match=r"content as text or a list with text parts, found ") as e:
        ApiJudge(server.url, "m").grade("P")
    assert str(e.value).startswith(f"{server.url}/chat/completions: expected ")
    assert str(e.value).endswith(f"found {content}")
    assert len(server.requests) == 1


BROKEN = b"HTTP/1.1 %d x\r\nContent-Length: 1000\r\n\r\noverloaded sk-secret"


def test_a_busy_server_whose_words_break_off_is_asked_again(server):
    server.replies = [BROKEN % 503, reply("0.3")]
    pauses = []
    assert ApiJudge(server.url, "m", pause=pauses.append).grade("P").score == 0.3
    assert pauses == [1]


def test_a_refusal_whose_words_break_off_is_said_as_far_as_it_came(server):
    server.replies = [BROKEN % 400]
    with pytest.raises(UserError, match=r"completions: status 400: overloaded \*\*\*$"):
        ApiJudge(server.url, "m").grade("P")


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret\r\n", " sk-secret\t"])
def test_white_space_around_the_key_is_not_sent(server, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.replies = [reply("0.5")]
    assert ApiJudge(server.url, "m").grade("P").score == 0.5
    assert "Authorization: Bearer sk-secret" in server.requests[0]


@pytest.mark.parametrize(
    "key", ["sk-\nsecret", "sk-secret\u20ac", "\u201csk-secret\u201d", "sk-\x01secret"]
)
def test_a_key_that_no_header_takes_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match=r"^OPENAI_API_KEY: ") as caught:
        ChatApi("http://127.0.0.1:1/v1", "m")
    assert "sk-" not in str(caught.value)
    assert "secret" not in repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a..b/v1", "'a..b' is no host name: a part between its dots is empty, longer than"),
        ("http://a%2e%2eb/v1", "'a..b' is no host name"),
        (f"http://{'a' * 64}.com/v1", r"'a{64}\.com' is no host name"),
        ("http://h/\u00e9/v1", "found '\u00e9' in the address; expected http"),
        ("http://h/x y/v1", "found ' ' in the address"),
        ("http://h/v1\nx", r"found '\\n' in the address"),
        ("http://h\nx/v1", r"found '\\n' in the address"),
        ("http://a b/v1", "'a b' is no host name"),
    ],
)
def test_an_address_that_no_request_can_name_is_refused(url, message):
    with pytest.raises(ConfigError, match=rf"^evaluation\.base_url: {message}"):
        ChatApi(url, "m", option="evaluation.base_url")


def test_addresses_that_can_be_asked_are_taken():
    ChatApi("http://b\u00fccher.example/v1", "m")
    ChatApi("http://[::1]:8000/v1", "m")
    ChatApi(" http://host.:8000/v1/%C3%A9\n", "m")

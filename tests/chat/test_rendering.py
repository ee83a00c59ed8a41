"""A chat template that came with a model cannot hold a run up, whatever is written in it."""

from __future__ import annotations

import signal
import threading

import pytest
from support.tiny import CHAT_TEMPLATE, build_processor, build_tokenizer

from prism_tune.chat import rendering
from prism_tune.chat.templates import apply_chat
from prism_tune.errors import UserError

LOOP = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}"
    "{% endfor %}{% endfor %}"
)
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]


def speak(template):
    processor = build_processor(build_tokenizer())
    processor.chat_template = processor.tokenizer.chat_template = template
    return apply_chat(MESSAGES, processor, is_prompt=True)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (LOOP, "did not end within 0.2 seconds"),
        ("{% for a in range(200000) %}{% endfor %}", "Range too big"),
        ("{{ 'x' * 2000 }}", "writes 2,000 characters"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[7].role }}", "refuses a conversation"),
        ("{{ messages.pop() }}", "refuses a conversation"),
        ("{{ ''.__class__.__mro__ }}", "refuses a conversation"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "refuses a conversation"),
        ("{% for", "refuses a conversation"),
        ("{{ raise_exception('no system lines') }}", "no system lines"),
    ],
)
def test_faults_of_a_template(template, says, monkeypatch):
    if template is LOOP:
        monkeypatch.setattr(rendering, "SECONDS", 0.2)
    monkeypatch.setattr(rendering, "CHARACTERS", 1000)
    with pytest.raises(UserError, match=says):
        speak(template)


def test_a_loop_ends_in_a_thread_as_well(monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    said = []

    def work():
        with pytest.raises(UserError) as caught:
            speak(LOOP)
        said.append(str(caught.value))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=60)
    assert said
    assert "did not end within 0.2 seconds" in said[0]


def test_the_day_that_a_template_asks_for_is_always_the_same():
    mistral = '{%- set today = strftime_now("%Y-%m-%d") %}\n{{ "It is " + today + "." }}'
    llama = (
        "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}"
        "{% for m in messages %}{{ day }}: {{ strftime_now(format='%-d %B, %H:%M') }}{% endfor %}"
    )
    assert speak(mistral) == "It is 2024-07-26."
    assert speak(llama) == "26 Jul 2024: 26 July, 00:00"
    assert speak({"default": mistral, "tool": "{{ 1 / 0 }}"}) == "It is 2024-07-26."


def test_a_template_that_asks_for_the_day_is_otherwise_written_as_it_is():
    text = "\n  {% if true %}\n  {{ strftime_now('%Y') }}\n  {% endif %}\n"
    assert speak(text) == speak(text.replace("strftime_now('%Y')", "2024"))


def test_somebody_elses_alarm_is_put_back():
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    mine = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        assert "What is it?" in speak(CHAT_TEMPLATE)
        assert signal.getsignal(signal.SIGALRM) is mine
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""`prism-tune chat`: the prompt of each question is what training would have written."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.cli.chat import open_chat
from prism_tune.config.sections import Config
from prism_tune.evaluation.decoding.prompts import Answer
from prism_tune.evaluation.generate import Decoder
from prism_tune.run.stage import Stage


@pytest.fixture
def asked(monkeypatch):
    """Every request, answered by its number."""
    requests = []

    def answer(self, given, *, max_new_tokens):
        requests.extend(given)
        yield {request: Answer(f"answer {len(requests)}", 2, True) for request in given}

    monkeypatch.setattr(Decoder, "answer", answer)
    return requests


def test_a_conversation_goes_on_with_its_images(tiny_llava_dir, drawn_pool, asked):
    first, second = (drawn_pool.parent / "images" / f"{n}.png" for n in (0, 1))
    missing = ["/image gone.png", "/image ~nobody-of-that-name/1.png"]
    lines = ["what is it?", f"/image {second}", *missing, "and this?", "/new", "hi"]
    given = ["chat", str(tiny_llava_dir), "--image", str(first)]
    result = CliRunner().invoke(app, given, input="\n".join([*lines, "/quit", "never"]))
    assert result.exception is None
    assert "gone.png: no such file" in result.output
    assert "~nobody-of-that-name/1.png: no such file" in result.output
    assert [request.images for request in asked] == [(first,), (first, second), ()]
    one, two, three = (request.prompt for request in asked)
    assert two.startswith(one)
    assert "answer 1" in two
    assert two.count("<image>") == 2
    assert "answer" not in three
    assert [line for line in result.stdout.splitlines() if line.startswith("answer")] == [
        "answer 1",
        "answer 2",
        "answer 3",
    ]


def test_what_cannot_be_shown_spoils_no_conversation(tiny_llava_dir, drawn_pool, tmp_path):
    """A file that is no picture is shown no longer; what is typed is text alone."""
    (tmp_path / "notes.txt").write_text("none")
    picture = drawn_pool.parent / "images" / "0.png"
    lines = [
        f"/image {tmp_path / 'notes.txt'}",
        "what?",
        f"/image {picture}",
        "and <image>?",
        "so?",
    ]
    given = ["chat", str(tiny_llava_dir), "--max-new-tokens", "1"]
    result = CliRunner().invoke(app, given, input="\n".join(lines))
    assert result.exception is None
    told = [line for line in result.stderr.splitlines() if "error: " in line]
    assert len(told) == 2
    assert "notes.txt: cannot be read as an image" in told[0]
    assert "<image> stands for a picture: show it by /image FILE" in told[1]


def test_a_model_answers_greedily(tiny_llava_dir, drawn_pool):
    talk = open_chat(tiny_llava_dir, max_new_tokens=3)
    talk.show(drawn_pool.parent / "images" / "0.png")
    said = [talk.ask("what is it?"), talk.ask("sure?")]
    talk.begin()
    talk.show(drawn_pool.parent / "images" / "0.png")
    assert [talk.ask("what is it?"), talk.ask("sure?")] == said


def test_a_runs_model_answers_where_its_attention_cannot(tiny_llava_dir, drawn_pool, tmp_path):
    """What was tuned on a GPU with flash-attn."""
    model = {"path": str(tiny_llava_dir), "attn_implementation": "flash_attention_2"}
    data = {"records": str(drawn_pool), "image_dir": str(drawn_pool.parent / "images")}
    tree = {"name": "run", "model": model, "data": data, "training": {"tuning": "none"}}
    Stage(tmp_path / "selection").finish({}, config=Config.model_validate(tree))
    assert open_chat(tmp_path, max_new_tokens=1).ask("what is it?")

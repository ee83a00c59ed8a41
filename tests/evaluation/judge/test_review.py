"""LLaVA-Bench's judge: what it is sent, what becomes of its words, how a stopped one goes on."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import UserError
from prism_tune.evaluation.judge import local
from prism_tune.evaluation.judge.review_prompt import Review, read_rules

RULE = {"llava_bench_conv": {"role": "Assistant", "prompt": "Rate them."}}
MESSAGE = (
    "[Context]\nA beach.\nTwo palms.\n\n[Question]\nWhat is it?\n\n"
    "[Assistant 1]\nHawaii.\n\n[End of Assistant 1]\n\n"
    "[Assistant 2]\nAn island.\n\n[End of Assistant 2]\n\n[System]\nRate them.\n\n"
)


@pytest.fixture
def files(tmp_path):
    questions = [
        {"question_id": n, "image": "001.jpg", "text": text, "category": "conv"}
        for n, text in enumerate(["What is it?", "Who?"])
    ]
    lines = {
        "questions.jsonl": questions,
        "context.jsonl": [{"id": "001", "image": "001.jpg", "caption": ["A beach.", "Two palms."]}],
        "answers_gpt4.jsonl": [{"question_id": n, "text": "Hawaii."} for n in (0, 1)],
        "answers.jsonl": [
            {"question_id": n, "text": t, "answer_id": f"a{n}"}
            for n, t in enumerate(["An island.", "Nobody."])
        ],
    }
    for name, records in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "rule.json").write_text(json.dumps(RULE))
    return tmp_path


def run(files, *more):
    command = ["judge", "llava_bench", "--predictions", files / "answers.jsonl", "--annotations"]
    command += [files, "--judge-prompt", files / "rule.json", *more]
    return CliRunner().invoke(app, list(map(str, command)), env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("content", "pair"),
    [
        ("8 9\nBecause", (8, 9)),
        ("8.5,7", (8.5, 7)),
        ("8, 9", (-1, -1)),  # two spaces: three words to the official script
        ("Scores: 8 9", (-1, -1)),
        ("eight nine", (-1, -1)),
        ("8", (-1, -1)),
        ("", (-1, -1)),
    ],
)
def test_the_pair_is_read_as_the_official_script_does(content, pair):
    assert Review(content, "m").pair == pair


def test_reviews_are_sent_stored_and_scored_by_the_official_protocol(server, files):
    server.replies = [(200, "8 6\nok"), (200, "10 8"), (200, "8 4"), (200, "no")]
    done = run(files, "--model", "gpt-x", "--base-url", server.url, "--runs", "2")
    assert done.exit_code == 0, done.output
    assert "4 calls to gpt-x" in done.output
    assert server.requests[0] == {
        "model": "gpt-x",
        "messages": [
            {"role": "system", "content": "You are a helpful and precise assistant for checking "
             "the quality of the answer."},
            {"role": "user", "content": MESSAGE},
        ],
        "temperature": 0.2,
        "max_tokens": 1024,
    }  # fmt: skip
    first, second = (files / f"llava_bench_gpt-x-review-{n}.jsonl" for n in (1, 2))
    assert json.loads(first.read_text().splitlines()[0]) == {
        "id": 1, "question_id": 0, "answer1_id": "0", "answer2_id": "a0",
        "category": "llava_bench_conv", "content": "8 6\nok", "tuple": [8.0, 6.0],
        "judge": "gpt-x-1",
    }  # fmt: skip
    command = ["score", "llava_bench", "--json", "--predictions", first, "--predictions", second]
    scored = json.loads(CliRunner().invoke(app, list(map(str, command))).stdout)
    assert scored["metrics"]["score"] == pytest.approx((100 * 14 / 18 + 100 * 3 / 7) / 2)
    assert scored["provenance"]["judge"] == "gpt-x-1"


def test_a_stopped_reviewing_goes_on_and_other_inputs_are_refused(server, files):
    server.replies = [(200, "8 6"), (403, "no")]
    stopped = run(files, "--model", "gpt-x", "--base-url", server.url)
    assert "status 403" in str(stopped.exception)
    server.replies = [(200, "9 9")]
    assert run(files, "--model", "gpt-x", "--base-url", server.url).exit_code == 0
    assert [request["messages"][1]["content"] == MESSAGE for request in server.requests] == [
        True, False, False,
    ]  # fmt: skip
    (files / "rule.json").write_text(json.dumps({"llava_bench_conv": {"role": "A", "prompt": ""}}))
    refused = run(files, "--model", "gpt-x", "--base-url", server.url)
    assert "made with other inputs (prompts, table)" in str(refused.exception)


def test_a_review_without_two_grades_is_asked_for_again_and_keeps_its_place(server, files):
    server.replies = [(200, "I cannot compare them."), (200, "9 9")]
    first = run(files, "--model", "gpt-x", "--base-url", server.url)
    assert "1 review(s) without two grades" in " ".join(first.output.split())
    server.replies = [(200, "8 4")]
    again = run(files, "--model", "gpt-x", "--base-url", server.url)
    assert "1 calls to gpt-x" in again.output
    assert [request["messages"][1]["content"] == MESSAGE for request in server.requests] == [
        True, False, True,
    ]  # fmt: skip
    lines = (files / "llava_bench_gpt-x-review-1.jsonl").read_text().splitlines()
    reviews = [json.loads(line) for line in lines]
    assert [(r["question_id"], r["tuple"]) for r in reviews] == [(0, [8, 4]), (1, [9, 9])]
    assert not server.replies
    assert "0 calls" in run(files, "--model", "gpt-x", "--base-url", server.url).output


def test_a_local_judge_is_greedy_whatever_its_checkpoint_suggests(
    language_model, monkeypatch, tmp_path
):
    monkeypatch.setattr(local, "REVIEW_NEW_TOKENS", 24)
    plain = local.LocalJudge(str(language_model), dtype="float32").review("Which is better?")
    shutil.copytree(language_model, tmp_path / "judge")
    path = tmp_path / "judge" / "generation_config.json"
    settings = json.loads(path.read_text())
    settings |= {"repetition_penalty": 50.0, "no_repeat_ngram_size": 1, "temperature": 0.5}
    path.write_text(json.dumps({**settings, "do_sample": True}))
    judge = local.LocalJudge(str(tmp_path / "judge"), dtype="float32")
    assert judge.review("Which is better?").content == plain.content


def test_a_local_judge(files, language_model, monkeypatch):
    monkeypatch.setattr(local, "REVIEW_NEW_TOKENS", 4)
    done = run(files, "--model", language_model)
    assert "not one of its 2 reviews has two grades" in str(done.exception)  # a random model's
    (path,) = files.glob("llava_bench_*-review-1.jsonl")
    reviews = [json.loads(line) for line in path.read_text().splitlines()]
    assert {review["judge"] for review in reviews} == {f"{language_model} (local)"}


def test_files_that_lack_something_are_named(files):
    (files / "answers_gpt4.jsonl").unlink()
    assert "no answers_gpt4.jsonl" in str(run(files, "--model", "x", "--dry-run").exception)
    with pytest.raises(UserError, match=r"expected rules named llava_bench_"):
        read_rules(files / "context.jsonl")

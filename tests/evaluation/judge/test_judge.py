"""The judge against a small server on this machine, and a tiny local model."""

import json
import warnings

import pytest
import torch
from support.tiny import build_tokenizer
from transformers import LlamaForCausalLM
from transformers.cache_utils import DynamicLayer
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.benchmarks.grades import Grade, parse_score
from prism_tune.evaluation.judge.api import ApiJudge
from prism_tune.evaluation.judge.judge import describe_cost, grade, plan_grading
from prism_tune.evaluation.judge.local import SCORES, LocalJudge
from prism_tune.evaluation.judge.prompt import JudgePrompt, read_judge_prompt

TABLE = (
    "Give a score.\n\nQuestion | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n"
    + "".join(f"q{n} | g | p | 0.{n}\n" for n in range(7))
)
ENTRY = {"imagename": "i.jpg", "imagesource": "s", "capability": ["rec"]}
QUESTIONS = {
    "v1_0": {"question": "What is x?", "answer": "-1<AND>-5", **ENTRY},
    "v1_1": {"question": "Who?", "answer": "Anna<OR>Bob", **ENTRY},
}
ANSWERS = {"v1_0": "x = -1", "v1_1": "It is\nBob."}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "mm-vet.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "answers.json").write_text(json.dumps(ANSWERS))
    (tmp_path / "prompt.txt").write_text(TABLE)
    return tmp_path


def plan(files, answers="answers.json", **options):
    settings = {"judge_name": "gpt-x", "num_runs": 1, "path": None, **options}
    prompt = read_judge_prompt(files / "prompt.txt")
    return plan_grading(files / answers, files / "mm-vet.json", prompt, **settings)


def test_the_message_is_the_table_and_a_row_without_its_last_cell():
    sent = JudgePrompt("TABLE\n").render("What is x?", "-1<AND>-5<OR>3", "x = -1")
    assert sent == "TABLE\n\nWhat is x? | -1 <AND> -5 <OR> 3 | x = -1 | "


def test_the_prompt_is_read_from_the_official_files_without_running_them(tmp_path):
    code = f'import nowhere\nprompt = """{TABLE}"""\nraise SystemExit\n'
    (tmp_path / "mm-vet_evaluator.py").write_text(code)
    cells = [{"cell_type": "markdown", "source": []}, {"cell_type": "code", "source": [code]}]
    (tmp_path / "mm-vet_evaluator.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "prompt.txt").write_text(TABLE)
    for name in ("mm-vet_evaluator.py", "mm-vet_evaluator.ipynb", "prompt.txt"):
        assert read_judge_prompt(tmp_path / name).table == TABLE
    (tmp_path / "short.txt").write_text(TABLE.replace("q6 | g | p | 0.6\n", ""))
    with pytest.raises(UserError, match="7 example rows, found 6"):
        read_judge_prompt(tmp_path / "short.txt")
    with pytest.raises(UserError, match=r"none.py: no such file.*mm-vet_evaluator.py"):
        read_judge_prompt(tmp_path / "none.py")


def test_grades_are_in_the_official_format_and_scored(server, files):
    server.replies = [(200, "0.5"), (200, "1.0 |"), (200, "0.4"), (200, "0.9")]
    result = grade(plan(files, num_runs=2), ApiJudge(server.url, "gpt-x"))
    assert json.loads((files / "mmvet_gpt-x-grade.json").read_text()) == {
        "v1_0": {"model": ["gpt-x-1"] * 2, "content": ["0.5", "0.4"], "score": [0.5, 0.4]},
        "v1_1": {"model": ["gpt-x-1"] * 2, "content": ["1.0 |", "0.9"], "score": [1.0, 0.9]},
    }
    assert result.metrics["score"] == pytest.approx(70)
    assert result.provenance["score_per_run"] == [pytest.approx(75), pytest.approx(65)]
    assert result.provenance["judge"] == "gpt-x-1"
    assert server.requests[0] == {
        "model": "gpt-x",
        "messages": [{"role": "user", "content": TABLE + "\nWhat is x? | -1 <AND> -5 | x = -1 | "}],
        "temperature": 0.0,
        "max_tokens": 3,
    }
    assert server.keys == ["Bearer sk-secret"] * 4


def test_a_judge_that_gives_no_number_is_asked_again_and_then_gives_zero(server):
    server.replies = [(200, text) for text in ("Well", "2.0", "nan", "0.3")]
    judge = ApiJudge(server.url, "m")
    assert judge.grade("P") == Grade(0.3, "0.3", "gpt-x-1")
    assert [r["temperature"] for r in server.requests] == [0.0, 0.0, 0.5, 1.0]
    again = "P\nPredict the correctness of the answer (digit): "
    assert [r["messages"][0]["content"] for r in server.requests] == ["P", again, again, again]
    server.replies = [(200, "no")] * 5
    assert judge.grade("P").score == 0
    assert [r["temperature"] for r in server.requests[4:]] == [0.0, 0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("content", "score"),
    [("0.5", 0.5), ("1", 1), ("0.7 |", 0.7), ("", None), ("1.1", None), ("-0.1", None),
     ("nan", None), ("score 1", None), ("0.2\n", 0.2)],
)  # fmt: skip
def test_scores_are_the_first_word(content, score):
    assert parse_score(content) == score


def test_a_busy_server_is_asked_again_after_longer_and_longer_pauses(server):
    server.replies = [(429, "slow down"), (503, ""), (200, "0.2")]
    pauses = []
    assert ApiJudge(server.url, "m", pause=pauses.append).grade("P").score == 0.2
    assert pauses == [1, 2]


def test_the_key_is_never_shown(server, caplog):
    server.replies = [(400, "bad key sk-secret")]
    with pytest.raises(UserError, match=r"status 400: bad key \*\*\*"):
        ApiJudge(server.url, "m").grade("P")
    server.replies = [(401, "sk-secret")]
    with pytest.raises(UserError, match="the key in OPENAI_API_KEY was refused") as caught:
        ApiJudge(server.url, "m").grade("P")
    assert "sk-secret" not in str(caught.value)
    server.replies = [(500, "sk-secret")] * 6
    with caplog.at_level("DEBUG"), pytest.raises(UserError, match=r"status 500: \*\*\*, 6 times"):
        ApiJudge(server.url, "m", pause=lambda seconds: None).grade("P")
    assert "sk-secret" not in caplog.text


def test_the_key_does_not_follow_a_redirect(server):
    server.replies = [(307, "elsewhere")]
    with pytest.raises(UserError, match="status 307"):
        ApiJudge(server.url, "m").grade("P")
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", ["[]", "{}", "not JSON"])
def test_what_is_no_chat_completion_is_named(server, monkeypatch, content):
    monkeypatch.setattr(ApiJudge, "_send", lambda self, body: content.encode())
    with pytest.raises(UserError, match=r"127.0.0.1.*expected (a chat completion|JSON)"):
        ApiJudge(server.url, "m").grade("P")


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    ApiJudge(server.url, "m").grade("P")
    assert server.keys == [None]


@pytest.mark.parametrize(
    "url",
    [
        "host/v1",
        "ftp://h",
        "http://key@h/v1",
        "http://h/v1?key=1",
        "http://[::1/v1",
        "http://h:x/v1",
    ],
)
def test_odd_addresses_are_refused(url):
    with pytest.raises(ConfigError, match="--base-url"):
        ApiJudge(url, "m")


def test_a_server_that_is_gone_is_one_clear_message(server):
    server.close()
    pauses = []
    with pytest.raises(UserError, match=r"refused.*6 times; the same command goes on"):
        ApiJudge(server.url, "m", pause=pauses.append).grade("P")
    assert pauses == [1, 2, 4, 8, 16]


def test_a_stopped_grading_goes_on_with_the_next_answer(server, files):
    server.replies = [(200, "0.5"), (400, "over")]
    with pytest.raises(UserError, match="over"):
        grade(plan(files), ApiJudge(server.url, "gpt-x"))
    resumed = plan(files)
    assert resumed.count_calls() == 1
    server.replies = [(200, "0.1")]
    assert grade(resumed, ApiJudge(server.url, "gpt-x")).metrics["score"] == pytest.approx(30)
    assert len(server.requests) == 3
    assert plan(files, num_runs=3).count_calls() == 4


def test_grades_of_other_answers_are_not_mixed(server, files):
    grade(plan(files), ApiJudge(server.url, "gpt-x"))
    path = files / "mmvet_gpt-x-grade.json"
    with pytest.raises(UserError, match=r"made with other inputs \(judge\)"):
        plan(files, judge_name="gpt-y", path=path)
    (files / "answers.json").write_text(json.dumps({**ANSWERS, "v1_0": "x = 3"}))
    with pytest.raises(UserError, match=r"made with other inputs \(prompts\)"):
        plan(files)
    path.with_suffix(".judge.json").unlink()
    (files / "answers.json").write_text(json.dumps(ANSWERS))
    with pytest.raises(UserError, match="made with other inputs"):
        plan(files)


def test_an_answer_whose_grade_has_no_number_is_named_and_asked_again(server, files):
    server.replies = [(200, "<think>")] * 5 + [(200, "1.0")]
    result = grade(plan(files), ApiJudge(server.url, "gpt-x"))
    assert result.metrics["score"] == 50
    (note,) = [note for note in result.notes if "has no number" in note]
    assert note.startswith("1 answer(s)")
    assert note.endswith(": v1_0")
    assert plan(files).count_calls() == 1
    server.replies = [(200, "0.5")]
    result = grade(plan(files), ApiJudge(server.url, "gpt-x"))
    assert result.metrics["score"] == 75
    assert not any("has no number" in note for note in result.notes)
    assert len(server.requests) == 7
    grades = json.loads((files / "mmvet_gpt-x-grade.json").read_text())
    assert grades["v1_0"] == {"model": ["gpt-x-1"], "content": ["0.5"], "score": [0.5]}


def test_a_judge_that_never_gives_a_number_has_given_no_score(server, files):
    server.replies = [(200, "<think>")] * 10
    with pytest.raises(UserError, match="not one of its 2 grades has a number"):
        grade(plan(files), ApiJudge(server.url, "gpt-x"))


def test_a_missing_answer_is_not_sent_and_counts_zero(server, files):
    (files / "answers.json").write_text(json.dumps({"v1_1": "Bob"}))
    result = grade(plan(files), ApiJudge(server.url, "gpt-x"))
    assert len(server.requests) == 1
    assert result.metrics["score"] == pytest.approx(50)
    assert "1 question(s) without a grade: v1_0" in result.notes


def write_evaluation(files, ids, **changes):
    """What `evaluate` leaves of some questions, with the answers of a control."""
    before = {
        "benchmark": "mmvet", "metrics": {"score_rule": 10, "score_rule_blind": 5},
        "num_examples": len(ids), "num_missing": 0, "profile": "llava15",
        "provenance": {"judge": "rule", "template": "vicuna_v1", "controls": ["blind"]},
        "per_question": dict.fromkeys(ids, 0.1),
        "notes": ["rule score: not comparable with a judge's", "1 answer(s) were cut off"],
        **changes,
    }  # fmt: skip
    (files / "results.json").write_text(json.dumps(before))
    for name in ("predictions.jsonl", "predictions.blind.jsonl"):
        lines = [{"question_id": key, "text": ANSWERS[key]} for key in ids]
        (files / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_results_beside_the_answers_take_the_judges_score(server, files):
    write_evaluation(files, list(QUESTIONS))
    grade(plan(files, answers="predictions.jsonl"), ApiJudge(server.url, "gpt-x"))
    after = json.loads((files / "results.json").read_text())
    assert after["metrics"]["score"] == 100
    assert "score_rule" not in after["metrics"]
    assert after["metrics"]["score_rule_blind"] == 5
    assert after["provenance"]["judge"] == "gpt-x-1"
    assert after["provenance"]["template"] == "vicuna_v1"
    assert after["provenance"]["grades"]["path"].endswith("mmvet_gpt-x-grade.json")
    assert "1 answer(s) were cut off" in after["notes"]
    assert not any("rule score" in note for note in after["notes"])


def test_a_limited_evaluation_is_scored_over_what_it_asked(server, files):
    write_evaluation(files, ["v1_0"])
    result = grade(plan(files, answers="predictions.jsonl"), ApiJudge(server.url, "gpt-x"))
    assert result.metrics["score"] == 100
    after = json.loads((files / "results.json").read_text())
    assert (after["metrics"]["score"], after["num_examples"]) == (100, 1)
    assert after["per_question"] == {"v1_0": 1}


@pytest.mark.parametrize("answers", ["predictions.blind.jsonl", "answers.json"])
def test_other_answers_change_no_results(server, files, answers):
    """A control's, or somebody's, that lie in the folder of an evaluation."""
    write_evaluation(files, list(QUESTIONS))
    before = (files / "results.json").read_bytes()
    grade(plan(files, answers=answers), ApiJudge(server.url, "gpt-x"))
    assert (files / "results.json").read_bytes() == before


def test_the_estimate(files):
    grading = plan(files, num_runs=5)
    num_tokens = round(10 * sum(map(len, grading.prompts.values())) / 2 / 4)
    assert describe_cost(grading, 10, max_new_tokens=3, price=30.0) == (
        f"10 calls to gpt-x, about {num_tokens:,} prompt tokens (4 characters each) and at most "
        f"30 new ones, about {num_tokens * 30 / 1e6:.2f} at 30 a million"
    )
    assert "a million" not in describe_cost(grading, 10, max_new_tokens=3, price=None)


def run(files, *more):
    options = [
        "--predictions", files / "answers.json", "--annotations", files / "mm-vet.json",
        "--judge-prompt", files / "prompt.txt", *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, ["judge", "mmvet", *map(str, options)])


def test_the_command_estimates_and_grades(server, files):
    dry = run(files, "--base-url", server.url, "--model", "gpt-x", "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.startswith("2 calls to gpt-x, about")
    assert server.requests == []
    graded = run(files, "--base-url", server.url, "--model", "gpt-x", "--output", files / "g.json")
    assert graded.exit_code == 0
    assert "100.00" in graded.stdout
    assert set(json.loads((files / "g.json").read_text())) == {"v1_0", "v1_1"}


@pytest.mark.parametrize("has_states", [False, True])
def test_local_likelihoods_are_those_of_each_text_by_itself(
    language_model, has_states, monkeypatch
):
    """Also of a model whose layers keep a state, which no row can be given a copy of."""
    judge = LocalJudge(str(language_model), dtype="float32")
    if has_states:
        monkeypatch.delattr(DynamicLayer, "batch_repeat_interleave")
    model = LlamaForCausalLM.from_pretrained(language_model).eval()
    tokenizer = build_tokenizer()
    totals = []
    for score in SCORES:
        ids = torch.tensor([tokenizer(f"{TABLE}\nq | g | p | {score:.1f}").input_ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        totals.append(logits.gather(1, ids[0, 1:, None]).sum())
    expected = torch.stack(totals).softmax(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an argument's old name
        found = judge.log_likelihoods(TABLE + "\nq | g | p | ").softmax(0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_local_grades_are_the_expectation_or_the_likeliest(language_model):
    expected = LocalJudge(str(language_model), dtype="float32")
    probabilities = expected.log_likelihoods(TABLE).softmax(0)
    mean = sum(float(p) * s for p, s in zip(probabilities, SCORES, strict=True))
    assert expected.grade(TABLE).score == pytest.approx(mean, abs=1e-6)
    argmax = LocalJudge(str(language_model), readout="argmax", dtype="float32")
    assert argmax.grade(TABLE).score == SCORES[int(probabilities.argmax())]
    assert argmax.grade(TABLE).model == f"{language_model} (local, argmax)"


def test_the_command_with_a_local_judge(language_model, files):
    graded = run(files, "--model", language_model, "--output", files / "g.json")
    assert graded.exit_code == 0, graded.output
    judged = json.loads((files / "g.json").read_text())
    assert judged["v1_0"]["model"] == [f"{language_model} (local, expected)"]


def test_local_settings_that_make_no_sense_are_refused(files):
    refused = run(files, "--model", "nowhere", "--runs", "2")
    assert isinstance(refused.exception, ConfigError)
    assert "a local judge always gives the same grades" in str(refused.exception)
    refused = run(files, "--model", "nowhere", "--readout", "median")
    assert refused.exit_code == 2
    assert "'median' is not one of" in refused.output


def test_no_such_local_model(tmp_path):
    with pytest.raises(UserError, match=r"--model: .* give --base-url as well"):
        LocalJudge(str(tmp_path))

"""Benchmarks by config alone: a file, a named metric, a column in the tables."""

import json

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.benchmarks.custom import RULES, make_benchmark

OPTIONS = {"A": "cat", "B": "dog"}


@pytest.mark.parametrize(
    ("metric", "answer", "references", "credit"),
    [
        ("exact", " Red. ", ["red"], 1),
        ("exact", "red car", ["red"], 0),
        ("exact", "crimson", ["red", "Crimson"], 1),
        ("ten_answers", "Two", ["2"] * 2 + ["x"] * 8, 0.6),
        ("letter", "B", ["B"], 1),
        ("letter", "(B) dog", ["B"], 1),
        ("letter", "a dog", ["B"], 1),
        ("letter", "b", ["B"], 0),
        ("yes_no", " Yes, it is", ["yes"], 1),
        ("yes_no", "not at all", ["no"], 1),
        ("yes_no", "It is", ["yes"], 0),
        ("contains", "There is a red cup.", ["Red Cup"], 1),
        ("contains", "There is a red cupboard.", ["red cup"], 0),
        ("number", "It costs 1,250.50 dollars", ["1250.5"], 1),
        ("number", "between 3 and -4", ["-4"], 1),
        ("number", "three", ["3"], 0),
        ("number", "10-15", ["15"], 1),
        ("number", "about 14-15 people", ["15"], 1),
        ("number", "x=-5", ["-5"], 1),
        ("number", "2,5", ["25"], 0),
        ("number", "4 .", ["4.0"], 1),
    ],
)
def test_metrics(metric, answer, references, credit):
    assert RULES[metric].credit(answer, references, OPTIONS) == pytest.approx(credit)


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_prompts(tmp_path):
    record = {"question": "Which?", "choices": ["cat", 2], "answer": "2", "image": "1.png"}
    (letter,) = make_benchmark("mine", "letter").load_questions(
        write(tmp_path / "q.jsonl", record), "llava15"
    )
    assert letter.text == (
        "Which?\nA. cat\nB. 2\nAnswer with the option's letter from the given choices directly."
    )
    assert (letter.question_id, letter.reference, letter.images) == (1, ["B"], ("1.png",))
    text_only = {"question_id": "q7", "question": "How many?", "answer": 3}
    own = make_benchmark("mine", "number", instruction="Be brief.", max_new_tokens=7)
    (question,) = own.load_questions(write(tmp_path / "q.jsonl", text_only), "lmms_eval")
    assert (question.text, question.images) == ("How many?\nBe brief.", ())
    assert own.max_new_tokens["llava15"] == 7


@pytest.mark.parametrize(
    ("metric", "record", "message"),
    [
        ("exact", {"question": "q"}, r"line 1: no key 'answer'"),
        ("exact", {"question": "q", "answer": "A", "choices": ["x"]}, "only for metric letter"),
        ("letter", {"question": "q", "answer": "A"}, "choices: expected a list of texts"),
        ("letter", {"question": "q", "answer": "C", "choices": ["x", "y"]}, r"option \(A, B\)"),
        ("ten_answers", {"question": "q", "answer": ["x"] * 9}, "expected 10 answers, found 9"),
        ("yes_no", {"question": "q", "answer": "maybe"}, "expected yes or no, found 'maybe'"),
        ("number", {"question": "q", "answer": "few"}, "expected a number, found 'few'"),
        ("number", {"question": "q", "answer": "3/4"}, "expected a number, found '3/4'"),
        ("number", {"question": "q", "answer": "10:30"}, "expected a number, found '10:30'"),
        ("number", {"question": "q", "answer": "12 cm2"}, "expected a number, found '12 cm2'"),
        ("contains", {"question": "q", "answer": "A"}, "words that can be looked for.*found 'A'"),
        ("letter", {"question": "q", "answer": "A", "choices": ["B", "A"]}, "option B or A"),
        ("letter", {"question": "q", "answer": "x", "choices": ["x", "y", "x"]}, "option A or C"),
    ],
)
def test_records_that_do_not_fit_are_named(tmp_path, metric, record, message):
    with pytest.raises(UserError, match=message):
        make_benchmark("mine", metric).load_questions(write(tmp_path / "q", record), "llava15")


@pytest.mark.parametrize(
    "ids", [{"question_id": "q"}, {"question_id": "1"}], ids=["its own", "another's number"]
)
def test_ids_that_repeat_are_refused_before_anything_is_asked(tmp_path, ids):
    record = {"question": "q", "answer": "a"}
    first = {**record, **ids} if ids["question_id"] == "q" else record
    path = write(tmp_path / "q", first, record | {"question": "r"}, {**record, **ids})
    told = rf"line 3: question_id '{ids['question_id']}', as of {path}, line 1; expected one of"
    with pytest.raises(UserError, match=told):
        make_benchmark("mine", "exact").load_questions(path, "llava15")


def test_score_by_the_command(tmp_path):
    records = [{"question": f"{n}?", "answer": f"a{n}", "category": "x y"} for n in (1, 2)]
    questions = write(tmp_path / "q.jsonl", *records)
    answers = write(tmp_path / "a.jsonl", {"question_id": 1, "text": "A1."})
    command = ["score", "mine", "--metric", "exact", "--json", "--predictions", str(answers)]
    run = CliRunner().invoke(app, [*command, "--annotations", str(questions)])
    result = json.loads(run.stdout)
    assert result["metrics"] == {"accuracy": 50, "accuracy_x_y": 50}
    assert (result["benchmark"], result["provenance"]["metric"]) == ("mine", "exact")
    command[1] = "pope"
    refused = CliRunner().invoke(app, [*command, "--annotations", str(questions)])
    assert "pope: its protocol has no `metric`" in str(refused.exception)
    command = ["score", "mine", "--predictions", str(answers), "--annotations", str(questions)]
    assert "one of your own needs a metric" in str(CliRunner().invoke(app, command).exception)


def test_a_config_alone_makes_a_benchmark(setting):
    """Asked, scored, resumed, and a change of the metric asks nothing anew."""
    path = setting.data_dir / "own.jsonl"
    write(path, *({"question": "what?", "image": f"{n}.png", "answer": "x"} for n in range(2)))
    data = {
        "annotations": str(path), "image_dir": str(setting.data_dir / "images"), "metric": "exact",
        "max_new_tokens": 2,
    }  # fmt: skip
    setting.evaluate(benchmarks=("mine",), data={"mine": data})
    results = setting.results("mine")
    assert results["num_examples"] == 2
    assert results["provenance"]["metric"] == "exact"
    assert results["provenance"]["max_new_tokens"] == 2
    before = setting.lines("mine")
    setting.evaluate(benchmarks=("mine",), data={"mine": {**data, "metric": "contains"}})
    assert setting.results("mine")["provenance"]["metric"] == "contains"
    assert [line["prompt"] for line in before] == [
        "what?\nAnswer the question using a single word or phrase."
    ] * 2
    own = {"annotations": str(setting.data_dir / "test.json"), "instruction": "Be brief."}
    with pytest.raises(ConfigError, match=r"evaluation.data.quickstart.instruction: for bench"):
        setting.evaluate(benchmarks=("quickstart",), data={"quickstart": own})

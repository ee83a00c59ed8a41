import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.errors import UserError
from prism_tune.evaluation.predictions import (
    append_predictions,
    join_predictions,
    read_predictions,
    write_predictions,
)
from prism_tune.schema import Prediction, Question


def question(question_id):
    return Question(question_id=question_id, text="q", images=(), reference="yes")


def answer(question_id, text="yes"):
    return Prediction(question_id=question_id, prompt="q", text=text)


def test_written_answers_read_back_equal_and_append_adds_to_the_end(tmp_path):
    first = Prediction(1, "a\nb", "Yes “quoted”\n", "id", "model", {"k": [1, 2]})
    second = Prediction("category/x.jpg", "", "")
    write_predictions(tmp_path / "answers.jsonl", [first])
    append_predictions(tmp_path / "answers.jsonl", [second])
    assert read_predictions(tmp_path / "answers.jsonl") == [first, second]


def test_llava_files_with_further_keys_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 3, "round_id": 0, "prompt": "p", "text": "A"}\n\n')
    assert read_predictions(path) == [Prediction(3, "p", "A")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"answers.jsonl, line 2: not valid JSON"),
        ("[1]", r"line 2: expected one JSON object a line, found list"),
        ('{"text": "a"}', r"line 2: no key 'question_id'; found text"),
        ('{"question_id": 1, "label": "a"}', r"line 2: no key 'text'"),
        ('{"question_id": 1, "text": [1]}', r"line 2: text: expected text, found \[1\]"),
        ('{"question_id": true, "text": "a"}', r"line 2: question_id: expected text, found True"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 1, "text": "a"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        read_predictions(path)


def test_missing_and_empty_files_are_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no answers in it"):
        read_predictions(tmp_path / "empty.jsonl")


def test_missing_duplicate_and_unknown_ids_are_named_and_never_guessed_over():
    questions = [question(n) for n in range(1, 6)]
    answers = [
        answer("1"), answer(2), answer(2), answer(3, "yes"), answer(3, "no"), answer(77),
    ]  # fmt: skip
    joined = join_predictions(questions, answers)
    assert set(joined.answers) == {"1", "2"}
    assert joined.num_missing == 3
    assert joined.notes == (
        "2 question(s) without an answer, counted as wrong: 4, 5",
        "1 question(s) answered twice differently, no answer taken: 3",
        "1 question(s) answered more than once, the same: 2",
        "1 unknown question id(s), left out: 77",
    )


def test_only_the_first_few_ids_are_named():
    joined = join_predictions([question(n) for n in range(10)], [answer(0)])
    assert joined.notes[0].endswith("1, 2, 3, 4, 5, ...")


def test_an_answer_file_of_another_benchmark_is_an_error():
    with pytest.raises(UserError, match="not one of the 1 answers belongs to a question"):
        join_predictions([question(1)], [answer("other")])


def test_annotations_with_repeated_ids_are_an_error():
    with pytest.raises(UserError, match="question '1' twice"):
        join_predictions([question(1), question("1")], [answer(1)])


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("ab")), min_size=1), st.randoms())
def test_the_order_of_answers_never_matters(pairs, random):
    questions = [question(n) for n in range(6)]
    answers = [answer(0), *(answer(*pair) for pair in pairs)]
    shuffled = random.sample(answers, len(answers))
    before, after = join_predictions(questions, answers), join_predictions(questions, shuffled)
    assert {k: v.text for k, v in before.answers.items()} == {
        k: v.text for k, v in after.answers.items()
    }
    assert before.num_missing == after.num_missing

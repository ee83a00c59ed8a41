"""Questions of several choices: the letter of the choice that a record means is learnt."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError


def open_one(tmp_path, record, **config):
    (tmp_path / "pool.jsonl").write_text(json.dumps(record) + "\n")
    return open_pool(DataConfig(records=str(tmp_path / "pool.jsonl"), **config))


def texts_of(tmp_path, record):
    (turns,) = [item.turns for item in open_one(tmp_path, record)]
    return [turn.text for turn in turns]


def ask(choices, answer, question="q"):
    return {"question": question, "choices": choices, "answer": answer}


XYZ = "q\nA. x\nB. y\nC. z"
XY = "q\nA. x\nB. y"


@pytest.mark.parametrize(
    ("record", "asked", "answer"),
    [
        (ask({"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "1"), XYZ, "A"),
        (ask({"text": ["x", "y", "z"], "label": [1, 2, 3]}, 3), XYZ, "C"),
        (ask({"text": ["x", "y", "z"], "label": ["F", "G", "H"]}, "G"), XYZ, "B"),
        (ask({"label": ["B", "A"], "text": ["x", "y"]}, "B"), XY, "A"),
        (ask({"B": "x", "A": "y"}, "B"), XY, "A"),
        (ask({"1": "x", "2": "y"}, "1"), XY, "A"),
        (ask({"1": "x", "2": "y"}, 2.0), XY, "B"),
        (ask({"0": "x", "1": "y"}, 1), XY, "B"),
        (ask({"(A)": "x", "(B)": "y"}, "(B)"), XY, "B"),
        # Labels count before texts, and texts before places.
        (ask({"1": "2", "2": "1"}, "1"), "q\nA. 2\nB. 1", "A"),
        (ask({"F": "x", "G": "y"}, "y"), XY, "y"),
        (ask({"F": "x", "G": "y"}, 1), XY, "B"),
        (ask({"A": "x", "B": "y"}, 1), XY, "B"),
        (ask({"A": "x", "B": "y"}, "It is y."), XY, "It is y."),
        (ask({"text": ["x", "y"]}, 0), XY, "A"),
        (ask(["x", "y"], 1.0), XY, "B"),
        # A number among texts is a place, as in ScienceQA; a text among texts the text.
        (ask(["0", "1", "2"], 0), "q\nA. 0\nB. 1\nC. 2", "A"),
        (ask(["1", "2", "3"], 1), "q\nA. 1\nB. 2\nC. 3", "B"),
        (ask(["1", "2", "3"], 3), "q\nA. 1\nB. 2\nC. 3", "3"),
        (ask([0, 1], 1), "q\nA. 0\nB. 1", "B"),
        (ask([3, 4], 4), "q\nA. 3\nB. 4", "4"),
        (ask(["x", "y"], 0, question=5), "5\nA. x\nB. y", "A"),
        # Labels that stand in the texts themselves.
        (ask(["1. x", "2. y"], "1"), "q\nA. 1. x\nB. 2. y", "A"),
        (ask(["(B) x", "(A) y"], "B"), "q\nA. (B) x\nB. (A) y", "A"),
        (ask(["A. x", "B. y"], "B"), "q\nA. A. x\nB. B. y", "B"),
        (ask(["A. x", "B. y"], 1), "q\nA. A. x\nB. B. y", "B"),
        (ask(["1. x", "2. y"], "y"), "q\nA. 1. x\nB. 2. y", "y"),
        (ask(["1.5 kg", "2.5 kg"], 1), "q\nA. 1.5 kg\nB. 2.5 kg", "B"),
    ],
)
def test_an_answer_is_looked_up_among_the_labels_that_the_record_gives(
    tmp_path, record, asked, answer
):
    assert texts_of(tmp_path, record) == [asked, answer]


@pytest.mark.parametrize(
    ("parts", "asked"),
    [
        (
            [{"type": "image", "image": "a.png"}, {"type": "text", "text": "which?"}],
            "<image>\nwhich?\nA. x\nB. y",
        ),
        ([{"text": "which?"}, {"image": "a.png"}], "<image>\nwhich?\nA. x\nB. y"),
        ({"text": "which?"}, "which?\nA. x\nB. y"),
        (["which?"], "which?\nA. x\nB. y"),
    ],
)
def test_choices_of_a_question_in_parts_are_shown_with_it(tmp_path, parts, asked):
    assert texts_of(tmp_path, ask(["x", "y"], 0, question=parts)) == [asked, "A"]
    record = {"instruction": parts, "input": 7, "output": "a"}
    assert texts_of(tmp_path, record) == [asked.replace("A. x\nB. y", "7"), "a"]


LABELS = "`answer` or `response` or `output` or `completion`: "


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (
            ask({"text": ["x", "y"], "label": ["1", "2"]}, "3"),
            LABELS + "'3' is none of the labels '1', '2' of its choices, nor one of their texts",
        ),
        (ask({"F": "x", "G": "y"}, "A"), LABELS + "'A' is none of the labels 'F', 'G'"),
        (ask({"1": "x", "2": "y"}, 0), LABELS + "0 is none of the labels '1', '2'"),
        (ask({"1": "x", "2": "y"}, "It is 2."), "'It is 2.' is none of the labels '1', '2'"),
        (ask({"A": "x", "B": "y"}, "C"), LABELS + "'C' is none of the labels 'A', 'B'"),
        (ask(["1. x", "2. y"], 0), LABELS + "0 is none of the labels '1', '2' of its choices"),
        (ask(["x", "y"], "C"), LABELS + "'C' is none of the letters A to B of its choices"),
        (ask(["x", "y"], 2), LABELS + "number 2 of 2 choices; they are counted from 0"),
        (ask(["x", "y"], "-1"), LABELS + "number -1 of 2 choices; they are counted from 0"),
        (ask(["x", "y"], -1), LABELS + "number -1 of 2 choices; they are counted from 0"),
        (ask(["x", "y"], 0.5), LABELS + "number 0.5 of 2 choices; they are counted from 0"),
        (ask([2, 1, 0], 2), LABELS + "2 is the text of one choice and the place of another"),
        (
            ask({"text": ["x", "y"], "label": ["A"]}, "A"),
            "`choices` or `options`: expected a label for each text, got 1 and 2",
        ),
        (
            ask({"text": ["x", "y"], "label": ["A", "A"]}, "A"),
            "`choices` or `options`: expected labels that differ, got ['A', 'A']",
        ),
        (ask({"text": ["x"], "label": "A"}, "A"), "expected a label for each text, got 'A'"),
        (ask({"text": ["x"], "label": [None]}, "x"), "expected labels of text, got [None]"),
    ],
)
def test_labels_and_answers_that_do_not_match_are_a_reason(tmp_path, record, detail):
    with pytest.raises(UserError) as error:
        open_one(tmp_path, record)
    assert "1 bad record\n  bad_field: record 0 (id ''): " in str(error.value)
    assert detail in str(error.value)


def test_a_table_of_choices_has_all_labels_in_every_row(tmp_path):
    """Those of the other rows are null there; a row without any has no choices."""
    rows = [
        ask({"A": "x", "B": "y", "C": "z"}, "C"),
        ask({"A": "x", "B": "y"}, "B"),
        ask(None, "a"),
        ask({"C": None}, "a"),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.parquet")))
    asked = [[turn.text for turn in record.turns] for record in pool]
    assert asked == [[XYZ, "C"], [XY, "B"], ["q", "a"], ["q", "a"]]
    assert texts_of(tmp_path, ask({"text": [], "label": []}, "a")) == ["q", "a"]
    pq.write_table(pa.Table.from_pylist([rows[0], ask({"A": "x"}, "C")]), tmp_path / "pool.parquet")
    with pytest.raises(UserError, match="'C' is none of the labels 'A' of its choices"):
        open_pool(DataConfig(records=str(tmp_path / "pool.parquet")))


@pytest.mark.parametrize(
    ("given", "asked"),
    [(21, "Double it\n21"), (2.5, "Double it\n2.5"), ("x", "Double it\nx")],
)
def test_alpacas_input_may_be_a_number(tmp_path, given, asked):
    record = {"instruction": "Double it", "input": given, "output": "42"}
    assert texts_of(tmp_path, record) == [asked, "42"]


@pytest.mark.parametrize("given", [None, "", [], {}, float("nan")])
def test_no_input(tmp_path, given):
    record = {"instruction": "Sing", "input": given, "output": "la"}
    assert texts_of(tmp_path, record) == ["Sing", "la"]


@pytest.mark.parametrize("given", [["a", "b"], {"a": 1}, True])
def test_an_input_that_is_no_text_is_a_reason(tmp_path, given):
    record = {"instruction": "Sum", "input": given, "output": "3"}
    with pytest.raises(UserError, match=r"bad_field: record 0 \(id ''\): `input`: expected text"):
        open_one(tmp_path, record)

"""Fields that are not what the official files have: read as what they mean, or refused by name."""

from __future__ import annotations

import copy
import gzip
import json
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.official_files import WRITERS, write_official

from prism_tune.errors import UserError
from prism_tune.evaluation.predictions import write_predictions
from prism_tune.evaluation.score import score

ODD = (None, 1.5, True, [1], {"a": 1}, "")
TABLES = ("mmbench", "mmbench_cn", "mme")


def list_places(value, place=()):
    """Every place of a JSON value, of lists the first item alone."""
    pairs = list(value.items()) if isinstance(value, dict) else []
    pairs += [(0, value[0])] if isinstance(value, list) and value else []
    for key, inner in pairs:
        yield (*place, key)
        yield from list_places(inner, (*place, key))


def put_at(value, place, odd):
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    return changed


def read_lines(text):
    try:
        return json.loads(text), False
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line], True


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in TABLES])
def test_no_odd_field_of_official_annotations_ends_in_a_traceback(tmp_path, name):
    (tmp_path / "data").mkdir()
    annotations, answers = write_official(name, tmp_path / "data")
    write_predictions(tmp_path / "a.jsonl", answers)
    whole = [annotations] if annotations.is_file() else sorted(annotations.rglob("*.json*"))
    for file in whole:
        text = file.read_text()
        content, has_lines = read_lines(text)
        for place in list(list_places(content))[:20]:
            for odd in ODD:
                changed = put_at(content, place, odd)
                listed = "\n".join(map(json.dumps, changed)) if has_lines else json.dumps(changed)
                file.write_text(listed)
                with suppress(UserError):
                    score(name, tmp_path / "a.jsonl", annotations)
        file.write_text(text)


def write_seed(folder, **changes):
    choices = {f"choice_{letter}": "x" for letter in "abcd"}
    record = {"question_id": "7", "question": "What?", **choices, "answer": "A"}
    listed = [{**record, "data_type": "image", "data_id": "1.jpg", **changes}]
    (folder / "SEED-Bench.json").write_text(json.dumps({"questions": listed}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "AB"}, "question 0: answer: expected the letter of an option"),
        ({"answer": ""}, "question 0: answer: expected the letter of an option"),
        ({"data_type": "picture"}, "question 0: data_type: expected image or video"),
        ({"question_id": None}, "question 0: question_id: expected text, found None"),
        ({"question_type_id": [1]}, r"question 0: question_type_id: expected text, found \[1\]"),
    ],
)
def test_seed_bench_names_the_field(tmp_path, changes, message):
    write_seed(tmp_path, **changes)
    (tmp_path / "a.jsonl").write_text('{"question_id": "7", "text": "A"}\n')
    with pytest.raises(UserError, match=f"SEED-Bench.json, {message}"):
        score("seed_bench", tmp_path / "a.jsonl", tmp_path)


def test_an_answer_list_that_is_a_text_is_not_taken_letter_by_letter(tmp_path):
    entry = {"image": "V_0.jpg", "question": "What?", "answers": "dog"}
    (tmp_path / "val.json").write_text(json.dumps([entry]))
    (tmp_path / "a.jsonl").write_text('{"question_id": 0, "text": "dog"}\n')
    with pytest.raises(UserError, match="record 1: answers: expected a list, found 'dog'"):
        score("vizwiz", tmp_path / "a.jsonl", tmp_path)


def test_an_unknown_question_type_is_not_taken_for_an_open_question(tmp_path):
    entry = {"question_type": "multiple_choice", "ground_truth": "A"}
    (tmp_path / "answer_dict_val.json").write_text(json.dumps({"validation_Art_1": entry}))
    (tmp_path / "a.json").write_text('{"validation_Art_1": "A"}')
    with pytest.raises(UserError, match="question_type: expected one of multiple-choice, open"):
        score("mmmu", tmp_path / "a.json", tmp_path)


def write_rows(path, *indices):
    head = "index\tquestion\tA\tB\tanswer"
    path.write_text("\n".join([head, *(f"{index}\tWhat?\tx\ty\tA" for index in indices)]))
    path.with_suffix(".jsonl").write_text('{"question_id": 1, "text": "A"}\n')
    return path.with_suffix(".jsonl")


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ((1, 1000002), "record 2: index 1000002: a rotated copy of 2, which has no row of its own"),
        ((1, -1), "record 2: index: expected 0 or more, found -1"),
    ],
)
def test_a_rotated_copy_without_its_question_is_named(tmp_path, indices, message):
    answers = write_rows(tmp_path / "q.tsv", *indices)
    with pytest.raises(UserError, match=message):
        score("mmbench", answers, tmp_path / "q.tsv")


def test_two_columns_of_one_name_and_a_question_that_stands_there_twice(tmp_path):
    answers = write_rows(tmp_path / "q.tsv", 1)
    (tmp_path / "q.tsv").write_text("index\tquestion\tA\tB\tanswer\tA\n1\tWhat?\tx\ty\tA\tz\n")
    with pytest.raises(UserError, match=r"q\.tsv: two columns 'A'; expected one of each name"):
        score("mmbench", answers, tmp_path / "q.tsv")
    entry = {"question_id": 1, "image_id": 1, "answers": [{"answer": "yes"}] * 10}
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    path.write_text(json.dumps({"annotations": [entry, entry]}))
    with pytest.raises(UserError, match="annotations: question_id 1 stands there twice"):
        score("vqav2", answers, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl.gz",
            gzip.compress(b'{"question_id": "7", "text": "A"}', mtime=0),
            "unpack it first",
        ),
        ("a.jsonl", '{"question_id": "7", "text": "A"}'.encode("utf-16-le"), "save it as UTF-8"),
        ("a.jsonl", '{"question_id": "7", "text": "é"}'.encode("latin-1"), "save it as UTF-8"),
        ("a.jsonl", b'{"question_id": "7", "text": "A", "metadata": "x"}', "line 1: metadata"),
    ],
)
def test_answer_files_that_are_no_text_say_how_to_mend_them(tmp_path, name, content, message):
    write_seed(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"(?i){name}.*{message}"):
        score("seed_bench", tmp_path / name, tmp_path)


def test_answers_in_parquet_and_marks_where_files_were_joined(tmp_path):
    write_seed(tmp_path)
    answers = tmp_path / "answers.parquet"
    pq.write_table(pa.table({"question_id": ["7"], "text": ["A"]}), answers)
    annotations = tmp_path / "SEED-Bench.json"
    assert score("seed_bench", answers, annotations).metrics["accuracy"] == 100
    line = '\ufeff{"question_id": "7", "text": "A"}\n'
    (tmp_path / "a.jsonl").write_text(line * 2)
    assert score("seed_bench", tmp_path / "a.jsonl", annotations).metrics["accuracy"] == 100


def test_the_metadata_of_an_answer_are_its_own(tmp_path):
    """`file` and `grade` in somebody's metadata are no reviews or grades."""
    (tmp_path / "mm-vet.json").write_text(
        json.dumps(
            {"v1_0": {"imagename": "0", "question": "?", "answer": "a", "capability": ["rec"]}}
        )
    )
    answer = {"question_id": 0, "text": "a", "metadata": {"grade": {"score": [1]}, "file": [1]}}
    (tmp_path / "a.jsonl").write_text(json.dumps(answer))
    assert "score" not in score("mmvet", tmp_path / "a.jsonl", tmp_path / "mm-vet.json").metrics

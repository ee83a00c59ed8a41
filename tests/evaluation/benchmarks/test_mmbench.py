import base64
import csv
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook
from PIL import Image

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.benchmarks.mmbench import BENCHMARK
from prism_tune.schema import Prediction

COLUMNS = [
    "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source",
    "l2-category", "comment", "split",
]  # fmt: skip
INSTRUCTION = "Answer with the option's letter from the given choices directly."


def draw_image():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PNG = draw_image()


def make_row(index, options, answer, image, hint="", category="spatial", l2="relation"):
    letters = [*options, "", "", ""][:4]
    values = [
        index, 'Where is "it"?\nSay.', hint, *letters, answer, category, image,
        "src", l2, "", "dev",
    ]  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


ROWS = [
    make_row(7, ["left", "right"], "A", PNG, hint="A hint"),
    make_row(8, ["red", "None", "blue"], "A", PNG, hint="nan", category="color", l2="attribute"),
    make_row(1_000_007, ["right", "left"], "B", "7", hint="A hint"),
    make_row(1_000_008, ["blue", "red"], "B", "8", category="color", l2="attribute"),
]


def write_tsv(path, rows=ROWS, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def questions(tmp_path):
    return BENCHMARK.load_questions(write_tsv(tmp_path / "dev.tsv"), "llava15")


def answer_all(questions, texts):
    pairs = zip(questions, texts, strict=True)
    return [Prediction(q.question_id, q.text.rsplit("\n", 1)[0], text) for q, text in pairs]


def test_prompts_have_every_option_that_is_not_null(questions):
    assert questions[0].text == ('A hint\nWhere is "it"?\nSay.\nA. left\nB. right\n' + INSTRUCTION)
    assert questions[1].text == ('Where is "it"?\nSay.\nA. red\nB. None\nC. blue\n' + INSTRUCTION)
    assert questions[1].metadata["options"] == {"A": "red", "B": "None", "C": "blue"}


def test_prompt_of_lmms_eval(tmp_path):
    questions = BENCHMARK.load_questions(write_tsv(tmp_path / "dev.tsv"), "lmms_eval")
    assert questions[0].text == (
        'A hint Where is "it"?\nSay. There are several options:\nA. left\nB. right\n\n'
        + INSTRUCTION
    )
    assert questions[1].text == (
        'Where is "it"?\nSay. There are several options:\nA. red\nB. None\nC. blue\n\n'
        + INSTRUCTION
    )


@pytest.mark.parametrize(
    ("cells", "answer", "options"),
    [
        (["None", "Two", "One", "Three"], "A", "ABCD"),
        (["cat", "None", "dog", "horse"], "C", "ABCD"),
        (["cat", "dog", "None"], "C", "ABC"),
        (["cat", "dog", "none", "None"], "A", "AB"),  # LLaVA's null, where nothing says otherwise
        (["cat", "dog", "nan", ""], "B", "AB"),
        (["cat", "", "dog"], "C", "AC"),
        (["cat", "dog"], "b", "AB"),
        (["cat", "dog"], "B ", "AB"),
    ],
)
def test_the_reference_is_always_an_option_and_counts(tmp_path, cells, answer, options):
    path = write_tsv(tmp_path / "q.tsv", [make_row(1, cells, answer, "")])
    letter = answer.strip().upper()
    for profile in ("llava15", "lmms_eval"):
        (question,) = BENCHMARK.load_questions(path, profile)
        assert "".join(question.metadata["options"]).startswith(options[:1])
        assert f"\n{letter}. " in question.text
        result = BENCHMARK.score([question], [Prediction(1, "", letter)], profile)
        assert result.metrics["accuracy"] == 100
    assert "".join(BENCHMARK.load_questions(path, "llava15")[0].metadata["options"]) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tq\tx\n", r"record 1 \(line 2\): 3 columns, the header has 5"),
        ("1\tq\tx\ty\tB\tmore\n", r"record 1 \(line 2\): 6 columns"),
        ("1\tq\tx\ty\tC\n", r"record 1: answer: expected the letter of an option \(A, B\)"),
    ],
)
def test_broken_rows_are_named(tmp_path, text, message):
    (tmp_path / "q.tsv").write_text("index\tquestion\tA\tB\tanswer\n" + text)
    with pytest.raises(UserError, match=message):
        BENCHMARK.load_questions(tmp_path / "q.tsv", "llava15")


def test_the_chinese_edition(tmp_path):
    path = write_tsv(tmp_path / "cn.tsv", [make_row(7, ["左", "右"], "A", PNG, hint="提示")])
    cn = BENCHMARKS["mmbench_cn"]
    (question,) = cn.load_questions(path, "llava15")
    assert question.text == '提示\nWhere is "it"?\nSay.\nA. 左\nB. 右\n请直接回答选项字母。'
    (theirs,) = cn.load_questions(path, "lmms_eval")
    assert theirs.text == (
        '提示 Where is "it"?\nSay. There are several options:\nA. 左\nB. 右\n\n'
        "请直接使用所提供的选项字母作为答案回答。"
    )
    result = cn.score([question], [Prediction(7, "", "A")], "llava15")
    assert (result.benchmark, result.metrics["accuracy"]) == ("mmbench_cn", 100)
    assert cn.write_submission([question], [], tmp_path).name == "mmbench_cn_upload.xlsx"
    assert cn.max_new_tokens == {"llava15": 1024, "lmms_eval": 256}


def test_a_rotated_copy_shares_the_image_of_its_main_row(questions):
    assert {q.images for q in questions} == {(f"data:image/png;base64,{PNG}",)}


def test_without_image_column_images_are_named_by_the_main_index(tmp_path):
    columns = [name for name in COLUMNS if name != "image"]
    questions = BENCHMARK.load_questions(write_tsv(tmp_path / "d.tsv", ROWS, columns), "llava15")
    assert [q.images for q in questions] == [("7.jpg",), ("8.jpg",), ("7.jpg",), ("8.jpg",)]


def test_a_question_is_right_only_if_all_its_rows_are(questions):
    result = BENCHMARK.score(questions, answer_all(questions, "AAAB"), "llava15")
    assert result.metrics == {
        "accuracy": 50,
        "accuracy_first_pass": 100,
        "accuracy_all_rows": 75,
        "spatial": 0,
        "color": 100,
        "relation": 0,
        "attribute": 100,
    }
    assert result.per_question == {"7": 0, "8": 1}
    assert result.num_examples == 4


@pytest.mark.parametrize("profile", ["llava15", "lmms_eval"])
def test_maximum_floor_and_order(questions, profile):
    right = answer_all(questions, [q.reference for q in questions])
    result = BENCHMARK.score(questions, random.Random(0).sample(right, 4), profile)
    assert set(result.metrics.values()) == {100}
    garbage = BENCHMARK.score(questions, answer_all(questions, ["?", "", "\x01", "no"]), profile)
    assert set(garbage.metrics.values()) == {0}
    assert "4 answer(s) without a letter, counted as wrong" in garbage.notes


def test_missing_rows_are_wrong_and_the_version_is_named(questions):
    result = BENCHMARK.score(questions, answer_all(questions[:3], "AAB"), "llava15")
    assert result.metrics["accuracy"] == 50
    assert result.num_missing == 1
    assert "2 questions: neither the 1,176" in result.notes[0]


@pytest.mark.parametrize(("number", "named"), [(1176, "20230712"), (1164, "current dev")])
def test_both_known_versions_are_recognised(tmp_path, number, named):
    rows = [make_row(n, ["x", "y"], "A", "") for n in range(number)]
    questions = BENCHMARK.load_questions(write_tsv(tmp_path / "dev.tsv", rows), "llava15")
    result = BENCHMARK.score(questions, [Prediction(0, "", "A")], "llava15")
    assert named in result.provenance["data_version"]


def test_a_test_split_has_no_score(tmp_path):
    columns = [name for name in COLUMNS if name != "answer"]
    questions = BENCHMARK.load_questions(write_tsv(tmp_path / "t.tsv", ROWS, columns), "llava15")
    result = BENCHMARK.score(questions, answer_all(questions, "AAAA"), "llava15")
    assert result.metrics == {}
    assert "test split" in result.notes[-1]


def test_the_hubs_test_split_has_no_references(tmp_path):
    """Its parquet was made of a TSV: nulls have become the text "nan"."""
    rows = [{**row, "answer": "nan", "hint": "nan"} for row in ROWS[:2]]
    for row in rows:
        row["image"] = {"bytes": base64.b64decode(PNG), "path": None}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    for profile in ("llava15", "lmms_eval"):
        questions = BENCHMARK.load_questions(tmp_path / "test.parquet", profile)
        assert [question.reference for question in questions] == [None, None]


def test_the_submission_re_reads_equal(questions, tmp_path):
    path = BENCHMARK.write_submission(
        questions, answer_all(questions[:3], ["A", "=1+1\x01", "B"]), tmp_path
    )
    sheet = load_workbook(path).active
    assert sheet["G3"].data_type == "s"  # a text, no formula
    rows = list(sheet.iter_rows(values_only=True))
    assert rows == [
        ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split"),
        (7, 'Where is "it"?\nSay.', "left", "right", None, None, "A", "A", "dev"),
        (8, 'Where is "it"?\nSay.', "red", "None", "blue", None, "=1+1", "A", "dev"),
        (1_000_007, 'Where is "it"?\nSay.', "right", "left", None, None, "B", "B", "dev"),
        (1_000_008, 'Where is "it"?\nSay.', "blue", "red", None, None, None, "B", "dev"),
    ]


def test_a_submission_scores_as_the_answers_it_was_written_from(questions, tmp_path):
    answers = answer_all(questions[:3], "AAB")
    path = BENCHMARK.write_submission(questions, answers, tmp_path)
    read = BENCHMARK.read_predictions(path)
    assert [(a.question_id, a.text) for a in read] == [(7, "A"), (8, "A"), (1_000_007, "B")]
    first, second = (BENCHMARK.score(questions, given, "llava15") for given in (answers, read))
    assert first.metrics == second.metrics
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="not a readable xlsx"):
        BENCHMARK.read_predictions(path)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file; expected MMBench's TSV"):
        BENCHMARK.load_questions(tmp_path / "absent.tsv", "llava15")
    (tmp_path / "a.tsv").write_text("index\tquestion\tB\n1\tq\tx\n")
    with pytest.raises(UserError, match=r"record 1: no key 'A'"):
        BENCHMARK.load_questions(tmp_path / "a.tsv", "llava15")
    (tmp_path / "a.tsv").write_text("index\tquestion\tA\tB\nx\tq\tx\ty\n")
    with pytest.raises(UserError, match=r"index: expected a number, found 'x'"):
        BENCHMARK.load_questions(tmp_path / "a.tsv", "llava15")


def test_llavas_answer_file_with_its_further_keys(questions, tmp_path):
    line = {
        "question_id": 7, "round_id": 0, "prompt": "p", "text": "A", "options": ["left", "right"],
        "option_char": ["A", "B"], "answer_id": "i", "model_id": "m", "metadata": {},
    }  # fmt: skip
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    answers = BENCHMARK.read_predictions(tmp_path / "a.jsonl")
    assert BENCHMARK.score(questions, answers, "llava15").num_missing == 3

"""`prism-tune answers`: the real command on run folders as the evaluation stage writes them."""

import csv
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from support.answered_runs import finish
from support.official_files import WRITERS, write_official
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.answers_table import build_answers
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.run.folder import RunDir

SHAPES = [
    {"question_id": "q1", "image": "1.png", "text": "what shape?", "answer": "circle"},
    {"question_id": "q2", "image": "1.png", "text": "is it red?", "answer": "yes"},
    {"question_id": "q3", "image": "2.png", "text": "what color?", "answer": "red"},
]


@pytest.fixture
def shapes(tmp_path):
    path = tmp_path / "shapes.json"
    path.write_text(json.dumps([{**row, "category": "c"} for row in SHAPES]))
    return path


def invoke(*arguments):
    return CliRunner().invoke(app, ["answers", *map(str, arguments)], catch_exceptions=False)


def test_the_table_of_a_run(shapes, tmp_path):
    root = finish(tmp_path / "run", "quickstart", shapes, ["Circle.", "no", None])
    run = invoke(root, "--to", tmp_path / "a.parquet")
    assert run.exit_code == 0
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows[0] == {
        "benchmark": "quickstart",
        "question_id": "q1",
        "category": "c",
        "image": str(tmp_path / "1.png"),
        "question": "what shape?",
        "prompt": "what shape?",
        "reference": "circle",
        "answer": "Circle.",
        "score": 1.0,
        "right": True,
    }
    assert [(row["answer"], row["score"], row["right"]) for row in rows[1:]] == [
        ("no", 0.0, False),
        (None, 0.0, False),
    ]
    assert "(3 rows)" in run.stdout


def test_flips_between_two_runs(shapes, tmp_path):
    before = finish(tmp_path / "before", "quickstart", shapes, ["circle", "no", "red"])
    now = finish(tmp_path / "now", "quickstart", shapes, ["square", "yes", "red"])
    run = invoke(before, now, "--to", tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [(row["answer_before"], row["answer"], row["change"]) for row in rows] == [
        ("circle", "square", "right before, wrong now"),
        ("no", "yes", "wrong before, right now"),
        ("red", "red", "right in both"),
    ]
    assert "right before, wrong now: quickstart q1: 'what shape?' 'circle' -> 'square'" in (
        " ".join(run.stdout.split())
    )


@pytest.mark.parametrize("name", WRITERS)
def test_every_benchmark_has_a_score_for_every_question(name, tmp_path):
    """MME's and TextVQA's ids repeat, MMBench's credit is that of a circle of rows."""
    (tmp_path / "data").mkdir()
    annotations, answers = write_official(name, tmp_path / "data")
    questions = BENCHMARKS[name].load_questions(annotations, "llava15")
    texts = [answer.text for answer in answers][: len(questions)]
    first = finish(tmp_path / "a", name, annotations, texts)
    second = finish(tmp_path / "b", name, annotations, ["?!"] * len(questions))
    table = build_answers([first, second])
    assert len(table.rows) == len(questions)
    assert all(row["score_before"] is not None for row in table.rows)
    assert any(row["right_before"] for row in table.rows)
    assert all(row["question"] or name == "mmmu" for row in table.rows)  # there references alone
    assert table.notes == []


def test_a_limit_counts_mmbenchs_circles(tmp_path):
    """The rows of a question with its options rotated stand next to it here, or far behind."""
    annotations, answers = write_official("mmbench", tmp_path)
    root = finish(tmp_path / "run", "mmbench", annotations, [a.text for a in answers[:6]], limit=3)
    table = build_answers([root])
    ids = ["0", "1000000", "1", "1000001", "2", "1000002"]
    assert [row["question_id"] for row in table.rows] == ids
    assert all(row["right"] for row in table.rows)


def test_a_table_of_one_benchmark(shapes, tmp_path):
    root = finish(tmp_path / "run", "quickstart", shapes, ["a", "b", "c"])
    (tmp_path / "pope").mkdir()
    annotations, answers = write_official("pope", tmp_path / "pope")
    finish(root, "pope", annotations, [answer.text for answer in answers])
    assert {row["benchmark"] for row in build_answers([root]).rows} == {"pope", "quickstart"}
    assert {row["benchmark"] for row in build_answers([root], ["pope"]).rows} == {"pope"}
    with pytest.raises(UserError, match="no results of mme; finished there: pope, quickstart"):
        build_answers([root], ["mme"])


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_without_the_annotations_the_prompts_stand_and_it_is_said(shapes, tmp_path, harm):
    root = finish(tmp_path / "run", "quickstart", shapes, ["circle", "no", "red"])
    if harm == "gone":
        shapes.unlink()
    else:
        shapes.write_text(shapes.read_text().replace("circle", "star"))
    table = build_answers([root])
    assert [(r["question"], r["reference"], r["image"], r["right"]) for r in table.rows] == [
        ("what shape?", None, None, True),
        ("is it red?", None, None, False),
        ("what color?", None, None, True),
    ]
    assert len(table.notes) == 1
    assert "quickstart: no image, reference and category" in table.notes[0]


def test_questions_of_one_run_alone_and_other_profiles_are_said(shapes, tmp_path):
    before = finish(tmp_path / "a", "quickstart", shapes, ["circle", "no"], limit=2)
    now = finish(tmp_path / "b", "quickstart", shapes, ["circle"] * 3, profile="lmms_eval")
    table = build_answers([before, now])
    assert [row["change"] for row in table.rows] == ["right in both", "wrong in both", None]
    assert table.rows[2]["answer_before"] is None
    assert table.notes == [
        "quickstart: asked under llava15 before and lmms_eval now",
        "quickstart: 0 question(s) of the first run alone, 1 of the second",
    ]


@pytest.mark.parametrize("name", ["textvqa", "mme"])
def test_a_limit_between_the_questions_of_an_image_leaves_them_paired(name, tmp_path):
    (tmp_path / "data").mkdir()
    annotations, _ = write_official(name, tmp_path / "data")
    number = len(BENCHMARKS[name].load_questions(annotations, "llava15"))
    before = finish(tmp_path / "a", name, annotations, ["x"] * 3, limit=3)
    now = finish(tmp_path / "b", name, annotations, ["x"] * number)
    for first, second in ((before, now), (now, before)):
        table = build_answers([first, second])
        assert len(table.rows) == number
        assert sum(row["change"] is not None for row in table.rows) == 3


def test_no_cell_of_a_csv_is_a_formula(shapes, tmp_path):
    texts = ['=HYPERLINK("http://x","y")', "+1", "-2"]
    before = finish(tmp_path / "a", "quickstart", shapes, texts)
    now = finish(tmp_path / "b", "quickstart", shapes, ["@SUM(A1)", "\t=1", "\r=1"])
    invoke(before, now, "--to", tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    assert [row["answer_before"] for row in rows] == [f"'{text}" for text in texts]
    assert [row["answer"] for row in rows] == ["'@SUM(A1)", "'\t=1", "'\r=1"]
    assert rows[0]["score"] == "0.0"
    invoke(now, "--to", tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet")["answer"][0].as_py() == "@SUM(A1)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda roots: [*roots, *roots], "4 run folders; expected one, or two"),
        (lambda roots: [roots[0], roots[0]], "given twice"),
        (lambda roots: [roots[0] / "absent"], "no such run folder"),
        (lambda roots: [roots[1]], "no answers \\(results of mmlu alone\\)"),
    ],
)
def test_what_has_no_answers_is_said(shapes, tmp_path, change, message):
    first = finish(tmp_path / "a", "quickstart", shapes, ["a", "b", "c"])
    second = finish(tmp_path / "b", "quickstart", shapes, ["a", "b", "c"])
    language = RunDir(second).evaluation
    RunDir(second).benchmark("quickstart").rename(language / "mmlu")
    (language / "mmlu" / "predictions.jsonl").unlink()
    with pytest.raises(UserError, match=message):
        build_answers(change([first, second]))


def test_another_suffix_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match=r"ends with .parquet or .csv"):
        invoke(tmp_path / "absent", "--to", tmp_path / "a.xlsx")


def test_it_does_without_torch(shapes, tmp_path):
    root = finish(tmp_path / "run", "quickstart", shapes, ["a", "b", "c"])
    code = (
        "import sys; from pathlib import Path\n"
        "from prism_tune.evaluation.answers_table import build_answers, print_answers\n"
        f"print_answers(build_answers([Path({str(root)!r})]))\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_real_evaluation(setting):
    setting.evaluate(benchmarks=("quickstart", "pope"), controls=["blind"])
    rows = build_answers([setting.run.root]).rows
    assert len(rows) == 12 + 6
    assert [row["answer"] for row in rows if row["benchmark"] == "quickstart"] == [
        line["text"] for line in setting.lines()
    ]
    assert {row["image"] for row in rows if row["benchmark"] == "pope"} == {
        str(setting.data_dir / "images" / name) for name in ("1.png", "2.png")
    }

import json

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.mmvet import BENCHMARK, score_rule
from prism_tune.schema import Prediction

QUESTIONS = {
    "v1_0": ("What is x?", "x=-1<AND>x=-5", ["ocr", "math"]),
    "v1_1": ("Who?", "Anna<OR>Bob", ["rec", "know"]),
    "v1_2": ("What?", "a red car", ["rec"]),
}
GRADES = {"v1_0": [0.5, 0.4], "v1_1": [1.0, 1.0], "v1_2": [0.0, 0.1]}


def write_questions(folder):
    entries = {
        key: {"imagename": f"{key}.jpg", "question": q, "answer": a, "capability": c,
              "imagesource": "s"} for key, (q, a, c) in QUESTIONS.items()
    }  # fmt: skip
    (folder / "mm-vet.json").write_text(json.dumps(entries))
    return folder / "mm-vet.json"


def write_grades(folder, grades=GRADES, judge="gpt-4-0613"):
    entries = {
        key: {"model": [judge] * len(s), "content": [str(v) for v in s], "score": s}
        for key, s in grades.items()
    }
    (folder / "model_gpt-4-grade.json").write_text(json.dumps(entries))
    return folder / "model_gpt-4-grade.json"


@pytest.fixture
def answers():
    texts = ["x = -1", "It is Bob.", "blue"]
    return [Prediction(n, QUESTIONS[f"v1_{n}"][0], text) for n, text in enumerate(texts)]


JUDGED = {
    "score": pytest.approx(50), "score_std": pytest.approx(0, abs=1e-9),
    "rec": pytest.approx(52.5), "ocr": pytest.approx(45), "know": pytest.approx(100),
    "math": pytest.approx(45), "set_ocr_math": pytest.approx(45),
    "set_rec": pytest.approx(5), "set_rec_know": pytest.approx(100),
}  # fmt: skip


def test_a_folder_with_questions_and_grades(tmp_path, answers):
    write_questions(tmp_path)
    write_grades(tmp_path)
    questions = BENCHMARK.load_questions(tmp_path, "llava15")
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics == JUDGED
    assert list(result.metrics)[:3] == ["score", "score_std", "rec"]
    assert result.provenance["judge"] == "gpt-4-0613"
    assert result.provenance["score_per_run"] == [pytest.approx(50), pytest.approx(50)]
    assert result.per_question == {"v1_0": 0.45, "v1_1": 1, "v1_2": pytest.approx(0.05)}


def test_grades_may_stand_in_the_place_of_the_predictions(tmp_path):
    questions = BENCHMARK.load_questions(write_questions(tmp_path), "llava15")
    grades = BENCHMARK.read_predictions(write_grades(tmp_path))
    assert BENCHMARK.score(questions, grades, "llava15").metrics == JUDGED


def test_grades_of_the_answers_go_before_those_beside_the_questions(tmp_path):
    """Which may be another model's."""
    own = tmp_path / "own"
    own.mkdir()
    grades = BENCHMARK.read_predictions(write_grades(own, {key: [1.0] for key in QUESTIONS}))
    write_questions(tmp_path)
    write_grades(tmp_path, {key: [0.1] for key in QUESTIONS})
    questions = BENCHMARK.load_questions(tmp_path, "llava15")
    assert BENCHMARK.score(questions, grades, "llava15").metrics["score"] == 100


@pytest.mark.parametrize("with_questions", [True, False])
def test_several_grade_files_are_runs_of_one_judge(tmp_path, with_questions):
    answers = []
    for name, grade in (("1", 1.0), ("2", 0.0)):
        (tmp_path / name).mkdir()
        file = write_grades(tmp_path / name, {key: [grade] for key in QUESTIONS})
        answers += BENCHMARK.read_predictions(file)
    questions = BENCHMARK.own_questions(answers)
    if with_questions:
        questions = BENCHMARK.load_questions(write_questions(tmp_path), "llava15")
    result = BENCHMARK.score(questions, answers, "llava15")
    assert (result.metrics["score"], result.metrics["score_std"]) == (50, 50)
    assert result.provenance["score_per_run"] == [100, 0]


def test_grades_of_two_judges_are_refused(tmp_path):
    answers = []
    for name in ("gpt-4-0613", "qwen3"):
        (tmp_path / name).mkdir()
        answers += BENCHMARK.read_predictions(write_grades(tmp_path / name, judge=name))
    questions = BENCHMARK.own_questions(answers)
    with pytest.raises(UserError, match="of 2 judges: gpt-4-0613, qwen3; one score is of one"):
        BENCHMARK.score(questions, answers, "llava15")


def test_a_grade_file_alone_gives_the_total(tmp_path, answers):
    questions = BENCHMARK.load_questions(write_grades(tmp_path), "llava15")
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics == {"score": JUDGED["score"], "score_std": JUDGED["score_std"]}
    assert "no mm-vet.json: no scores by capability" in result.notes


def test_std_over_runs_is_the_population_one(tmp_path, answers):
    runs = {"v1_0": [0.0, 0.3], "v1_1": [0.0, 0.0], "v1_2": [0.0, 0.0]}
    questions = BENCHMARK.load_questions(write_grades(tmp_path, runs), "llava15")
    metrics = BENCHMARK.score(questions, answers, "llava15").metrics
    assert (metrics["score"], metrics["score_std"]) == (pytest.approx(5), pytest.approx(5))


def test_without_grades_the_rule_score_is_labelled_as_such(tmp_path, answers):
    questions = BENCHMARK.load_questions(write_questions(tmp_path), "llava15")
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics["score_rule"] == pytest.approx(50)
    assert "score" not in result.metrics
    assert all(name.endswith("_rule") for name in result.metrics)
    assert result.provenance["judge"] == "rule"
    assert "rule score: not comparable with a judge's" in result.notes


@pytest.mark.parametrize(
    ("answer", "reference", "credit"),
    [
        ("x = -1 and x = -5", "x=-1<AND>x=-5", 1), ("x=-1", "x=-1<AND>x=-5", 0.5), ("", "a", 0),
        ("It is Bob!", "Anna<OR>Bob", 1), ("Bobby", "Anna<OR>Bob", 0), ("Ten", "10", 1),
        ("x and y", "x<AND>z<OR>x<AND>y", 1), ("The red car.", "a red car", 1),
    ],
)  # fmt: skip
def test_rule_credit(answer, reference, credit):
    assert score_rule(answer, reference) == credit


def test_prompts_of_the_two_profiles(tmp_path):
    path = write_questions(tmp_path)
    assert BENCHMARK.load_questions(path, "llava15")[1].text == "Who?"
    theirs = BENCHMARK.load_questions(path, "lmms_eval")[1].text
    assert theirs.startswith("First please perform reasoning")
    assert theirs.endswith("question: \n\nWho?")


def test_missing_answers_and_grades_count_zero_and_are_named(tmp_path, answers):
    write_questions(tmp_path)
    write_grades(tmp_path, {"v1_0": [1.0]})
    questions = BENCHMARK.load_questions(tmp_path, "llava15")
    result = BENCHMARK.score(questions, answers[:2], "llava15")
    assert result.metrics["score"] == pytest.approx(100 / 3)
    assert "2 question(s) without a grade: v1_1, v1_2" in result.notes
    assert result.num_missing == 1


def test_the_submission_is_what_the_official_grader_reads(tmp_path, answers):
    questions = BENCHMARK.load_questions(write_questions(tmp_path), "llava15")
    path = BENCHMARK.write_submission(questions, answers[:2], tmp_path)
    assert json.loads(path.read_text()) == {"v1_0": "x = -1", "v1_1": "It is Bob.", "v1_2": ""}
    assert [a.text for a in BENCHMARK.read_predictions(path)] == ["x = -1", "It is Bob.", ""]


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        ({"v1_0": [0.5], "v1_1": [0.5, 1]}, "v1_0 has 1 of 2 runs"),
        ({"v1_0": [1.5]}, "v1_0: score: expected numbers from 0 to 1, found 1.5"),
        ({"v1_0": []}, "v1_0: score: expected one number per run"),
    ],
)
def test_bad_grades_are_named(tmp_path, grades, message):
    with pytest.raises(UserError, match=message):
        BENCHMARK.load_questions(write_grades(tmp_path, grades), "llava15")


def test_other_bad_files_are_named(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(UserError, match=r"neither mm-vet.json nor a grade file"):
        BENCHMARK.load_questions(tmp_path, "llava15")
    with pytest.raises(UserError, match=r"x.json, record 1: expected one JSON object"):
        BENCHMARK.read_predictions(tmp_path / "x.json")
    write_questions(tmp_path)
    write_grades(tmp_path, {"v2_0": [1.0]})
    with pytest.raises(UserError, match=r"no question for: 1 unknown id\(s\): v2_0"):
        BENCHMARK.load_questions(tmp_path, "llava15")

import json

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.llava_bench import BENCHMARK
from prism_tune.evaluation.score import score
from prism_tune.schema import Prediction

REVIEWS = [("conv", 8, 6), ("conv", 10, 8), ("detail", 9, 6.5), ("complex", 8, 8)]


def write_reviews(path, reviews=REVIEWS, **more):
    lines = [
        {"id": n + 1, "question_id": n, "answer1_id": "a", "answer2_id": "b",
         "category": f"llava_bench_{category}", "content": f"{first} {second}\nok",
         "tuple": [first, second], **more}
        for n, (category, first, second) in enumerate(reviews)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_score(*paths):
    options = [text for path in paths for text in ("--predictions", str(path))]
    run = CliRunner().invoke(app, ["score", "llava_bench", *options, "--json"])
    return json.loads(run.stdout)


def test_reviews_of_anyone_are_scored_without_annotations(tmp_path):
    result = run_score(write_reviews(tmp_path / "r.jsonl"))
    assert result["metrics"] == pytest.approx(
        {"score": 100 * 28.5 / 35, "score_conv": 100 * 14 / 18, "score_detail": 100 * 6.5 / 9,
         "score_complex": 100}
    )  # fmt: skip
    assert result["provenance"]["judge"] == "unnamed"
    assert (result["num_examples"], result["num_missing"]) == (4, 0)


def test_several_review_files_give_mean_and_deviation(tmp_path):
    first = write_reviews(tmp_path / "1.jsonl")
    second = write_reviews(tmp_path / "2.jsonl", [("conv", 10, 5), *REVIEWS[1:]])
    metrics = run_score(first, second)["metrics"]
    ones, twos = 100 * 28.5 / 35, 100 * 27.5 / 37
    assert metrics["score"] == pytest.approx((ones + twos) / 2)
    assert metrics["score_std"] == pytest.approx(abs(ones - twos) / 2)
    assert metrics["score_conv"] == pytest.approx(50 * (14 / 18 + 13 / 20))


def test_runs_that_reviewed_other_questions_are_refused(tmp_path):
    first = write_reviews(tmp_path / "1.jsonl")
    second = write_reviews(tmp_path / "2.jsonl", REVIEWS[:2])
    with pytest.raises(UserError, match=r"2.jsonl: 2 question\(s\) without a review: 2, 3"):
        score("llava_bench", [first, second], None)


def test_reviews_of_two_judges_are_refused(tmp_path):
    files = [write_reviews(tmp_path / f"{name}.jsonl", judge=name) for name in ("gpt-4", "qwen3")]
    with pytest.raises(UserError, match="of 2 judges: gpt-4, qwen3; one score is of one judge"):
        score("llava_bench", files, None)


def test_reviews_without_any_grade_give_no_score(tmp_path):
    """The ratio of the means would be 100."""
    file = write_reviews(tmp_path / "r.jsonl", [("conv", -1, -1)] * 3)
    with pytest.raises(UserError, match=r"r.jsonl: not one of its 3 reviews has two grades"):
        score("llava_bench", file, None)


def test_failed_reviews_stay_in_the_mean_and_are_named(tmp_path):
    result = run_score(write_reviews(tmp_path / "r.jsonl", [*REVIEWS[:3], ("complex", -1, -1)]))
    assert result["metrics"]["score"] == pytest.approx(100 * 19.5 / 26)
    assert any("1 review(s) without two grades" in n and n.endswith(": 3") for n in result["notes"])


def test_questions_of_the_release_and_answers_without_reviews(tmp_path):
    question = {"question_id": 0, "image": "001.jpg", "text": "What?", "category": "conv"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question))
    context = {"id": "001", "image": "001.jpg", "caption": ["One.", "Two."]}
    (tmp_path / "context.jsonl").write_text(json.dumps(context))
    (tmp_path / "answers_gpt4.jsonl").write_text('{"question_id": 0, "text": "Hawaii."}')
    (loaded,) = BENCHMARK.load_questions(tmp_path, "llava15")
    assert (loaded.text, loaded.images, loaded.reference) == ("What?", ("001.jpg",), "Hawaii.")
    assert loaded.metadata["caption"] == "One.\nTwo."
    result = BENCHMARK.score([loaded], [Prediction(0, "What?", "An island.")], "llava15")
    assert result.metrics == {}
    assert "no reviews: no score" in result.notes[1]


def test_a_bad_pair_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"question_id": 0, "tuple": [8]}')
    with pytest.raises(UserError, match=r"r.jsonl, line 1: tuple: expected two grades"):
        BENCHMARK.read_predictions(tmp_path / "r.jsonl")

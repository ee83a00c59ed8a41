"""An evaluation that a judge has scored: what `evaluate` makes of it when it is asked again."""

import json
import logging

import pytest
from support.evaluation_runs import Setting, draw_benchmarks

from prism_tune.evaluation.benchmarks.grades import Grade
from prism_tune.evaluation.evaluate import find_changes
from prism_tune.evaluation.judge.judge import grade, plan_grading
from prism_tune.evaluation.judge.prompt import JudgePrompt

pytestmark = pytest.mark.slow


class Generous:
    """Half a point for everything."""

    def grade(self, prompt):
        return Grade(0.5, "0.5", "gpt-x")


@pytest.fixture
def judged(tiny_llava_dir, tmp_path):
    return judge(tiny_llava_dir, tmp_path)


def judge(tiny_llava_dir, tmp_path, **changes):
    """An evaluation of two questions of MM-Vet, with the score of a judge."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    draw_benchmarks(data_dir)
    entry = {"question": "What is it?", "answer": "cup", "capability": ["rec"]}
    questions = {f"v1_{n}": {**entry, "imagename": f"{n}.png"} for n in (0, 1)}
    (data_dir / "mm-vet.json").write_text(json.dumps(questions))
    setting = Setting(tiny_llava_dir, data_dir, tmp_path)
    ask(setting, **changes)
    plan = plan_grading(
        setting.run.benchmark("mmvet") / "predictions.jsonl",
        data_dir / "mm-vet.json",
        JudgePrompt("TABLE"),
        judge_name="gpt-x",
        num_runs=1,
        path=None,
    )
    grade(plan, Generous())
    assert setting.results("mmvet")["metrics"]["score"] == 50
    return setting


def options(setting, limit=None, **changes):
    annotations, images = setting.data_dir / "mm-vet.json", setting.data_dir / "images"
    data = {"annotations": str(annotations), "image_dir": str(images), "limit": limit}
    return {"benchmarks": ("mmvet",), "data": {"mmvet": data}, **changes}


def ask(setting, force=False, **changes):
    setting.evaluate(force=force, **options(setting, **changes))


def test_it_is_finished_and_plan_says_so(judged, caplog):
    before = judged.results("mmvet")
    assert find_changes(judged.config(**options(judged)), judged.run) == []
    with caplog.at_level(logging.INFO):
        ask(judged)
    assert "already finished" in caplog.text
    assert judged.results("mmvet") == before


@pytest.mark.parametrize("change", [{"controls": ["blind"]}, {"limit": 1}, {"force": True}])
def test_grades_of_unchanged_answers_are_kept(judged, change):
    ask(judged, **change)
    result = judged.results("mmvet")
    assert result["metrics"]["score"] == 50
    assert result["provenance"]["judge"] == "gpt-x"
    assert not any("rule score" in note for note in result["notes"])
    assert ("score_rule_blind" in result["metrics"]) == ("controls" in change)
    asked = {key: value for key, value in change.items() if key != "force"}
    assert find_changes(judged.config(**options(judged, **asked)), judged.run) == []


def test_the_profile_stays_the_one_it_was_asked_under(tiny_llava_dir, tmp_path):
    """As provenance has it, when the judge's score comes in and when it is kept."""
    judged = judge(tiny_llava_dir, tmp_path, profile="lmms_eval")
    for changes in ({}, {"controls": ["blind"]}):
        ask(judged, profile="lmms_eval", **changes)
        result = judged.results("mmvet")
        assert (result["profile"], result["metrics"]["score"]) == ("lmms_eval", 50)
        assert result["provenance"]["protocol"] == "lmms-eval 0.7.3"


def test_grades_of_other_answers_are_dropped_and_that_is_said(judged, caplog):
    path = judged.run.benchmark("mmvet") / "predictions.jsonl"
    lines = judged.lines("mmvet")
    path.write_text("".join(json.dumps({**line, "text": "x"}) + "\n" for line in lines))
    ask(judged, force=True)
    assert "score" not in judged.results("mmvet")["metrics"]
    assert "the score of judge gpt-x is dropped: 2 of 2 answers are new" in caplog.text


def test_grades_that_are_gone_are_said(judged, caplog):
    (judged.run.benchmark("mmvet") / "mmvet_gpt-x-grade.json").unlink()
    ask(judged, controls=["blind"])
    assert "score" not in judged.results("mmvet")["metrics"]
    assert "mmvet_gpt-x-grade.json is gone or has changed" in caplog.text


def test_results_that_somebody_edited_stay_damaged(judged, caplog):
    path = judged.run.benchmark("mmvet") / "results.json"
    result = judged.results("mmvet")
    path.write_text(json.dumps({**result, "metrics": {"score": 99}}))
    ask(judged)
    assert judged.results("mmvet")["metrics"]["score"] == 50

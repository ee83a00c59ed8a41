"""A run folder with one benchmark evaluated, as the evaluation stage writes it, without a model."""

from __future__ import annotations

from prism_tune.config.sections import Config
from prism_tune.evaluation.benchmark import fingerprint_questions, list_first
from prism_tune.evaluation.predictions import write_predictions
from prism_tune.evaluation.score import find_benchmark, result_to_json
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage
from prism_tune.schema import Prediction


def finish(root, name, annotations, texts, *, profile="llava15", limit=None, metric=None):
    """One benchmark, evaluated: questions whose text is None were skipped."""
    benchmark = find_benchmark(name, metric)
    questions = benchmark.load_questions(annotations, profile)
    checksum = fingerprint_questions(questions, annotations)
    questions = list_first(questions, benchmark, limit)
    answers = [
        Prediction(q.question_id, q.text, text)
        for q, text in zip(questions, texts, strict=True)
        if text is not None
    ]
    folder = RunDir(root).benchmark(name)
    data = {name: {"annotations": str(annotations), "limit": limit, "metric": metric}}
    write_predictions(folder / "predictions.jsonl", answers)
    result = benchmark.score(questions, answers, profile)
    write_json(folder / "results.json", result_to_json(result))
    config = Config.model_validate(
        {
            "name": "x",
            "model": {"path": "m"},
            "data": {"records": "p"},
            "evaluation": {"benchmarks": [name], "profile": profile, "data": data},
        }
    )
    Stage(folder).finish({"data": checksum}, config=config)
    return root

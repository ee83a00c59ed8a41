"""`prism-tune judge`: settings in, the estimate on the console, then a graded and scored benchmark.

A judge is either a model behind an OpenAI-compatible address or a local language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_tune.config.sections import Readout
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.benchmarks.grades import name_local_judge
from prism_tune.evaluation.judge.judge import (
    Judge,
    Work,
    describe_cost,
    grade,
    plan_grading,
)
from prism_tune.evaluation.judge.prompt import read_judge_prompt
from prism_tune.evaluation.judge.review import plan_reviews, review
from prism_tune.evaluation.judge.review_prompt import REVIEW_NEW_TOKENS, read_rules
from prism_tune.evaluation.score import print_result
from prism_tune.run.log import console


@dataclass(frozen=True)
class JudgeSettings:
    """Who grades, and how.

    Attributes:
        model: a name at `base_url`, or a local directory or hub id.
        base_url: empty for a local model.
        readout: of a local model, "expected" or "argmax".
        prompt: the file with the judge's prompt.
        num_runs: grades per answer.
        price: of a million prompt tokens.
        dry_run: estimate only.
    """

    model: str
    base_url: str
    readout: Readout
    prompt: Path
    num_runs: int
    price: float | None
    dry_run: bool


def run_judge(
    benchmark: str,
    predictions: Path,
    annotations: Path,
    settings: JudgeSettings,
    output: Path | None,
) -> None:
    """Print what it will take, grade, and print the score.

    Raises:
        ConfigError: settings that do not go together.
        UserError: a benchmark without judge, or files that are not as expected.
    """
    if benchmark == "llava_bench":
        _run_reviews(predictions, annotations, settings, output)
        return
    if benchmark != "mmvet":
        raise UserError(f"{benchmark} has no judge; mmvet and llava_bench have")
    name = _check_settings(settings)
    grading = plan_grading(
        predictions,
        annotations,
        read_judge_prompt(settings.prompt),
        judge_name=name,
        num_runs=settings.num_runs,
        path=output,
    )
    new_tokens = 3 if settings.base_url else 0
    _print_cost(settings, grading, grading.count_calls(), new_tokens)
    if not settings.dry_run:
        print_result(grade(grading, _open_judge(settings)))


def _run_reviews(
    predictions: Path, annotations: Path, settings: JudgeSettings, output: Path | None
) -> None:
    _check_settings(settings)
    reviewing = plan_reviews(
        predictions,
        annotations,
        read_rules(settings.prompt),
        judge_name=settings.model if settings.base_url else f"{settings.model} (local)",
        num_runs=settings.num_runs,
        path=output,
    )
    num_calls = reviewing.count_calls()
    _print_cost(settings, reviewing, num_calls, REVIEW_NEW_TOKENS if settings.base_url else 0)
    if not settings.dry_run:
        print_result(review(reviewing, _open_judge(settings)))


def _print_cost(settings: JudgeSettings, work: Work, num_calls: int, max_new_tokens: int) -> None:
    estimate = describe_cost(work, num_calls, max_new_tokens=max_new_tokens, price=settings.price)
    console.print(estimate, highlight=False, soft_wrap=True)


def _check_settings(settings: JudgeSettings) -> str:
    """The judge's name in the record."""
    if settings.base_url:
        return settings.model
    if settings.num_runs > 1:
        raise ConfigError("--runs: a local judge always gives the same grades; expected 1")
    return name_local_judge(settings.model, settings.readout)


def _open_judge(settings: JudgeSettings) -> Judge:
    if settings.base_url:
        from prism_tune.evaluation.judge.api import ApiJudge

        return ApiJudge(settings.base_url, settings.model)
    from prism_tune.evaluation.judge.local import LocalJudge

    return LocalJudge(settings.model, readout=settings.readout)

"""The language benchmarks by name, as lm-eval's packaged tasks define them.

Nothing is imported here, so that `prism-tune score` can name them at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LanguageBenchmark:
    """A benchmark of lm-eval.

    Attributes:
        task_files: lm-eval's packaged ones, a glob below its tasks folder.
        splits: those the task reads, the examples' split last.
        configuration: the hub dataset's folder, where it has several.
        num_fewshot: examples before each question.
        metrics: our name -> lm-eval's metric and filter; the headline first.
        split_by: the column that names the task where all share their files.
    """

    task_files: str
    splits: tuple[str, ...]
    num_fewshot: int
    metrics: dict[str, tuple[str, str]]
    configuration: str = ""
    split_by: str = ""


LANGUAGE_BENCHMARKS: dict[str, LanguageBenchmark] = {
    # The official number of shots; lm-eval's own file has none (0 shots).
    "mmlu": LanguageBenchmark(
        task_files="mmlu/default/mmlu_*.yaml",
        splits=("test", "dev"),
        num_fewshot=5,
        metrics={"accuracy": ("acc", "none")},
        configuration="all",
        split_by="subject",
    ),
    "mmlu_pro": LanguageBenchmark(
        task_files="mmlu_pro/mmlu_pro_*.yaml",
        splits=("test", "validation"),
        num_fewshot=5,
        metrics={"accuracy": ("exact_match", "custom-extract")},
    ),
    # lm-eval's default; leaderboards use 10 shots.
    "hellaswag": LanguageBenchmark(
        task_files="hellaswag/hellaswag.yaml",
        splits=("validation",),
        num_fewshot=0,
        metrics={"accuracy_norm": ("acc_norm", "none"), "accuracy": ("acc", "none")},
    ),
    "gsm8k": LanguageBenchmark(
        task_files="gsm8k/gsm8k.yaml",
        splits=("test", "train"),
        num_fewshot=5,
        metrics={
            "accuracy": ("exact_match", "strict-match"),
            "accuracy_flexible": ("exact_match", "flexible-extract"),
        },
        configuration="main",
    ),
}

r"""MMBench-CN (Chinese dev): MMBench's questions and options in Chinese, and its protocol.

Source: open-compass, `mmbench_dev_cn_20231003.tsv`; or the hub's parquet of the same columns.
Schema, ids, predictions, references, metric, missing answers: as `mmbench.py`.
Prompt: llava15: as MMBench with "\n请直接回答选项字母。" at the end (`model_vqa_mmbench.py --lang
    cn`). lmms_eval: hint, question and the English "There are several options:" joined by spaces
    (its Chinese module reads the English task file), options as lines, an empty line,
    "请直接使用所提供的选项字母作为答案回答。"; a hint "nan" is asked there.
Decoding: greedy, 1,024 new tokens (lmms_eval: 256).
Parsing: as MMBench. lmms-eval has no task without GPT for it; what its rule for English resolves
    without GPT counts here, the rest is wrong.
Submission: `mmbench_cn_upload.xlsx`.
"""

from __future__ import annotations

from functools import partial

from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.mmbench import (
    circle_key,
    read_answers,
    score_answers,
    write_submission,
)
from prism_tune.evaluation.benchmarks.mmbench_rows import Wording, load_rows

NAME = "mmbench_cn"
_WORDING = Wording(
    {
        "llava15": "请直接回答选项字母。",
        "lmms_eval": "请直接使用所提供的选项字母作为答案回答。",
    },
    skips_nan=False,
)


def describe_version(num_questions: int) -> str:
    """The number alone: one file has been published."""
    return f"{num_questions:,} questions"


BENCHMARK = Benchmark(
    name=NAME,
    load_questions=partial(load_rows, wording=_WORDING),
    read_predictions=read_answers,
    score=partial(score_answers, name=NAME, describe=describe_version),
    max_new_tokens={"llava15": 1024, "lmms_eval": 256},
    write_submission=partial(write_submission, name=NAME),
    credit_key=circle_key,
)

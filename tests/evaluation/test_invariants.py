"""What holds for every benchmark: order and shards do not matter, right is most, garbage least."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.official_files import write_official

from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.predictions import read_predictions, write_predictions

HEADLINES = {
    "scienceqa": {"accuracy": 100, "accuracy_image": 100},
    "vizwiz": {"accuracy": 100},
    "pope": {"f1": 100, "accuracy": 100, "f1_random": 100, "f1_adversarial": 100},
    "mmvet": {"score_rule": 100, "rec_rule": 100, "know_rule": 100},
    "mmbench": {"accuracy": 100, "accuracy_first_pass": 100},
    "mme": {"perception": 400, "cognition": 200},
    "mmmu": {"accuracy": 1},
    "quickstart": {"accuracy": 100},
    "mmbench_cn": {"accuracy": 100, "accuracy_first_pass": 100},
    "textvqa": {"accuracy": 100},
    "gqa": {"accuracy": 100, "accuracy_open": 100, "accuracy_binary": 100},
    "vqav2": {"accuracy": 100, "accuracy_upload": 100},
    "seed_bench": {"accuracy": 100, "accuracy_image": 100, "accuracy_video": 100},
}  # fmt: skip
# Whatever is not "no" is a yes to POPE's official parser: half right, and everything recalled.
FLOORS = {"pope": {"f1": pytest.approx(200 / 3), "accuracy": 50}}
GARBAGE = "\u2603 \ud7ff\n|\t<image>"


@pytest.fixture(params=[name for name in BENCHMARKS if name != "llava_bench"])  # needs a judge
def case(request, tmp_path):
    """The benchmark, its questions, and a right answer to each."""
    benchmark = BENCHMARKS[request.param]
    annotations, right = write_official(request.param, tmp_path)
    return benchmark, benchmark.load_questions(annotations, "llava15"), right


def headline(benchmark, result):
    return {name: result.metrics[name] for name in HEADLINES[benchmark.name]}


def test_everything_right_is_the_maximum(case):
    benchmark, questions, right = case
    result = benchmark.score(questions, right, "llava15")
    assert headline(benchmark, result) == pytest.approx(HEADLINES[benchmark.name])
    assert result.num_missing == 0
    assert set(result.per_question.values()) == {1.0}


def test_garbage_is_the_floor(case):
    benchmark, questions, right = case
    garbage = [replace(answer, text=GARBAGE) for answer in right]
    metrics = benchmark.score(questions, garbage, "llava15").metrics
    floors = FLOORS.get(benchmark.name, dict.fromkeys(HEADLINES[benchmark.name], 0))
    assert {name: metrics[name] for name in floors} == floors


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_answer_breaks_a_scorer_or_leaves_the_scale(case, data):
    benchmark, questions, right = case
    texts = data.draw(st.lists(st.text(max_size=12), min_size=len(right), max_size=len(right)))
    answers = [replace(a, text=text) for a, text in zip(right, texts, strict=True)]
    for profile in ("llava15", "lmms_eval"):
        result = benchmark.score(questions, answers, profile)
        for name, most in HEADLINES[benchmark.name].items():
            assert 0 <= result.metrics[name] <= most + 1e-9


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_order_and_shards_never_change_a_score(case, tmp_path, data):
    """Half right; dealt to up to four files, which are joined in any order."""
    benchmark, questions, right = case
    mixed = [a if n % 2 else replace(a, text=GARBAGE) for n, a in enumerate(right)]
    expected = benchmark.score(questions, mixed, "llava15")
    ranks = data.draw(st.lists(st.integers(0, 3), min_size=len(mixed), max_size=len(mixed)))
    shuffled = data.draw(st.permutations(list(zip(ranks, mixed, strict=True))))
    content = b""
    for rank in data.draw(st.permutations(range(4))):
        write_predictions(tmp_path / "shard.jsonl", [a for of, a in shuffled if of == rank])
        content += (tmp_path / "shard.jsonl").read_bytes()
    (tmp_path / "all.jsonl").write_bytes(content)
    result = benchmark.score(questions, read_predictions(tmp_path / "all.jsonl"), "llava15")
    assert result.metrics == expected.metrics
    assert result.per_question == expected.per_question
    asked_otherwise = data.draw(st.permutations(questions))
    again = benchmark.score(asked_otherwise, mixed, "llava15").metrics
    assert again == pytest.approx(dict(expected.metrics))

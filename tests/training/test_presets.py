"""Each preset of another model, on a tiny random one of its architecture: assemble, align, tune.

The presets' own files are loaded; only paths, sizes and the device are overridden.
"""

from __future__ import annotations

import math

import pytest
import torch
from support.tiny import build_tokenizer
from support.training_runs import EXPERIMENTS, paper_presets
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from prism_tune.chat.builtin_templates import LAYOUTS
from prism_tune.config.load import load_config
from prism_tune.config.sections import ModelConfig
from prism_tune.data.conversation import render
from prism_tune.models.assembly.assemble import Recipe
from prism_tune.models.assembly.assemble_checkpoint import assemble_checkpoint, fold_output_bias
from prism_tune.models.families import parts
from prism_tune.models.load import load_model, load_shallow
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.written import read_log
from prism_tune.schema import Turn
from prism_tune.training.train import train

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
LLAMA = (LlamaForCausalLM, LlamaConfig)
QWEN2 = (Qwen2ForCausalLM, Qwen2Config)
PHI = (PhiForCausalLM, PhiConfig)
LLAMA3_TOKENS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
QWEN_TOKENS = ("<|im_start|>", "<|im_end|>")
# The alignment, what is tuned from it, and the language model's architecture and special tokens.
PRESETS = [
    ("phi2_3b_align", ["phi2_3b_full"], PHI, ("<|endoftext|>",)),
    ("qwen25_7b_base_align", ["qwen25_7b_base_full"], QWEN2, QWEN_TOKENS),
    ("qwen25_7b_instruct_align", ["qwen25_7b_instruct_full"], QWEN2, QWEN_TOKENS),
    ("llama3_8b_align", ["llama3_8b_full"], LLAMA, LLAMA3_TOKENS),
    ("vicuna_7b_align", ["llava15_7b_lora", "llava15_7b_full"], LLAMA, ("</s>",)),
    ("vicuna_13b_align", ["llava15_13b_lora", "llava15_13b_full"], LLAMA, ("</s>",)),
]


def write_tower(directory):
    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    CLIPVisionModel(config).save_pretrained(directory)
    CLIPImageProcessorPil().save_pretrained(directory)
    return str(directory)


def write_language_model(directory, architecture, tokens):
    """A checkpoint whose tokenizer has the template's tokens, no image token, no chat template."""
    model_class, config_class = architecture
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.eos_token, tokenizer.chat_template = tokens[-1], None
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = config_class(vocab_size=len(tokenizer), **TEXT, **ids)
    model = model_class(config)
    if model.lm_head.bias is not None:
        torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def run_preset(name, model, pool, folder):
    config = load_config(
        EXPERIMENTS / f"{name}.yaml",
        [
            f"model.path={model}",
            "model.dtype=float32",
            f"data.records={pool}",
            f"data.image_dir={pool.parent / 'images'}",
            "data.source=field",
            "data.max_length=512",
            "data.num_workers=0",
            f"output_dir={folder}",
            "training.records=pool",
            "training.deepspeed=null",
            "training.hf.per_device_train_batch_size=2",
            "training.hf.max_steps=2",
            "training.hf.bf16=false",
        ],
    )
    run = RunDir(folder / name)
    train(config, run)
    losses = [line["loss"] for line in read_log(run.training / "log.jsonl")]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    return config, run


def changed_parts(before, after):
    first, second = (
        parts(load_model(ModelConfig(path=str(path)), dtype=torch.float32))
        for path in (before, after)
    )
    return {
        part
        for part in ("vision_tower", "projector", "language_model")
        if any(
            not torch.equal(mine, its)
            for mine, its in zip(
                getattr(first, part).parameters(), getattr(second, part).parameters(), strict=True
            )
        )
    }


def adapted_modules(directory):
    from safetensors import safe_open

    with safe_open(directory / "adapter_model.safetensors", framework="pt") as tensors:
        return set(tensors.keys())


@pytest.mark.parametrize(
    ("align", "tunings", "architecture", "tokens"), PRESETS, ids=[preset[0] for preset in PRESETS]
)
@pytest.mark.slow
def test_assembled_aligned_and_tuned(tmp_path, drawn_pool, align, tunings, architecture, tokens):
    torch.manual_seed(0)
    tower = write_tower(tmp_path / "clip")
    language_model = write_language_model(tmp_path / "lm", architecture, tokens)
    template = load_config(EXPERIMENTS / f"{tunings[0]}.yaml").model.template
    assembled = tmp_path / "assembled"
    fold = architecture is PHI
    assemble_checkpoint(
        tower, language_model, assembled, Recipe(), chat_format=template, fold_bias=fold
    )

    _, aligned = run_preset(align, assembled, drawn_pool, tmp_path / "runs")
    assert changed_parts(assembled, aligned.checkpoint) == {"projector"}

    for tune in tunings:
        config, tuned = run_preset(tune, aligned.checkpoint, drawn_pool, tmp_path / "runs")
        assert config.model.template == template
        if config.training.tuning == "lora":
            names = adapted_modules(tuned.checkpoint)
            assert any("language_model" in name and "lora_A" in name for name in names)
            assert not any("vision_tower" in name for name in names)
        else:
            changed = changed_parts(aligned.checkpoint, tuned.checkpoint)
            assert changed == {"projector", "language_model"}

    processor = AutoProcessor.from_pretrained(aligned.checkpoint, backend="pil")
    end = processor.tokenizer.convert_tokens_to_ids(LAYOUTS[template].end_token)
    for folder in (assembled, aligned.checkpoint, tuned.checkpoint):
        ends = read_json(folder / "generation_config.json")["eos_token_id"]
        assert end in (ends if isinstance(ends, list) else [ends])
    turns = [Turn("human", "<image>\nwhat is it?"), Turn("gpt", "a circle")]
    turns += [Turn("human", "red?"), Turn("gpt", "no")]
    assert render(turns, "processor", processor).text == render(turns, template, processor).text


def test_no_preset_is_left_out():
    tested = {name for align, tunings, *_ in PRESETS for name in (align, *tunings)}
    assert tested == paper_presets()


@pytest.mark.parametrize("architecture", [PHI, QWEN2], ids=["phi", "qwen2"])
def test_shallow_features_of_other_decoders_are_those_of_the_full_model(tmp_path, architecture):
    torch.manual_seed(0)
    language_model = write_language_model(tmp_path / "lm", architecture, ("<|endoftext|>",))
    tower = write_tower(tmp_path / "clip")
    assemble_checkpoint(tower, language_model, tmp_path / "model", Recipe(), fold_bias=True)
    inputs = {"input_ids": torch.arange(20, 28)[None]}
    full = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    config = ModelConfig(path=str(tmp_path / "model"))
    with torch.no_grad():
        expected = full(**inputs, output_hidden_states=True).hidden_states[1]
        shallow = load_shallow(config, 1, dtype=torch.float32)(**inputs, use_cache=False)
    torch.testing.assert_close(shallow.last_hidden_state, expected, rtol=0, atol=0)


def test_a_bias_that_the_final_norm_can_express_is_folded_exactly():
    torch.manual_seed(0)
    model = PhiForCausalLM(PhiConfig(vocab_size=90, **TEXT)).eval()
    shift = torch.randn(32)
    with torch.no_grad():
        model.lm_head.bias.copy_(model.lm_head.weight @ shift + 3.0)  # a constant shifts nothing
        input_ids = torch.arange(10, 20)[None]
        expected = model(input_ids).logits.log_softmax(-1)
        assert fold_output_bias(model) == pytest.approx(0, abs=1e-6)
        assert model.lm_head.bias is None
        torch.testing.assert_close(
            model(input_ids).logits.log_softmax(-1), expected, rtol=1e-4, atol=1e-4
        )
        model.lm_head.bias = torch.nn.Parameter(torch.randn(90))
        assert 0.3 < fold_output_bias(model) < 0.95  # 32 directions of 90 can be taken over

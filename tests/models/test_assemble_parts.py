"""Every class of part that a LLaVA is assembled of: read back, its shallow half, a LoRA step."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from support.tiny import build_tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from prism_tune.config.sections import ModelConfig, TrainingConfig
from prism_tune.errors import UserError
from prism_tune.models.assembly.assemble import Recipe, VisionTower, assemble_llava
from prism_tune.models.families import parts
from prism_tune.models.guards import check_use
from prism_tune.models.load import load_model, load_shallow
from prism_tune.models.tuning import prepare_tuning

pytestmark = pytest.mark.slow

TOWER = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
TOWERS = {
    "clip": {},
    "siglip_vision_model": {},  # SigLIP, and SigLIP 2 of a fixed size
    "dinov2": {},
    "dinov2_with_registers": {"num_register_tokens": 4},
    "dinov3_vit": {"num_register_tokens": 4},
}
TEXT = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 2.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LANGUAGE_MODELS = {
    "llama": {"tie_word_embeddings": True, "rope_parameters": LLAMA3},  # Llama 3.2
    "qwen3": {},
    "qwen3_moe": EXPERTS,
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 32},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 32},
    "smollm3": {},
    "phi3": {"tie_word_embeddings": True, "rope_parameters": PARTIAL},  # Phi-4-mini
    "olmo2": {},
    "granite": {},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "qwen3_next": {
        **EXPERTS,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "shared_expert_intermediate_size": 8,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
    },
}
PAIRS = [(tower, "qwen3") for tower in TOWERS] + [
    ("clip", name) for name in LANGUAGE_MODELS if name != "qwen3"
]


def build_tower(name):
    if name == "clip":
        return CLIPVisionModel(CLIPVisionConfig(**TOWER)).eval()
    return AutoModel.from_config(AutoConfig.for_model(name, **TOWER, **TOWERS.get(name, {}))).eval()


def assemble(tower, language_model):
    torch.manual_seed(0)
    config = AutoConfig.for_model(language_model, **TEXT, **LANGUAGE_MODELS[language_model])
    vision = VisionTower(build_tower(tower), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    decoder = AutoModelForCausalLM.from_config(config)
    return assemble_llava(vision, decoder, build_tokenizer(), Recipe())


def states(model, inputs):
    """What goes into each decoder layer of the whole model."""
    kept = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: kept.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for layer in parts(model).language_model.layers
    ]
    logits = model(**inputs).logits
    for hook in hooks:
        hook.remove()
    return kept, logits


@pytest.mark.parametrize(("tower", "language_model"), PAIRS)
def test_a_pair_is_read_back_selected_with_and_tuned(tower, language_model, tmp_path):
    model, processor = assemble(tower, language_model)
    model.save_pretrained(tmp_path)
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    inputs = processor(text="<image>what is it?", images=image, return_tensors="pt")
    num_tokens = 8 if "num_register_tokens" in TOWERS[tower] else 4
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == num_tokens
    assert model.config.image_seq_length == num_tokens

    config = ModelConfig(path=str(tmp_path))
    loaded = load_model(config, dtype=torch.float32)
    with torch.no_grad():
        kept, logits = states(loaded, inputs)
        torch.testing.assert_close(logits, model.eval()(**inputs).logits)
        shallow = load_shallow(config, 2, dtype=torch.float32)(**inputs, use_cache=False)
    torch.testing.assert_close(shallow.last_hidden_state, kept[2], rtol=0, atol=0)

    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, -4:] = inputs["input_ids"][0, -4:]
    batch = {**inputs, "labels": labels}
    check_use(lambda given, keep: loaded(**given).logits[keep], batch, parts(loaded))
    assert loaded.generate(**inputs, max_new_tokens=2).shape[1] > inputs["input_ids"].shape[1]
    section = TrainingConfig(lora={"r": 2, "lora_alpha": 4})
    tuned = prepare_tuning(loaded, section, weights_dtype=torch.float32)
    tuned(**batch).loss.backward()
    trained = [p for p in tuned.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_images_of_any_size_are_refused():
    with pytest.raises(UserError, match=r"Siglip2VisionModel: images of any size \(NaFlex\)"):
        assemble("siglip2_vision_model", "qwen3")

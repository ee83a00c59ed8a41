"""Every family's adapter and merged weights, read back by plain transformers and peft."""

from __future__ import annotations

import logging

import pytest
import torch
from peft import PeftModel
from PIL import Image
from support.tiny_processors import TINY_PROCESSORS, build_family
from transformers import AutoModelForImageTextToText

from prism_tune.config.sections import TrainingConfig
from prism_tune.data.conversation import image_token
from prism_tune.models.tuning import prepare_tuning

pytestmark = pytest.mark.slow

LORA = {"r": 4, "lora_alpha": 8}
EXPERTS = {"qwen3_vl_moe", "qwen3_5_moe"}


@pytest.mark.parametrize("family", sorted(TINY_PROCESSORS))
def test_adapter_and_merged_weights_are_the_tuned_model(family, tmp_path, caplog):
    model, processor = build_family(family)
    model.save_pretrained(tmp_path / "base")
    image = Image.effect_noise((60, 40), 90).convert("RGB")
    text = f"{image_token(processor)}\nwhat is it?"
    inputs = processor(images=[[image]], text=[text], return_tensors="pt")
    with caplog.at_level(logging.INFO):
        tuned = prepare_tuning(model, TrainingConfig(lora=LORA), weights_dtype=torch.float32)
    tuned.eval()
    torch.manual_seed(0)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    tuned.save_pretrained(tmp_path / "adapter")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        expected = tuned(**inputs).logits
        adapted = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
        torch.testing.assert_close(adapted(**inputs).logits, expected)
        tuned.merge_and_unload(safe_merge=True).save_pretrained(tmp_path / "merged")
        merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-3, atol=1e-3)
    (line,) = [r.getMessage() for r in caplog.records if "LoRA adapts" in r.getMessage()]
    assert float(line.split()[2]) > 90  # per cent of the decoder


@pytest.mark.parametrize("family", sorted(EXPERTS))
def test_experts_that_dropout_hinders_are_told(family, caplog):
    model, _ = build_family(family)
    section = TrainingConfig(lora={**LORA, "lora_dropout": 0.05})
    prepare_tuning(model, section, weights_dtype=torch.float32)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "training.lora.lora_dropout for fused experts, which stay untrained" in warnings[0]

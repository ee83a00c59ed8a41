"""Beside the plain ways of tuning: DoRA, rsLoRA, recomputed activations, bfloat16, smoothing."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, CLIPVisionModel

from prism_tune.models.checkpoint import load_tuned
from prism_tune.run.written import read_log
from prism_tune.training.train import train

pytestmark = pytest.mark.slow  # seconds each

STEPS = {"max_steps": 3, "save_strategy": "no", "warmup_steps": 0}
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
BATCH = {
    "input_ids": torch.tensor([[3, 3, 3, 3, 20, 21, 22]]),
    "pixel_values": torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28),
}


def losses(make_run, name, *, hf=None, lora=None, **options):
    config, run = make_run(
        name, hf={**STEPS, **(hf or {})}, lora={**LORA, **(lora or {})}, **options
    )
    train(config, run)
    return [line["loss"] for line in read_log(run.training / "log.jsonl")]


@pytest.mark.parametrize("option", ["use_dora", "use_rslora"])
def test_a_variant_of_lora_trains_differently_and_reloads_with_peft(make_run, option):
    plain = losses(make_run, "plain")
    varied = losses(make_run, "varied", lora={option: True})
    assert varied[0] == pytest.approx(plain[0], rel=1e-5)  # the adapters begin at zero
    assert varied[2] != pytest.approx(plain[2], rel=1e-5)
    config, run = make_run("varied")
    assert json.loads((run.checkpoint / "adapter_config.json").read_text())[option] is True
    base = AutoModelForImageTextToText.from_pretrained(config.model.path, dtype=torch.float32)
    reloaded = PeftModel.from_pretrained(base, run.checkpoint).eval()
    merged = load_tuned(config, run.checkpoint, dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(
            merged(**BATCH).logits, reloaded(**BATCH).logits, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize(
    ("batching", "reentrant"), [("modality_length", None), ("packed", None), ("packed", True)]
)
def test_recomputed_activations_change_no_loss(make_run, monkeypatch, tuning, batching, reentrant):
    """Nor do they send gradients through the frozen vision tower, unless reentrant ones must."""
    seen = []
    forward = CLIPVisionModel.forward

    def watched(self, *arguments, **options):
        outputs = forward(self, *arguments, **options)
        seen.append(outputs.last_hidden_state.requires_grad)
        return outputs

    options = {"tuning": tuning, "batching": batching, "tokens_per_batch": 400}
    kept = losses(make_run, "kept", **options)
    monkeypatch.setattr(CLIPVisionModel, "forward", watched)
    hf = {"activation_checkpointing": True}
    if reentrant:
        hf["activation_checkpointing_kwargs"] = {"use_reentrant": True}
    recomputed = losses(make_run, "recomputed", **options, hf=hf)
    assert recomputed == pytest.approx(kept, rel=1e-5)
    assert any(seen) == bool(reentrant)


def test_bfloat16_follows_float32_and_saves_float32(make_run):
    exact = losses(make_run, "exact", tuning="full")
    rounded = losses(make_run, "rounded", tuning="full", hf={"bf16": True})
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != pytest.approx(exact, rel=1e-6)
    _, run = make_run("rounded")
    tensors = load_file(run.checkpoint / "model.safetensors")
    trained = [tensor for name, tensor in tensors.items() if "multi_modal_projector" in name]
    assert {tensor.dtype for tensor in trained} == {torch.float32}


def test_a_vision_tower_out_of_the_freezer_is_trained_and_saved_beside_lora(make_run):
    losses(make_run, "run", freeze=())
    config, run = make_run("run")
    saved = load_file(run.checkpoint / "adapter_model.safetensors")
    base = AutoModelForImageTextToText.from_pretrained(config.model.path, dtype=torch.float32)
    before = base.model.vision_tower.state_dict()
    tower = {
        name.partition("vision_tower.")[2]: tensor
        for name, tensor in saved.items()
        if "vision_tower." in name
    }
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tower.items())


def test_label_smoothing_is_that_of_torch(make_run, monkeypatch):
    seen = []
    cross_entropy = torch.nn.functional.cross_entropy

    def record(*arguments, **options):
        seen.append(options.get("label_smoothing"))
        return cross_entropy(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", record)
    smoothed = losses(make_run, "smoothed", hf={"label_smoothing_factor": 0.1})
    assert set(seen) == {0.1}
    assert smoothed[0] != pytest.approx(losses(make_run, "plain")[0], rel=1e-3)

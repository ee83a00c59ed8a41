"""Which parameters each tuning mode trains, on a tiny LLaVA of the true architecture."""

from __future__ import annotations

import shutil

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from prism_tune.config.sections import ModelConfig, TrainingConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.models import packed
from prism_tune.models.families import family_of, part_of, parts
from prism_tune.models.load import load_model
from prism_tune.models.lora import lora_targets
from prism_tune.models.tuning import (
    load_for_tuning,
    parameter_groups,
    parameter_part,
    prepare_tuning,
)

CPU = torch.device("cpu")
LORA = {"lora": {"r": 4, "lora_alpha": 8}}


def tuned(directory, dtype=torch.float32, **training):
    section = TrainingConfig(**training)
    model = load_model(ModelConfig(path=str(directory)), dtype=dtype)
    return prepare_tuning(model, section, weights_dtype=torch.float32), section


def trained_parts(model):
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    found = parts(base)
    return {parameter_part(n, found) for n, p in model.named_parameters() if p.requires_grad}


def test_full_trains_all_but_the_frozen_vision_tower(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, tuning="full")
    assert trained_parts(model) == {"projector", "language_model"}
    assert not any(p.requires_grad for p in parts(model).vision_tower.parameters())
    assert model.lm_head.weight.requires_grad


def test_full_with_nothing_frozen_trains_every_parameter(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, tuning="full", freeze=())
    assert all(p.requires_grad for p in model.parameters())


def test_projector_trains_the_projector_only(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, tuning="projector")
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == {
        f"model.multi_modal_projector.linear_{n}.{kind}"
        for n in (1, 2)
        for kind in ("weight", "bias")
    }


def test_lora_hits_every_decoder_linear_and_nothing_else(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, **LORA)
    adapted = {
        name.rpartition(".lora_A")[0] for name, _ in model.named_modules() if ".lora_A." in name
    }
    expected = {
        f"base_model.model.model.language_model.layers.{layer}.{module}"
        for layer in range(4)
        for module in (
            *(f"self_attn.{p}_proj" for p in "qkvo"),
            *(f"mlp.{p}_proj" for p in ("gate", "up", "down")),
        )
    }
    assert adapted == expected
    assert trained_parts(model) == {"projector", "language_model"}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or "multi_modal_projector.modules_to_save" in n for n in trained)


def test_lora_targets_are_a_regex_without_layer_numbers(tiny_llava_dir):
    found = parts(load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32))
    pattern = lora_targets(found)
    assert pattern.startswith(r"model\.language_model(?:")
    assert r"\.layers\.\d+\.self_attn\.q_proj" in pattern
    assert "layers.0" not in pattern


def test_lora_with_a_frozen_projector_leaves_it_alone(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, freeze=("vision_tower", "projector"), **LORA)
    assert trained_parts(model) == {"language_model"}


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear", r".*\.fc1|.*\.q_proj"])
def test_given_targets_are_those_of_the_decoder(tiny_llava_dir, targets):
    model, _ = tuned(tiny_llava_dir, lora={**LORA["lora"], "target_modules": targets})
    assert trained_parts(model) == {"projector", "language_model"}
    adapted = [name for name, _ in model.named_modules() if name.endswith("lora_A")]
    assert any(name.endswith("q_proj.lora_A") for name in adapted)
    assert all("language_model.layers" in name for name in adapted)


def test_what_peft_is_told_to_leave_out_is_left_out_as_well(tiny_llava_dir):
    for left_out in (["v_proj"], r".*\.v_proj"):
        lora = {"target_modules": ["q_proj", "v_proj"], "exclude_modules": left_out}
        model, _ = tuned(tiny_llava_dir, lora={**LORA["lora"], **lora})
        adapted = {name for name, _ in model.named_modules() if name.endswith("lora_A")}
        assert len(adapted) == 4
        assert all("language_model" in n and n.endswith("q_proj.lora_A") for n in adapted)


def test_more_modules_in_full_come_beside_the_projector(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, lora={**LORA["lora"], "modules_to_save": ["lm_head"]})
    assert trained_parts(model) == {"projector", "language_model"}
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("lm_head.modules_to_save" in name for name in names)


def test_peft_options_pass_through_verbatim(tiny_llava_dir):
    options = {"r": 2, "use_rslora": True, "use_dora": True, "target_modules": ["q_proj"]}
    model, _ = tuned(tiny_llava_dir, lora=options)
    config = model.peft_config["default"]
    assert (config.r, config.use_rslora, config.use_dora) == (2, True, True)
    assert config.target_modules == {"q_proj"}


def test_trained_weights_are_float32_and_frozen_ones_stay_as_loaded(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, dtype=torch.bfloat16, **LORA)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_frozen_parts_get_no_gradient_and_trained_ones_do(tiny_llava_dir):
    model, _ = tuned(tiny_llava_dir, tuning="full")
    input_ids = torch.tensor([[3, 3, 3, 3, 20, 21]])
    labels = torch.tensor([[-100, -100, -100, -100, 20, 21]])
    model(
        input_ids=input_ids, pixel_values=torch.randn(1, 3, 28, 28), labels=labels
    ).loss.backward()
    found = parts(model)
    assert all(p.grad is None for p in found.vision_tower.parameters())
    for part in (found.projector, found.language_model):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"lora_dropout": 0.1}])
def test_adapters_compute_the_same_as_with_the_casts_of_peft(tiny_llava_dir, lora):
    """Under autocast, as training runs; where the numbers would be others the casts stay."""
    options = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, **lora}
    model, _ = tuned(tiny_llava_dir, torch.bfloat16, lora=options)
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    assert {layer.cast_input_dtype_enabled for layer in layers} == {bool(lora)}
    ids_BL = torch.arange(20, 29)[None]

    def pass_through():
        torch.manual_seed(0)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids_BL, labels=ids_BL).loss
        loss.backward()
        grads = [layer.lora_B["default"].weight.grad.clone() for layer in layers]
        return [loss.detach(), *grads]

    ours = pass_through()
    for layer in layers:
        layer.cast_input_dtype_enabled = True
    for found, expected in zip(ours, pass_through(), strict=True):
        assert torch.equal(found, expected)


def test_each_part_has_its_learning_rate(tiny_llava_dir):
    rates = {"projector": 1e-3, "language_model": 2e-4}
    model, section = tuned(tiny_llava_dir, learning_rates=rates, **LORA)
    decayed = {n for n, _ in model.named_parameters() if not n.endswith("bias")}
    groups = list(parameter_groups(model, section, decayed=decayed, weight_decay=0.1))
    summary = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in groups}
    # Projector: two weights, two biases. Language model: 4 layers x 7 linear layers x A and B.
    assert summary == {(1e-3, 0.1): 2, (1e-3, 0.0): 2, (2e-4, 0.1): 56}


def test_a_part_without_its_own_rate_takes_the_general_one(tiny_llava_dir):
    model, section = tuned(tiny_llava_dir, tuning="full", learning_rates={"projector": 1e-3})
    groups = list(parameter_groups(model, section, decayed=set(), weight_decay=0.0))
    assert sorted("lr" in group for group in groups) == [False, True]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"tuning": "projector", "freeze": ("projector",)}, "nothing is left to train"),
        ({"tuning": "lora", "freeze": ("language_model",)}, "use `tuning: projector`"),
        ({"learning_rates": {"vision_tower": 1e-5}}, "learning_rates.vision_tower: .* not trained"),
        ({"lora": {"bias": "all"}}, "lora_only trains those of the layers that LoRA adapts"),
        ({"lora": {"inference_mode": True}}, "inference_mode: true trains nothing"),
        (
            {"lora": {"modules_to_save": ["out_proj"]}},
            r"trains model\.vision_tower\..*out_proj.*, but training\.freeze keeps vision_tower",
        ),
        (
            {"lora": {"modules_to_save": ["linear_1"]}},
            r"modules_to_save names model\.multi_modal_projector\.linear_1, which lies in another",
        ),
        ({"lora": {"lora_alfa": 8}}, "no `lora_alfa`; did you mean `lora_alpha`"),
    ],
)
def test_impossible_settings_are_config_errors(tiny_llava_dir, training, message):
    with pytest.raises(ConfigError, match=message):
        tuned(tiny_llava_dir, **training)


def test_qlora_without_a_gpu_says_so(tiny_llava_dir):
    with pytest.raises(UserError, match="qlora needs a CUDA device; use `lora`"):
        load_for_tuning(
            ModelConfig(path=str(tiny_llava_dir)),
            TrainingConfig(tuning="qlora"),
            dtype=torch.float32,
            device=CPU,
        )


@pytest.fixture
def without_packing(monkeypatch):
    """`qlora` loads as it is: bitsandbytes packs on a GPU only."""
    monkeypatch.setattr(packed, "require_bitsandbytes", lambda device: None)
    monkeypatch.setattr(packed, "BitsAndBytesConfig", lambda **options: None)


def load_packed(directory, **model):
    config, section = ModelConfig(path=str(directory), **model), TrainingConfig(tuning="qlora")
    return load_for_tuning(config, section, dtype=torch.float32, device=CPU)


def test_qlora_takes_the_attention_that_was_asked(tiny_llava_dir, without_packing):
    model = load_packed(tiny_llava_dir, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"


def test_qlora_refuses_a_model_that_lacks_weights(tiny_llava_dir, without_packing, tmp_path):
    shutil.copytree(tiny_llava_dir, tmp_path / "holed")
    weights = load_file(tiny_llava_dir / "model.safetensors")
    lost = next(name for name in weights if "language" in name and "q_proj" in name)
    rest = {name: weight for name, weight in weights.items() if name != lost}
    save_file(rest, tmp_path / "holed" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        load_packed(tmp_path / "holed")


def test_qlora_packs_the_decoder_alone(tiny_llava_dir):
    model = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)
    found, patterns = parts(model), packed.unpacked_modules(family_of(model.config))
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = {name for name in linear if should_convert_module(name, patterns)}
    assert chosen == {name for name in linear if part_of(name, found) == "language_model"}

"""Proof that a checkpoint holds what was trained, and loading it for evaluation."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from prism_tune.config.sections import Config, ModelConfig, TrainingConfig
from prism_tune.errors import UserError
from prism_tune.models.adapters import name_base
from prism_tune.models.checkpoint import digest_trained, load_tuned, verify_saved
from prism_tune.models.load import load_model
from prism_tune.models.tuning import prepare_tuning

CPU = torch.device("cpu")
BATCH = {
    "input_ids": torch.tensor([[3, 3, 3, 3, 20, 21, 22]]),
    "pixel_values": torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28),
}


def config_of(directory):
    return Config.model_validate(
        {"name": "run", "model": {"path": str(directory)}, "data": {"records": "none.json"}}
    )


def base_of(directory):
    return load_model(ModelConfig(path=str(directory)), dtype=torch.float32)


@pytest.fixture(scope="module")
def adapter(tiny_llava_dir, tmp_path_factory):
    """A LoRA checkpoint whose weights were moved as training would; directory, logits, digests."""
    section = TrainingConfig(lora={"r": 4, "lora_alpha": 8, "lora_dropout": 0.0})
    model = prepare_tuning(base_of(tiny_llava_dir), section, weights_dtype=torch.float32).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
        logits = model(**BATCH).logits
    directory = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(directory)
    return directory, logits, digest_trained(model)


def test_an_adapter_loads_merged_with_the_same_logits(adapter, tiny_llava_dir):
    directory, logits, _ = adapter
    model = load_tuned(config_of(tiny_llava_dir), directory, dtype=torch.float32, device=CPU)
    assert not isinstance(model, PeftModel)
    with torch.no_grad():
        torch.testing.assert_close(model(**BATCH).logits, logits, rtol=1e-4, atol=1e-4)


def test_a_merged_adapter_keeps_exact_positions_in_bfloat16(adapter, tiny_llava_dir):
    """Rounding the rotary frequencies would move every position but the first few."""
    model = load_tuned(config_of(tiny_llava_dir), adapter[0], dtype=torch.bfloat16, device=CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    exact = dict(base_of(tiny_llava_dir).named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, exact[name]), name


def test_plain_peft_loads_the_adapter(adapter, tiny_llava_dir):
    directory, logits, _ = adapter
    model = PeftModel.from_pretrained(base_of(tiny_llava_dir), directory)
    with torch.no_grad():
        torch.testing.assert_close(model(**BATCH).logits, logits, rtol=0, atol=0)


def test_without_a_checkpoint_the_base_model_is_loaded(adapter, tiny_llava_dir):
    model = load_tuned(config_of(tiny_llava_dir), None, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        logits = model(**BATCH).logits
        torch.testing.assert_close(logits, base_of(tiny_llava_dir)(**BATCH).logits)
    assert not torch.allclose(logits, adapter[1], atol=1e-2)


def test_full_weights_load_from_their_directory(tiny_llava_dir, tmp_path):
    model = base_of(tiny_llava_dir)
    with torch.no_grad():
        model.lm_head.weight += 0.1
        expected = model(**BATCH).logits
    model.save_pretrained(tmp_path)
    loaded = load_tuned(config_of(tiny_llava_dir), tmp_path, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**BATCH).logits, expected, rtol=0, atol=0)


def test_a_model_path_that_is_an_adapter_stands_for_its_base(adapter, tiny_llava_dir, tmp_path):
    directory, logits, _ = adapter
    base = name_base(ModelConfig(path=str(directory), dtype="float32"))
    assert base == ModelConfig(path=str(tiny_llava_dir), dtype="float32")
    model = load_tuned(config_of(base.path), directory, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        torch.testing.assert_close(model(**BATCH).logits, logits, rtol=1e-4, atol=1e-4)
    whole = ModelConfig(path=str(tiny_llava_dir))
    assert name_base(whole) is whole
    assert name_base(ModelConfig(path="hub/id")).path == "hub/id"
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/no/where"}')
    with pytest.raises(UserError, match="no such directory /no/where; set it to where"):
        name_base(ModelConfig(path=str(tmp_path)))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="base_model_name_or_path: missing"):
        name_base(ModelConfig(path=str(tmp_path)))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": -1}')
    with pytest.raises(UserError, match="base_model_name_or_path: -1; expected the base model"):
        name_base(ModelConfig(path=str(tmp_path)))


def test_a_good_checkpoint_is_verified(adapter):
    directory, _, trained = adapter
    assert len(trained) == 60
    verify_saved(directory, trained)


def damaged(adapter, target, change):
    tensors = load_file(adapter[0] / "adapter_model.safetensors")
    save_file(change(tensors), target / "adapter_model.safetensors")
    return target


def test_what_was_not_saved_as_trained_is_named(adapter, tmp_path):
    def zero(tensors):
        name = next(n for n in tensors if "layers.2.mlp.up_proj.lora_B" in n)
        return {**tensors, name: torch.zeros_like(tensors[name])}

    directory = damaged(adapter, tmp_path, zero)
    with pytest.raises(UserError, match=r"1 trained parameters were not saved.*layers\.2\.mlp\.up"):
        verify_saved(directory, adapter[2])


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.empty(0), "saved empty"), (torch.tensor([float("nan")]), "not finite")],
)
def test_empty_and_non_finite_tensors_are_refused(adapter, tmp_path, value, message):
    directory = damaged(adapter, tmp_path, lambda tensors: {**tensors, "extra": value})
    with pytest.raises(UserError, match=f"extra: {message}"):
        verify_saved(directory, adapter[2])


def test_a_directory_without_weights_is_refused(adapter, tmp_path):
    with pytest.raises(UserError, match="no safetensors file"):
        verify_saved(tmp_path, adapter[2])


def test_digests_see_values_shapes_and_dtypes():
    def digest(tensor):
        return digest_trained(torch.nn.ParameterDict({"w": torch.nn.Parameter(tensor)}))["w"]

    values = torch.arange(6.0)
    assert digest(values) == digest(values.clone())
    changed = values.clone()
    changed[3] += 1e-6
    others = [changed, values.reshape(2, 3), values.bfloat16()]
    assert len({digest(tensor) for tensor in [values, *others]}) == 4

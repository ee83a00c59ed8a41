"""What is taken from the file of `training.deepspeed`, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prism_tune.errors import ConfigError
from prism_tune.training.arguments import deepspeed_options, training_arguments
from prism_tune.training.early import check_training

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "deepspeed").glob("*.json"))


def arguments(made):
    config, run = made
    return training_arguments(config, run, device=torch.device("cpu"), dtype=torch.float32)


def test_no_deepspeed_file_means_plain_training(make_run):
    assert deepspeed_options(make_run()[0]) is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_deepspeed_file_is_accepted(make_run, path):
    options = {"deepspeed": f"configs/deepspeed/{path.name}"}
    config, _ = make_run(**options, learning_rates={"projector": 1e-3})
    assert deepspeed_options(config) == json.loads(path.read_text())


def test_a_missing_deepspeed_file_is_named(make_run):
    with pytest.raises(ConfigError, match=r"nowhere\.json: no such file; null trains without"):
        deepspeed_options(make_run(deepspeed="nowhere.json")[0])


def test_zero3_must_gather_what_it_saves(make_run, deepspeed_file):
    path = deepspeed_file(3, zero_optimization={"stage": 3})
    with pytest.raises(ConfigError, match="stage3_gather_16bit_weights_on_model_save"):
        deepspeed_options(make_run(deepspeed=path)[0])


def test_a_model_in_4_bit_is_not_shared(make_run):
    config, _ = make_run(deepspeed="configs/deepspeed/zero3.json", tuning="qlora")
    with pytest.raises(ConfigError, match=r"ZeRO-3 shares no model in 4 bit, .*=preset:zero2"):
        check_training(config)


@pytest.mark.parametrize(("key", "kind"), [("optimizer", "AdamW"), ("scheduler", "WarmupLR")])
def test_neither_optimizer_nor_schedule_of_deepspeed_takes_the_place_of_ours(
    make_run, deepspeed_file, key, kind
):
    path = deepspeed_file(2, **{key: {"type": kind}})
    expected = rf"its `{key}` would take the place of ours, .* leave it out; training\.hf"
    with pytest.raises(ConfigError, match=expected):
        deepspeed_options(make_run(deepspeed=path)[0])


def test_what_the_deepspeed_file_says_otherwise_is_named_with_both_values(make_run, deepspeed_file):
    path = deepspeed_file(2, train_micro_batch_size_per_gpu=4, gradient_clipping=7)
    made = make_run(deepspeed=path, hf={"per_device_train_batch_size": 2, "max_grad_norm": 1.0})
    expected = (
        "train_micro_batch_size_per_gpu=4, but training.hf has per_device_train_batch_size=2; "
        "gradient_clipping=7, but training.hf has max_grad_norm=1.0; write 'auto'"
    )
    with pytest.raises(ConfigError, match=expected):
        arguments(made)


def test_the_values_of_both_are_compared_before_anything_is_paid_for(make_run, deepspeed_file):
    """`run` selects for hours before it trains: it asks `check_training` first."""
    path = deepspeed_file(2, gradient_accumulation_steps=2)  # training.hf says nothing: its default
    expected = r"gradient_accumulation_steps=2, but training\.hf has gradient_accumulation_steps=1"
    with pytest.raises(ConfigError, match=expected):
        check_training(make_run(deepspeed=path)[0])


def test_a_file_that_says_nothing_of_clipping_clips_as_training_does_without_it(
    make_run, deepspeed_file
):
    path = deepspeed_file(2)
    content = json.loads(Path(path).read_text())
    content.pop("gradient_clipping", None)
    Path(path).write_text(json.dumps(content))
    made = make_run(deepspeed=path, hf={"max_grad_norm": 0.5})
    assert arguments(made).hf_deepspeed_config.config["gradient_clipping"] == 0.5


def test_a_file_that_says_nothing_of_the_batch_has_that_of_training(make_run, deepspeed_file):
    path = deepspeed_file(2)
    content = json.loads(Path(path).read_text())
    batch = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    Path(path).write_text(json.dumps({k: v for k, v in content.items() if k not in batch}))
    hf = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    made = make_run(deepspeed=path, hf=hf)
    found = arguments(made).hf_deepspeed_config.config
    assert [found[key] for key in batch] == [2, 4]
    assert found["train_batch_size"] == 8
    # A finished training with such a file stays finished.
    assert not deepspeed_options(made[0]).keys() & set(batch)


OFFLOAD = "configs/deepspeed/zero2_offload.json"


@pytest.mark.parametrize("optim", ["sgd", "adagrad", "adamw_bnb_8bit", "schedule_free_adamw"])
def test_an_optimiser_that_offloading_would_replace_is_refused(make_run, optim):
    expected = rf"optim = '{optim}': with the offload_optimizer of .* DeepSpeed's Adam would take"
    with pytest.raises(ConfigError, match=expected):
        check_training(make_run(deepspeed=OFFLOAD, hf={"optim": optim})[0])


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"])
def test_an_optimiser_that_deepspeed_has_as_well_is_offloaded(make_run, optim):
    check_training(make_run(deepspeed=OFFLOAD, hf={"optim": optim})[0])


@pytest.mark.parametrize(
    "extra",
    [
        {"zero_force_ds_cpu_optimizer": False},
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}},
    ],
)
def test_an_optimiser_that_is_not_replaced_may_be_any(make_run, tmp_path, extra):
    content = json.loads((SHIPPED[0].parent / "zero2_offload.json").read_text())
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**content, **extra}))
    check_training(make_run(deepspeed=str(path), hf={"optim": "sgd"})[0])

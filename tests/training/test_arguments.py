"""From the config's training section to TrainingArguments."""

from __future__ import annotations

import dataclasses
import importlib.util
import os

import pytest
import torch
from transformers import TrainingArguments

from prism_tune.errors import ConfigError
from prism_tune.training.arguments import (
    _list_trackers,
    compute_dtype,
    training_arguments,
)
from prism_tune.training.hf_options import WITHOUT_EFFECT, learning_options

CPU = torch.device("cpu")


def arguments(made, dtype=torch.float32):
    config, run = made
    return training_arguments(config, run, device=CPU, dtype=dtype)


@pytest.mark.parametrize(("tuning", "rate"), [("lora", 2e-4), ("full", 2e-5), ("projector", 1e-3)])
def test_defaults_are_those_of_llava(make_run, tuning, rate):
    config, run = make_run(tuning=tuning)
    bare = config.training.model_copy(update={"hf": {}})
    found = arguments((config.model_copy(update={"training": bare}), run))
    assert found.learning_rate == rate
    assert found.num_train_epochs == 1
    assert found.lr_scheduler_type == "cosine"
    assert found.warmup_steps == 0.03
    assert found.weight_decay == 0
    assert found.report_to == []


def test_hf_options_win_over_our_defaults(make_run):
    found = arguments(make_run(hf={"weight_decay": 0.5, "lr_scheduler_type": "linear", "seed": 9}))
    assert (found.weight_decay, found.lr_scheduler_type, found.seed) == (0.5, "linear", 9)


@pytest.mark.parametrize("metric", ["eval_loss", "eval_loss/colour"])
def test_the_lower_a_loss_the_better_whatever_its_name(make_run, metric):
    hf = {"metric_for_best_model": metric, "load_best_model_at_end": True}
    found = arguments(make_run(hf={**hf, "eval_steps": 1, "save_steps": 1}, validation=0.1))
    assert found.greater_is_better is False


def test_the_run_decides_where_things_go(make_run):
    config, run = make_run()
    assert arguments((config, run)).output_dir == str(run.training)
    assert arguments((config, run)).use_cpu


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_checkpointing_is_not_reentrant_unless_asked(make_run, name):
    found = arguments(make_run(hf={name: True}))
    assert found.activation_checkpointing_kwargs == {"use_reentrant": False}
    found = arguments(make_run(hf={name: True, f"{name}_kwargs": {"every_n_layers": 2}}))
    assert found.activation_checkpointing_kwargs == {"use_reentrant": False, "every_n_layers": 2}
    given = {"use_reentrant": True}
    found = arguments(make_run(hf={name: True, f"{name}_kwargs": given}))
    assert found.activation_checkpointing_kwargs == given


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({"learning_rat": 1}, "no `learning_rat`; did you mean `learning_rate`"),
        ({"output_dir": "x"}, "output_dir cannot be set: the run folder"),
        ({"deepspeed": "x.json"}, "deepspeed cannot be set: use `training.deepspeed`"),
        ({"lr_scheduler_type": "wave"}, "lr_scheduler_type = 'wave': Input should be"),
        ({"optim": "galore_adamw"}, "optim = 'galore_adamw' groups the parameters itself, .* use"),
        ({"optim": "apollo_adamw_layerwise"}, "optim = 'apollo_.*' groups the parameters itself"),
        ({"optim": "lomo"}, "optim = 'lomo' groups the parameters itself"),
        ({"optim": "adalomo"}, "optim = 'adalomo' groups the parameters itself"),
        ({"use_liger_kernel": True}, "needs a GPU and liger-kernel: pip install liger-kernel"),
    ],
)
def test_bad_options_are_config_errors(make_run, hf, message):
    with pytest.raises(ConfigError, match=message):
        arguments(make_run(hf=hf))


def test_liger_leaves_the_loss_to_us_also_in_packed_rows(make_run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    hf = {"use_liger_kernel": True, "liger_kernel_config": {"rope": False}}
    found = arguments(make_run(batching="packed", hf=hf))
    assert found.use_liger_kernel
    assert found.liger_kernel_config == {
        "rope": False,
        "cross_entropy": False,
        "fused_linear_cross_entropy": False,
    }


def test_wandb_is_offline_unless_the_environment_says_otherwise(make_run, monkeypatch):
    config, run = make_run("my-run")
    tracking = config.tracking.model_copy(update={"wandb": True, "project": "p", "entity": "e"})
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("WANDB_MODE")
    found = arguments((config.model_copy(update={"tracking": tracking}), run))
    assert (found.report_to, found.run_name) == (["wandb"], "my-run")
    names = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY")
    assert [os.environ[name] for name in names] == ["offline", "p", "e"]
    assert os.environ["WANDB_DIR"] == str(run.training)


@pytest.mark.parametrize(
    ("asked", "trackers"),
    [("none", ["wandb"]), ("wandb", ["wandb"]), (["flyte"], ["flyte", "wandb"]), ([], ["wandb"])],
)
def test_wandb_is_beside_other_trackers(asked, trackers, make_run):
    config, _ = make_run("my-run")
    tracking = config.tracking.model_copy(update={"wandb": True})
    assert _list_trackers(asked, config.model_copy(update={"tracking": tracking})) == trackers
    assert _list_trackers(asked, config) == asked


@pytest.mark.parametrize(
    ("hf", "dtype", "expected"),
    [
        ({}, "float32", torch.float32),
        ({}, "bfloat16", torch.bfloat16),
        ({"bf16": True}, "float32", torch.bfloat16),
        ({"bf16": False}, "bfloat16", torch.float32),
    ],
)
def test_what_to_compute_in(make_run, hf, dtype, expected):
    config, run = make_run(hf=hf, model={"dtype": dtype})
    assert compute_dtype(config, CPU) is expected
    assert arguments((config, run), expected).bf16 is (expected is torch.bfloat16)


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({"fp16": True}, "float16 training needs a GPU"),
        ({"fp16": True, "bf16": True}, "choose one"),
    ],
)
def test_what_the_device_cannot_compute_in_is_an_error(make_run, hf, message):
    with pytest.raises(ConfigError, match=message):
        compute_dtype(make_run(hf=hf)[0], CPU)


def test_bfloat16_that_a_gpu_only_emulates_is_refused(make_run, monkeypatch):
    def is_supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    gpu = torch.device("cuda", 0)
    with pytest.raises(ConfigError, match="Tesla T4 does not multiply"):
        compute_dtype(make_run(hf={"bf16": True})[0], gpu)
    assert compute_dtype(make_run(model={"dtype": "auto"})[0], gpu) is torch.float16


def test_one_process_takes_one_of_the_gpus_that_it_sees(make_run, monkeypatch):
    def set_up(self):
        self._n_gpu = 4
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(set_up))
    found = arguments(make_run(hf={"per_device_train_batch_size": 2}))
    assert (found.n_gpu, found.train_batch_size) == (1, 2)


WITH_EFFECT = {
    "accelerator_config",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "bf16",
    "data_seed",
    "dataloader_drop_last",
    "dataloader_in_order",
    "ddp_backend",
    "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters",
    "ddp_static_graph",
    "fp16",
    "fsdp",
    "fsdp_config",
    "full_determinism",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "greater_is_better",
    "ignore_data_skip",
    "label_names",
    "label_smoothing_factor",
    "learning_rate",
    "length_column_name",
    "liger_kernel_config",
    "load_best_model_at_end",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "metric_for_best_model",
    "neftune_noise_alpha",
    "num_train_epochs",
    "optim",
    "optim_args",
    "optim_target_modules",
    "parallelism_config",
    "per_device_train_batch_size",
    "restore_callback_states_from_checkpoint",
    "seed",
    "tf32",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "train_sampling_strategy",
    "use_cache",
    "use_cpu",
    "use_liger_kernel",
    "warmup_steps",
    "weight_decay",
}


def test_every_option_of_transformers_is_known_to_matter_or_not():
    """A new version's new option belongs into one of the two lists; until then it counts."""
    options = {field.name for field in dataclasses.fields(TrainingArguments)}
    ours = {"output_dir", "deepspeed", "remove_unused_columns", "resume_from_checkpoint"}
    assert not WITHOUT_EFFECT & WITH_EFFECT
    assert options - ours == WITHOUT_EFFECT | WITH_EFFECT


def test_an_option_nobody_knows_is_taken_to_matter(make_run):
    before = learning_options(make_run(hf={"log_level": "error"})[0])
    assert learning_options(make_run(hf={"log_level": "debug"})[0]) == before
    assert learning_options(make_run(hf={"not_yet_known": 1})[0]) == {**before, "not_yet_known": 1}


def test_a_default_that_is_spelt_out_changes_nothing(make_run):
    hf = {"lr_scheduler_type": "cosine", "max_grad_norm": 1.0, "warmup_steps": 0.03}
    assert learning_options(make_run(hf=hf)[0]) == learning_options(make_run()[0])


@pytest.mark.parametrize(
    ("hf", "counted"),
    [
        ({}, set()),
        (
            {"load_best_model_at_end": True},
            {"eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps"},
        ),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau"},
            {"eval_strategy", "eval_steps", "eval_delay"},
        ),
        (
            {"load_best_model_at_end": True, "eval_steps": None},
            {"eval_strategy", "eval_delay", "save_strategy", "save_steps", "logging_steps"},
        ),
    ],
)
def test_when_records_are_evaluated_counts_where_it_decides_the_model(make_run, hf, counted):
    given = {
        "eval_strategy": "epoch",
        "eval_steps": 3,
        "eval_delay": 1,
        "save_strategy": "epoch",
        "save_steps": 3,
        "logging_steps": 3,
        "save_total_limit": 2,
        "per_device_eval_batch_size": 2,
    }
    options = learning_options(make_run(validation=0.3, hf={**given, **hf})[0])
    assert options.keys() & given.keys() == counted

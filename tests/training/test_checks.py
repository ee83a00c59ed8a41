"""Values that transformers takes and that would train something else, or nothing, are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError
from prism_tune.training.batches import check_full_batch
from prism_tune.training.checkpoints import drop_oldest
from prism_tune.training.checks import check_metric_source, check_values


def asked(hf, **training):
    return Config.model_validate(
        {
            "model": {"path": "m"},
            "name": "x",
            "data": {"records": "r.json", "image_dir": "."},
            "training": {"hf": hf, **training},
        }
    )


@pytest.mark.parametrize(
    ("hf", "training", "message"),
    [
        ({"per_device_eval_batch_size": 0}, {}, "eval_batch_size = 0: expected at least 1"),
        ({"auto_find_batch_size": True}, {}, "auto_find_batch_size would train with another"),
        ({"train_sampling_strategy": "sequential"}, {}, "needs training.batching=random"),
        ({"fsdp": "full_shard"}, {}, "fsdp shares a model .*use training.deepspeed=preset:zero3"),
        ({"fsdp_config": {"version": 2}}, {}, "fsdp_config shares a model"),
        ({"parallelism_config": {"tp_size": 2}}, {}, "parallelism_config shares a model"),
        (
            {"train_sampling_strategy": "group_by_length"},
            {"batching": "random"},
            "expected one of random, sequential; training.batching=modality_length groups",
        ),
        (
            {"metric_for_best_model": "accuracy"},
            {"validation": 0.1},
            "'accuracy': expected eval_loss, or eval_loss/<source>",
        ),
    ],
)
def test_what_would_train_something_else_is_refused(hf, training, message):
    with pytest.raises(ConfigError, match=message):
        check_values(asked(hf, **training))


@pytest.mark.parametrize(
    ("hf", "training"),
    [
        ({"auto_find_batch_size": False, "train_sampling_strategy": "random"}, {}),
        ({"train_sampling_strategy": "sequential"}, {"batching": "random"}),
        ({"metric_for_best_model": "loss"}, {"validation": 0.1}),
        ({"metric_for_best_model": "eval_loss/colour"}, {"validation": 0.1}),
    ],
)
def test_what_trains_what_was_asked_is_taken(hf, training):
    check_values(asked(hf, **training))


def test_the_best_by_a_source_needs_a_held_out_record_of_it():
    for metric in (None, "eval_loss", "loss", "eval_loss/colour", "loss/colour"):
        check_metric_source(metric, ["colour", "shape"])
    with pytest.raises(ConfigError, match=r"'eval_loss/color': no held-out .* are colour, shape"):
        check_metric_source("eval_loss/color", ["shape", "colour"])


def test_leaving_out_every_batch_is_refused():
    arguments = SimpleNamespace(dataloader_drop_last=True, train_batch_size=4, world_size=2)
    check_full_batch(arguments, range(8), asked({}))
    check_full_batch(arguments, range(7), asked({}, batching="packed"))
    with pytest.raises(ConfigError, match=r"of 8 records .* there is none: 7 are trained on"):
        check_full_batch(arguments, range(7), asked({}))


@pytest.mark.parametrize(("limit", "kept"), [(None, 3), (-1, 3), (0, 3), (2, 2)])
def test_a_limit_below_one_keeps_every_checkpoint(tmp_path, limit, kept):
    for step in (2, 4, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    drop_oldest(tmp_path, limit)
    assert len(list(tmp_path.iterdir())) == kept

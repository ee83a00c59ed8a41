"""One side of `benchmarks/training.py`: another trainer, in its own environment.

    PEER_PYTHON benchmarks/training_peers.py (trl | llamafactory | ms_swift) TASK.json

The peer's own entry point is called with its own options, on its own export of the pool; what is
measured is watched from inside `transformers.Trainer.train`, which all of them end in. With
`batches` in the task the peer's trainer takes those in place of its own.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}USER: "
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% else %}"
    "{{ c['text'] | trim }}{% endif %}{% endfor %} ASSISTANT: {% else %}{% generation %}"
    "{{ m['content'][0]['text'] }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
"""LLaVA-1.5's, with the marks by which TRL finds the answers."""


class _TrainedError(Exception):
    """Measured: what the peer does after training is of no interest."""


def main(peer: str, task_file: Path) -> None:
    """Train and write what was measured, or leave with the peer's error."""
    task = json.loads(task_file.read_text())
    os.environ.update(HF_HUB_OFFLINE="1", ROOT_IMAGE_DIR=task["images"], WANDB_DISABLED="true")
    import torch

    torch.set_num_threads(task["threads"])
    _watch_training(task)
    try:
        {"trl": _trl, "llamafactory": _llamafactory, "ms_swift": _ms_swift}[peer](task)
    except _TrainedError:
        return
    raise SystemExit("the peer ended without calling transformers' Trainer.train")


def _watch_training(task: dict[str, Any]) -> None:
    import torch
    from training_watch import Stopwatch
    from transformers import Trainer

    train = Trainer.train

    def watched(self: Any, *_: Any, **options: Any) -> Any:
        if task["batches"]:
            batches = torch.load(task["batches"])
            self.get_train_dataloader = lambda: _Batches(batches)
            _forget_template(self)
        if task["adapter"]:
            _load_adapter(self.model, Path(task["adapter"]))
        watch = Stopwatch(self)
        train(self)
        Path(task["out"]).write_text(json.dumps(asdict(watch.result)))
        raise _TrainedError

    Trainer.train = watched


class _Batches:
    """A loader of what is given, once an epoch."""

    batch_sampler = None

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self._batches = batches
        self.dataset = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Any:
        return (dict(batch) for batch in self._batches)


def _forget_template(trainer: Any) -> None:
    """ms-swift's template would encode the inputs once more."""
    template = getattr(trainer, "template", None)
    if template is not None and hasattr(template, "remove_post_encode_hook"):
        template.remove_post_encode_hook()


def _load_adapter(model: Any, file: Path) -> None:
    """Start from the same random LoRA as ours."""
    import torch

    given = torch.load(file)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)


def _options(task: dict[str, Any]) -> dict[str, Any]:
    """Of TrainingArguments; the same for all."""
    return {
        "output_dir": str(Path(task["out"]).parent / "peer"),
        "per_device_train_batch_size": task["batch_size"],
        "gradient_accumulation_steps": 1,
        "max_steps": task["updates"],
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "adam_beta2": 0.999,
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": task["dtype"] == "bfloat16",
        "use_cpu": True,
        "seed": 0,
        "data_seed": 0,
        "dataloader_num_workers": 0,
        "report_to": "none",
    }


def _trl(task: dict[str, Any]) -> None:
    """As TRL's guide for vision-language models has it; its own collator, random order."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import SFTConfig, SFTTrainer

    processor = AutoProcessor.from_pretrained(task["model"])
    processor.chat_template = CHAT_TEMPLATE
    is_full = task["tuning"] == "full"
    model = AutoModelForImageTextToText.from_pretrained(
        task["model"], dtype=getattr(torch, task["dtype"])
    )
    model.model.vision_tower.requires_grad_(False)
    SFTTrainer(
        model=model,
        args=SFTConfig(
            **_options(task),
            gradient_checkpointing=False,
            max_length=task["max_length"],
            assistant_only_loss=True,
        ),
        train_dataset=load_dataset(str(Path(task["exports"]) / "trl" / "mine"), split="train"),
        processing_class=processor,
        peft_config=None if is_full else _lora(),
    ).train()


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        modules_to_save=["multi_modal_projector"],
        task_type="CAUSAL_LM",
    )


def _llamafactory(task: dict[str, Any]) -> None:
    """`llamafactory-cli train` without its command line."""
    from llamafactory.train.tuner import run_exp

    tuning: dict[str, Any] = {"finetuning_type": "full"}
    if task["tuning"] == "lora":
        tuning = {
            "finetuning_type": "lora",
            "lora_rank": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.0,
            "lora_target": "all",
            "additional_target": "multi_modal_projector",
        }
    run_exp(
        {
            **_options(task),
            **tuning,
            "model_name_or_path": task["model"],
            "stage": "sft",
            "do_train": True,
            "template": "llava",
            "dataset": "mine",
            "dataset_dir": str(Path(task["exports"]) / "llamafactory"),
            "media_dir": task["images"],
            "cutoff_len": task["max_length"],
            "freeze_vision_tower": True,
            "freeze_multi_modal_projector": False,
            "disable_gradient_checkpointing": True,
            "flash_attn": "sdpa",
            "overwrite_cache": True,
        }
    )


def _ms_swift(task: dict[str, Any]) -> None:
    """`swift sft` without its command line."""
    from swift.arguments import SftArguments
    from swift.pipelines import sft_main

    tuning: dict[str, Any] = {"tuner_type": "full"}
    if task["tuning"] == "lora":
        tuning = {
            "tuner_type": "lora",
            "lora_rank": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.0,
            "target_modules": ["all-linear"],
            "modules_to_save": ["multi_modal_projector"],
        }
    options = _options(task)
    options["report_to"] = ["none"]
    sft_main(
        SftArguments(
            **options,
            **tuning,
            model=task["model"],
            model_type="llava1_5_hf",
            dataset=[str(Path(task["exports"]) / "ms_swift" / "mine.jsonl")],
            split_dataset_ratio=0.0,
            torch_dtype=task["dtype"],
            attn_impl="sdpa",
            max_length=task["max_length"],
            truncation_strategy="right",
            freeze_vit=True,
            freeze_aligner=False,
            gradient_checkpointing=False,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

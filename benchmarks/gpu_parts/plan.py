"""The parts, in order of worth: what runs first where time is short."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Part:
    """One measurement, in a process of its own.

    Attributes:
        name: in the JSON and the table.
        call: "module:function" below `gpu_parts`; it gets the work folder and `options`.
        options: its keyword arguments.
        seconds: at most so many, then it is killed.
        needs: parts that must have been done.
        library: without which it cannot run.
    """

    name: str
    call: str
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 120
    needs: tuple[str, ...] = ()
    library: str | None = None

    def load(self) -> Any:
        """The function."""
        module, function = self.call.split(":")
        return getattr(importlib.import_module(f"gpu_parts.{module}"), function)


def plan_parts(*, toy: bool) -> list[Part]:
    """All parts."""
    return [
        Part("device", "parts:measure_device", seconds=60),
        Part("attention", "attention:run", _lengths(toy), 60),
        Part("mix", "parts:draw_mix", {"toy": toy}, 60),
        Part("pools", "parts:draw_images", {"toy": toy}, 90),
        Part("llava", "parts:draw_model", {"name": "llava", "toy": toy}, 120),
        *_extract("llava", 3 if toy else 32, toy),
        *_train(toy),
        *_generate("llava", toy),
        Part("equality, llava", "equality:run", {"family": "llava"}, 150),
        Part(
            "equality, qwen2_vl", "equality:run", {"family": "qwen2_vl"}, 150, library="torchvision"
        ),
        Part("doctor", "commands:run_doctor", {}, 60),
        Part("nccl", "parts:measure_nccl", seconds=60),
        *_train_more(toy),
        Part("qwen", "parts:draw_model", {"name": "qwen", "toy": toy}, 120, library="torchvision"),
        *_extract("qwen", 3 if toy else 28, toy),
        _training("qwen, packed", {}, toy, model="qwen"),
        *_generate("qwen", toy),
        Part("llava_part", "parts:draw_model", {"name": "llava_part", "toy": toy}, 120),
        _training(
            "llava_part, full, ZeRO-3 with offload",
            {"tuning": "full", "deepspeed": "configs/deepspeed/zero3_offload.json"},
            toy,
            model="llava_part",
            library="deepspeed",
            seconds=170,
        ),
        *_profiles(toy),
        Part("tests", "commands:run_tests", {}, 100),
        Part("scoring", "scoring:run", _matrix(toy), 170),
    ]


def _matrix(toy: bool) -> dict[str, Any]:
    rows, width = (1_000, 64) if toy else (624_610, 4_096)
    return {"rows": rows, "width": width, "scorers": ["kernel_prism", "kernel_repulsion"]}


def _lengths(toy: bool) -> dict[str, Any]:
    if toy:
        return {"lengths": [24, 40], "batch_size": 2}
    return {"lengths": [613, 655, 692, 731, 774, 832, 905, 1187], "batch_size": 16}


def _extract(model: str, depth: int, toy: bool) -> list[Part]:
    alone = "extraction:run_alone"
    return [
        Part(f"{model}: layer 1 alone", alone, _alone(model, 1, toy), 60, (model,)),
        _select(model, 1, 1.0),
        _select(model, depth, 0.15),
        Part(f"{model}: all layers alone", alone, _alone(model, depth, toy), 60, (model,)),
        _select(model, 1, 1.0, "torchvision"),
    ]


def _select(model: str, layer: int, share: float, backend: str = "pil") -> Part:
    name = f"{model}: select, layer {layer}"
    given = {"model": model, "layer": layer, "share": share, "backend": backend}
    if backend == "pil":
        return Part(name, "extraction:run_stage", given, 100, (model, "pools"))
    name = f"{name}, {backend}"
    return Part(name, "extraction:run_stage", given, 100, (model, "pools"), backend)


def _alone(model: str, layer: int, toy: bool) -> dict[str, Any]:
    return {"model": model, "layer": layer, "seconds": 0.3 if toy else 4.0}


def _training(
    name: str,
    options: dict[str, Any],
    toy: bool,
    *,
    model: str = "llava",
    library: str | None = None,
    seconds: float = 100,
) -> Part:
    if toy:
        hf = {**options.get("hf", {}), "per_device_train_batch_size": 4}
        options = {**options, "tokens_per_batch": 2048, "hf": hf}
    file_name = "".join(letter if letter.isalnum() else "-" for letter in name)
    given = {"name": file_name, "model": model, "steps": 3 if toy else 8, "options": options}
    return Part(name, "training:run", given, seconds, (model, "mix"), library)


def _train(toy: bool) -> list[Part]:
    grouped = {"batching": "modality_length"}
    liger = {**grouped, "hf": {"use_liger_kernel": True}}
    return [
        _training("llava, packed", {}, toy),
        _training("llava, packed, ZeRO-2", {"deepspeed": _zero(2)}, toy, library="deepspeed"),
        _training("llava, batches of 16 by length", grouped, toy),
        _training("llava, batches of 16 by length, liger", liger, toy, library="liger_kernel"),
    ]


def _train_more(toy: bool) -> list[Part]:
    flash = {"attn_implementation": "flash_attention_2"}
    grouped = {"batching": "modality_length"}
    whole = {"hf": {"gradient_checkpointing": False}, "tokens_per_batch": 6144}
    return [
        _training("llava, packed, ZeRO-3", {"deepspeed": _zero(3)}, toy, library="deepspeed"),
        _training("llava, packed, qlora", {"tuning": "qlora"}, toy, library="bitsandbytes"),
        _training("llava, packed, float16", {"dtype": "float16", "hf": {"fp16": True}}, toy),
        _training("llava, packed rows of 6,144, no checkpointing", whole, toy),
        _training("llava, batches of 16 at random", {"batching": "random"}, toy),
        _training("llava, packed, flash attention 2", flash, toy, library="flash_attn"),
        _training(
            "llava, batches of 16 by length, flash attention 2",
            {**flash, **grouped},
            toy,
            library="flash_attn",
        ),
    ]


def _profiles(toy: bool) -> list[Part]:
    training = _training("suspects, packed", {}, toy, seconds=150)
    options = {key: value for key, value in training.options.items() if key != "steps"}
    parts = [replace(training, call="suspects:run", options=options)]
    for name, given in (
        ("packed", {}),
        ("batches of 16 by length", {"batching": "modality_length"}),
    ):
        training = _training(f"profile, {name}", given, toy, model="llava_part")
        options = {key: value for key, value in training.options.items() if key != "steps"}
        parts.append(replace(training, call="profiles:run", options=options))
    return parts


def _zero(stage: int) -> str:
    return f"configs/deepspeed/zero{stage}.json"


def _generate(model: str, toy: bool) -> list[Part]:
    given = {"model": model, "sizes": [4, 8] if toy else [16, 64, 128]}
    given["questions"] = 32 if toy else 512
    return [Part(f"{model}: generation", "generation:run", given, 120, (model, "mix"))]

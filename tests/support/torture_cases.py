"""What is killed at random, each with what has to have run before and with what it leaves."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors.torch import load_file
from support.tiny import build_tokenizer, draw_pool, save_tiny_llava
from support.tiny_encoders import save_encoder
from support.tiny_runs import draw_questions, tiny_config
from transformers import LlamaConfig, LlamaForCausalLM

from prism_tune.quickstart.assets import wheel_dir

REPOSITORY = Path(__file__).parents[2]
RUN = "runs/tiny"
WEIGHTS, ANSWERS = "training/final/*.safetensors", "evaluation/*/predictions.jsonl"
SELECTION, PAGE = f"{RUN}/selection", f"{RUN}/report/index.html"
EVERYTHING = (f"{RUN}/{WEIGHTS}", f"{RUN}/{ANSWERS}", PAGE)
ALL = ("select", "train", "evaluate")

_MOVING = re.compile(r"(seconds|per_second|_at|start|end|flops)$|^(software|timings?)$")

STAND_IN = """#!/usr/bin/env bash
case "$*" in "-m pip "*) exit 0 ;; *) exec "{python}" -W ignore "$@" ;; esac
"""
"""The script's Python: nothing is installed, whatever else it is asked for happens."""


@dataclass(frozen=True)
class Case:
    """A command, what has to have run before, and what it leaves.

    Attributes:
        arguments: of the program.
        program: prism-tune is forked, with all its libraries; bash: the script.
        typed: at the keyboard.
    """

    arguments: str
    after: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    program: Literal["prism-tune", "python", "bash"] = "prism-tune"
    typed: str = ""


CASES = {
    "init": Case("init first.yaml --model model --records pool/pool.json", (), ("first.yaml",)),
    "audit": Case("audit config.yaml", (), (f"{RUN}/audit/audit.json",)),
    "select": Case(
        "select config.yaml --as llamafactory",
        (),
        (
            f"{SELECTION}/subset.json",
            f"{SELECTION}/scores.parquet",
            f"{SELECTION}/exports/**/*.json",
        ),
    ),
    "train": Case("train config.yaml", ("select",), (f"{RUN}/{WEIGHTS}",)),
    "evaluate": Case(
        "evaluate config.yaml",
        ("select", "train"),
        (f"{RUN}/{ANSWERS}", f"{RUN}/evaluation/*/results.json"),
    ),
    "preview": Case("preview config.yaml", ("select",)),
    "plan": Case("plan grid.yaml"),
    "export": Case(f"export {RUN} --to exported", ("select", "train"), ("exported/*.safetensors",)),
    "assemble": Case(
        "assemble --vision-tower tower --language-model text --to joined --template chatml",
        (),
        ("joined/*.safetensors", "joined/tokenizer.json"),
    ),
    "subset export": Case(
        f"subset export {RUN} --to shared.parquet", ("select",), ("shared.parquet",)
    ),
    "subset export --as": Case(
        f"subset export {RUN} --to trl --as trl", ("select",), ("trl/**/*",)
    ),
    "subset verify": Case(
        "subset verify shared.parquet --records pool/pool.json --to again.json",
        ("select", "subset export"),
        ("again.json",),
    ),
    "score": Case(
        f"score quickstart --predictions {RUN}/evaluation/quickstart/predictions.jsonl "
        "--annotations questions/test.json --output scored",
        ALL,
        ("scored/results.json",),
    ),
    "answers": Case(f"answers {RUN} --to answers.csv", ALL, ("answers.csv",)),
    "judge": Case(
        "judge mmvet --model text --predictions judged/answers.json "
        "--annotations judged/mm-vet.json --judge-prompt judged/prompt.txt --output grades.json",
        (),
        ("grades.json",),
    ),
    "chat": Case(f"chat {RUN}", ("select", "train"), typed="what is it?\nand now?\n"),
    "report": Case(f"report {RUN}", ALL, (PAGE,)),
    "tables": Case(f"tables main --runs {RUN}", ALL),
    "status": Case("status runs", ALL),
    "show": Case("show config.yaml"),
    "presets": Case("presets"),
    "data check": Case("data check config.yaml"),
    "doctor": Case("doctor"),
    "run": Case("run config.yaml --launch local", (), EVERYTHING),
    "compare": Case(
        "compare grid.yaml --launch local", (), (f"grid/**/{WEIGHTS}", f"grid/**/{ANSWERS}")
    ),
    "train by torchrun": Case(
        "-m prism_tune.compare.elastic --standalone --nproc_per_node=2 "
        "-m prism_tune train config.yaml training.hf.max_steps=4",
        ("select",),
        (f"{RUN}/{WEIGHTS}",),
        program="python",
    ),
    "select_and_finetune.sh": Case(
        "config.yaml training.hf.max_steps=4", (), EVERYTHING, program="bash"
    ),
    "prepare": Case(
        "prepare preset:comparison_start",
        (),
        ("data/comparison/*.json", "data/comparison/images/*", "data/comparison/model/*"),
    ),
}


def furnish(place: Path) -> None:
    """A model, its parts, a pool, questions, and the configs of a run and of a grid of two."""
    save_tiny_llava(place / "model")
    save_encoder("clip", place / "tower")
    save_text_model(place / "text")
    draw_pool(place / "pool", num_images=48)
    questions = draw_questions(place / "questions")
    _write_judged(place / "judged")
    if (wheels := wheel_dir()).is_dir():  # fetched once, for all
        (place / "cache").mkdir()
        (place / "cache" / "wheels").symlink_to(wheels)
    config = tiny_config(place, place / "model", place / "pool" / "pool.json", questions)
    config["training"]["hf"] |= {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}
    config["data"]["num_workers"] = 1
    config["training"]["grace_seconds"] = 10
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    grid = {**config, "name": "grid", "output_dir": str(place / "grid")}
    grid["compare"] = {"selectors": ["random", "length"], "budgets": [0.5]}
    grid["compare"] |= {"metrics": ["quickstart.accuracy"]}
    (place / "grid.yaml").write_text(yaml.safe_dump(grid))
    python = place / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)


def _write_judged(folder: Path) -> None:
    """Answers to MM-Vet, and the judge's few-shot table in the official shape."""
    folder.mkdir()
    entry = {"imagename": "i.jpg", "imagesource": "s", "capability": ["rec"], "answer": "Bob"}
    questions = {f"v1_{n}": {"question": f"who is {n}?", **entry} for n in range(20)}
    (folder / "mm-vet.json").write_text(json.dumps(questions))
    (folder / "answers.json").write_text(json.dumps(dict.fromkeys(questions, "it is bob")))
    head = "Question | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n"
    rows = "".join(f"q{n} | g | p | 0.{n}\n" for n in range(7))
    (folder / "prompt.txt").write_text(f"Give a score.\n\n{head}{rows}")


def command_of(case: Case, place: Path) -> list[str] | None:
    """The program to start; None where the command line is forked."""
    if case.program == "prism-tune":
        return None
    if case.program == "python":
        return [sys.executable, "-W", "ignore", *case.arguments.split()]
    config, *overrides = case.arguments.split()
    script = REPOSITORY / "scripts" / "select_and_finetune.sh"
    return ["bash", str(script), str(place / config), *overrides]


def content_of(path: Path) -> str:
    """Of a file, what is the same whenever it is written: a hash, or JSON without times."""
    if path.suffix == ".safetensors":
        tensors = {name: tensor.reshape(-1) for name, tensor in sorted(load_file(path).items())}
        hashed = hashlib.sha256(str({name: t.dtype for name, t in tensors.items()}).encode())
        for tensor in tensors.values():
            hashed.update(tensor.view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()
    if path.suffix == ".json":
        return json.dumps(_still(json.loads(path.read_text())), sort_keys=True)
    if path.suffix == ".html":
        return "written"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _still(item) for key, item in value.items() if not _MOVING.search(key)}
    return [_still(item) for item in value] if isinstance(value, list) else value


def save_text_model(folder: Path) -> None:
    """A Llama of two layers with its tokenizer."""
    tokenizer = build_tokenizer()
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

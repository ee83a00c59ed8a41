"""The config of a run at its smallest, and its held-out questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.tiny import COLOURS, draw_image


def draw_questions(folder: Path) -> dict[str, str]:
    """Four held-out questions in the quickstart's layout."""
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []
    for i in range(4):
        draw_image(images / f"{i}.png", i)
        row = {"question_id": i, "image": f"{i}.png", "text": "what color is it?"}
        rows.append({**row, "answer": COLOURS[i], "category": "colour"})
    (folder / "test.json").write_text(json.dumps(rows))
    return {"annotations": str(folder / "test.json"), "image_dir": str(images)}


def tiny_config(folder: Path, model: Path, pool: Path, questions: dict[str, str]) -> dict[str, Any]:
    """Two steps of LoRA on a tiny model; runs go below `folder`."""
    return {
        "name": "tiny",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model), "dtype": "float32", "template": "chatml"},
        "data": {
            "records": str(pool),
            "image_dir": str(pool.parent / "images"),
            "num_workers": 0,
        },
        "selection": {"dtype": "float32"},
        "training": {
            "lora": {"r": 4, "lora_alpha": 8},
            "deepspeed": None,
            "hf": {
                "max_steps": 2,
                "learning_rate": 1e-2,
                "per_device_train_batch_size": 4,
                "save_strategy": "no",
            },
        },
        "evaluation": {
            "benchmarks": ["quickstart"],
            "data": {"quickstart": questions},
            "dtype": "float32",
        },
    }

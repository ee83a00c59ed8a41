"""What other trainers' own loaders say of our exports: called by check_peers.sh, see there.

`write FOLDER` runs in prism_tune's environment; each peer's name runs in that peer's, without it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def talk(*texts: str) -> list[dict[str, str]]:
    """A conversation of questions and answers."""
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


RECORDS: list[dict[str, Any]] = [
    {"id": 1, "image": "a/0.png", "conversations": talk("<image>\nwhat?", "a cat")},
    {"id": "2", "image": "a/1.png", "conversations": talk("what?\n<image>", "b", "and?", "c")},
    {"id": "3", "image": ["a/2.png", "a/3.png"], "conversations": talk("<image><image>\n=?", "no")},
    {"id": "4", "conversations": talk("hello", "grüß dich"), "width": "none"},
    {"id": "5", "image": "a/4.png", "conversations": talk("in <image> what?", "d"), "width": 40},
    {
        "id": "6",
        "image": "a/5.png",
        "system": "Be brief.",
        "conversations": talk("<image>\nwhat?", "e"),
    },
]


def write(folder: Path) -> None:
    """A drawn pool, its exports, and a tiny random LLaVA to tokenise and train with."""
    from PIL import Image
    from support.tiny import save_tiny_llava

    from prism_tune.config.sections import DataConfig
    from prism_tune.data.records import open_pool
    from prism_tune.selection.export.layouts import LAYOUTS, export_pool

    for number in range(6):
        path = folder / "images" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 32), (number * 40, 20, 200)).save(path)
    (folder / "pool.json").write_text(json.dumps(RECORDS))
    os.environ["PRISM_TUNE_CACHE"] = str(folder / "cache")
    data = {"records": str(folder / "pool.json"), "image_dir": str(folder / "images")}
    pool = open_pool(DataConfig.model_validate(data))
    for name in ("trl", "llamafactory", "ms_swift"):
        export_pool(pool, name, folder / name / f"mine{LAYOUTS[name].suffix}")
    save_tiny_llava(folder / "model")


def trl(folder: Path) -> str:
    """TRL's SFTTrainer trains three steps on the folder."""
    from datasets import load_dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset(str(folder / "trl" / "mine"), split="train")
    assert len(rows) == 6, rows
    options = {"report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no"}
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(folder / "model"),
        processing_class=AutoProcessor.from_pretrained(folder / "model"),
        train_dataset=rows,
        args=SFTConfig(
            output_dir=str(folder / "trl_out"),
            max_length=None,
            max_steps=3,
            per_device_train_batch_size=2,
            **options,
        ),
    )
    batch = trainer.data_collator([rows[n] for n in range(6)])
    assert batch["pixel_values"].shape[0] == 6, batch["pixel_values"].shape
    assert "Be brief." in trainer.processing_class.decode(batch["input_ids"][5])
    loss = trainer.train().training_loss
    return f"6 rows, 6 images in a batch of all, 3 steps of SFTTrainer, loss {loss:.3f}"


def llamafactory(folder: Path) -> str:
    """LLaMA-Factory finds the file by dataset_info.json, aligns and tokenises it."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model, data, training, _, _ = get_train_args(
        {
            "model_name_or_path": str(folder / "model"),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "template": "llava",
            "dataset": "mine",
            "dataset_dir": str(folder / "llamafactory"),
            "media_dir": str(folder / "images"),
            "output_dir": str(folder / "lf_out"),
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
        }
    )
    tokens = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data)
    rows = get_dataset(template, model, data, training, stage="sft", **tokens)["train_dataset"]
    images = [len(row["images"] or []) for row in rows]
    assert images == [1, 1, 2, 0, 1, 1], images
    assert all(Path(name).exists() for row in rows for name in row["images"] or [])
    assert "Be brief." in tokens["tokenizer"].decode(rows[5]["input_ids"])
    return f"{len(rows)} rows tokenised, {sum(images)} images found"


def ms_swift(folder: Path) -> str:
    """ms-swift loads the file strictly, and opens the images below ROOT_IMAGE_DIR."""
    os.environ["ROOT_IMAGE_DIR"] = str(folder / "images")
    from swift.dataset import load_dataset
    from swift.template.vision_utils import load_image

    rows, _ = load_dataset([str(folder / "ms_swift" / "mine.jsonl")], strict=True)
    images = [image["path"] for row in rows for image in row["images"]]
    sizes = [load_image(name).size for name in images]
    assert [width for width, _ in sizes] == [40, 41, 42, 43, 44, 45], sizes
    assert rows[1]["messages"][0] == {"role": "user", "content": "what?\n<image>"}, rows[1]
    assert rows[5]["messages"][0] == {"role": "system", "content": "Be brief."}, rows[5]
    return f"{len(rows)} rows, {len(sizes)} images opened"


if __name__ == "__main__":
    asked, place = sys.argv[1], Path(sys.argv[2])
    if asked == "write":
        write(place)
    else:
        from importlib.metadata import version

        said = {"trl": trl, "llamafactory": llamafactory, "ms_swift": ms_swift}[asked](place)
        print(f"{asked} {version(asked.replace('_', '-'))}: {said}")  # noqa: T201

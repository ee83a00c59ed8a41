"""Training runs on tiny models: their config, their folder, what they logged and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from prism_tune.config.load import load_config, render_config
from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.run.written import read_log

EXPERIMENTS = Path(__file__).parents[2] / "configs" / "experiments"
HF = {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "max_steps": 6, "save_steps": 2}


def paper_presets() -> set[str]:
    """Names of the presets on a user's own model and data: not the embedded default's."""
    loaded = {path.stem: load_config(path) for path in EXPERIMENTS.glob("*.yaml")}
    return {
        name
        for name, config in loaded.items()
        if config.data.prepare is None and config.compare is None
    }


def write_run(
    folder: Path,
    name: str,
    *,
    model: dict[str, Any],
    file: Path,
    image_dir: Path,
    hf: dict[str, Any] | None = None,
    **training: Any,
) -> tuple[Config, RunDir]:
    """The config, also written to `experiment.yaml` of the run folder it belongs to."""
    section = {"records": "pool", "deepspeed": None, "lora": {"r": 4, "lora_alpha": 8}}
    config = Config.model_validate(
        {
            "name": name,
            "output_dir": str(folder),
            "model": {"dtype": "float32", **model},
            "data": {
                "records": str(file),
                "image_dir": str(image_dir),
                "num_workers": 0,
                "max_length": 256,
            },
            "training": {**section, **training, "hf": {**HF, **(hf or {})}},
        }
    )
    run = RunDir(folder / name)
    run.root.mkdir(parents=True, exist_ok=True)
    (run.root / "experiment.yaml").write_text(render_config(config))
    return config, run


def write_mixed_pool(file: Path, pool: Path, num_images: int) -> Path:
    """The first records with an image of a pool, each followed by one of text alone."""
    records = json.loads(pool.read_text())
    with_image = [record for record in records if "image" in record]
    mixed = []
    for number, record in enumerate(with_image[:num_images]):
        question = "is it even? " + "why? " * number
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "yes" * number}]
        turns[1]["value"] = "no" if number == 0 else turns[1]["value"]
        mixed += [record, {"id": f"text-{number}", "source": "text", "conversations": turns}]
    file.write_text(json.dumps(mixed))
    return file


def losses(run: RunDir) -> list[float]:
    """The logged losses."""
    return [line["loss"] for line in read_log(run.training / "log.jsonl")]


def weights(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint."""
    return {n: t for path in directory.glob("*.safetensors") for n, t in load_file(path).items()}

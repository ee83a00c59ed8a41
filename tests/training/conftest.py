"""A config and a run folder for the tiny LLaVA and the drawn pool; one thread, quick steps."""

from __future__ import annotations

import json

import pytest
import torch

from prism_tune.config import Config, render_config
from prism_tune.run_dir import RunDir

HF = {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "max_steps": 6, "save_steps": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_run(tiny_llava_dir, drawn_pool, tmp_path):
    """`make_run(name, hf=..., **training)` -> the config and its run folder."""

    def make(name="run", *, file=drawn_pool, hf=None, model=None, **training):
        section = {"records": "pool", "deepspeed": None, "lora": {"r": 4, "lora_alpha": 8}}
        config = Config.model_validate(
            {
                "name": name,
                "output_dir": str(tmp_path / "runs"),
                "model": {"path": str(tiny_llava_dir), "dtype": "float32", **(model or {})},
                "data": {
                    "records": str(file),
                    "image_dir": str(drawn_pool.parent / "images"),
                    "num_workers": 0,
                    "max_length": 256,
                },
                "training": {**section, **training, "hf": {**HF, **(hf or {})}},
            }
        )
        run = RunDir(tmp_path / "runs" / name)
        run.root.mkdir(parents=True, exist_ok=True)
        (run.root / "experiment.yaml").write_text(render_config(config))
        return config, run

    return make


@pytest.fixture(scope="session")
def deepspeed_file(tmp_path_factory):
    """`deepspeed_file(stage)` -> a file in the "auto" style of configs/deepspeed/."""
    directory = tmp_path_factory.mktemp("deepspeed")

    def write(stage, **extra):
        zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}
        content = {
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "train_batch_size": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": "auto"},
            "fp16": {"enabled": "auto"},
            "zero_optimization": zero,
            **extra,
        }
        path = directory / f"zero{stage}-{len(extra)}.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


@pytest.fixture(scope="session")
def mixed_pool(drawn_pool):
    """Images and text in turn, so that of two processes one always gets text only."""
    records = json.loads(drawn_pool.read_text())
    with_image = [record for record in records if "image" in record]
    mixed = []
    for number, record in enumerate(with_image[:8]):
        question = "is it even? " + "why? " * number
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "yes" * number}]
        turns[1]["value"] = "no" if number == 0 else turns[1]["value"]
        mixed += [record, {"id": f"text-{number}", "source": "text", "conversations": turns}]
    path = drawn_pool.parent / "mixed.json"
    path.write_text(json.dumps(mixed))
    return path

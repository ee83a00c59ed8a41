"""A config and a run folder for the tiny LLaVA and the drawn pool; one thread, quick steps."""

from __future__ import annotations

import json

import pytest
import torch
from support.training_runs import write_mixed_pool, write_run


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_run(tiny_llava_dir, drawn_pool, tmp_path):
    """`make_run(name, hf=..., **training)` -> the config and its run folder."""
    return _maker(tmp_path / "runs", tiny_llava_dir, drawn_pool)


@pytest.fixture(scope="module")
def make_shared_run(tiny_llava_dir, drawn_pool, tmp_path_factory):
    """The same for what several tests of a file begin with."""
    return _maker(tmp_path_factory.mktemp("shared"), tiny_llava_dir, drawn_pool)


def _maker(folder, tiny_llava_dir, drawn_pool):
    def make(name="run", *, file=drawn_pool, hf=None, model=None, **training):
        return write_run(
            folder,
            name,
            model={"path": str(tiny_llava_dir), "template": "vicuna_v1", **(model or {})},
            file=file,
            image_dir=drawn_pool.parent / "images",
            hf=hf,
            **training,
        )

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
    """Eight images, each followed by a record of text alone."""
    return write_mixed_pool(drawn_pool.parent / "mixed.json", drawn_pool, num_images=8)

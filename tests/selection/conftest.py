"""A config over the tiny LLaVA and the drawn pool, with a run folder of its own; a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir, read_json


@pytest.fixture
def workplace(tiny_llava_dir, drawn_pool, tmp_path, monkeypatch):
    """Own copies of pool and images; `select(**overrides)` runs the stage and reads its outputs."""
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    pool = tmp_path / "pool"
    shutil.copytree(drawn_pool.parent, pool)
    (tmp_path / "config.yaml").write_text(
        f"""
name: run
output_dir: {tmp_path / "runs"}
model: {{path: {tiny_llava_dir}, template: vicuna_v1}}
data: {{records: {pool / "pool.json"}, image_dir: {pool / "images"}, num_workers: 0}}
selection: {{dtype: float32, budget: 0.5}}
"""
    )
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def published_run(tiny_llava_dir, drawn_pool, tmp_path_factory):
    """A finished selection: 14 of 26 records, of which two repeat an id."""
    root = tmp_path_factory.mktemp("published")
    shutil.copytree(drawn_pool.parent / "images", root / "images")
    records = json.loads(drawn_pool.read_text())
    records[1]["id"] = records[0]["id"]
    records.append(records[3])  # an exact duplicate is a record of its own
    (root / "pool.json").write_text(json.dumps(records))
    config = Config.model_validate(
        {
            "name": "published",
            "output_dir": str(root),
            "model": {"path": str(tiny_llava_dir)},
            "data": {
                "records": str(root / "pool.json"),
                "image_dir": str(root / "images"),
                "num_workers": 0,
            },
            "selection": {"scorer": "random", "budget": 0.5},
        }
    )
    run = RunDir(root / "published")
    from prism_tune.selection.select import select

    select(config, run)
    return run


@pytest.fixture(scope="session")
def adapter(tiny_llava_dir, tmp_path_factory):
    """A LoRA on the tiny model's attention, with weights that are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    from prism_tune.config.sections import ModelConfig
    from prism_tune.models.load import load_model

    torch.manual_seed(0)
    model = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return folder


class Workplace:
    def __init__(self, root):
        self.root = root
        self.config_file = root / "config.yaml"
        self.images = root / "pool" / "images"
        self.pool = root / "pool" / "pool.json"

    def config(self, **overrides):
        items = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
        return load_config(self.root / "config.yaml", items)

    def run_dir(self, **overrides):
        config = self.config(**overrides)
        return RunDir(Path(config.output_dir) / config.name)

    def elsewhere(self, name="elsewhere"):
        """Overrides for a run that finds no evidence of others."""
        return {"output_dir": self.root / name}

    def shards(self, kind="features", output_dir="runs"):
        """Of every store of a kind."""
        return sorted((self.root / output_dir / "evidence" / kind).glob("*/shard-*"))

    def use_pool(self, pool):
        """Another pool that `draw_pool` has drawn."""
        text = self.config_file.read_text().replace(str(self.pool.parent), str(pool.parent))
        self.config_file.write_text(text)
        self.pool, self.images = pool, pool.parent / "images"

    def records(self):
        return json.loads(self.pool.read_text())

    def write_records(self, records):
        self.pool.write_text(json.dumps(records))

    def select(self, *, force=False, tune=None, **overrides):
        from prism_tune.selection.select import select

        run = self.run_dir(**overrides)
        select(self.config(**overrides), run, force=force, tune=tune)
        return self.read(run)

    def read(self, run):
        return SimpleNamespace(
            run=run,
            manifest=read_json(run.selection / "manifest.json"),
            scores=pq.read_table(run.selection / "scores.parquet").to_pylist(),
            subset=read_json(run.subset),
        )

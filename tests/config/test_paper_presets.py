"""Every preset of the paper's tables, shrunk to a tiny model and pool, from select to table.

Only paths, sizes and the device are overridden. Work is shared as far as it is the same: an equal
selection is made once; of equal recipes (tuning, template, records) one preset is tuned.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prism_tune.results.plan import PLANS
from support.tiny import draw_image, draw_pool, save_tiny_llava
from support.tiny_encoders import save_encoder
from transformers import AutoModelForImageTextToText, AutoProcessor

from prism_tune.config.load import load_config, render_config
from prism_tune.config.sections import Config
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.results.build import build_table
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_json, write_atomic
from prism_tune.selection.select import select
from prism_tune.training.train import train

EXPERIMENTS = Path(__file__).parents[2] / "configs" / "experiments"
PRESETS = sorted([*EXPERIMENTS.glob("paper/*/*.yaml"), *EXPERIMENTS.glob("quickstart_tables/*")])
NUM_LAYERS = 4
DEPTHS = {"paper": 32, "quickstart_tables": 30}
END_TOKENS = ["<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
BENCHMARKS = {"language": "hellaswag", "quickstart_tables": "quickstart"}

TUNED = {
    "main": ("paper/main/pool_7b_full", "paper/main/prism_7b_full"),
    "main_lora": ("paper/main/pool_7b_lora", "paper/main/prism_7b_lora"),
    "ablation": ("paper/main/prism_7b_full", "paper/ablation/keep_high_7b_full"),
    "visionflan": ("paper/visionflan/visionflan_prism_7b_full",),
    "visionflan_lora": ("paper/visionflan/visionflan_prism_7b_lora",),
    "models": (
        "paper/models/phi2_3b_pool_full",
        "paper/models/phi2_3b_prism_full",
        "paper/models/qwen25_7b_base_prism_full",
        "paper/models/llama3_8b_prism_full",
    ),
    "language": ("paper/language/prism_7b_full",),
    "quickstart": tuple(
        f"quickstart_tables/quickstart_{name}" for name in ("untuned", "pool", "prism")
    ),
}


def write_benchmarks(folder: Path) -> dict[str, dict[str, str]]:
    """Four questions of the quickstart and of each of POPE's splits, two of HellaSwag."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number in range(2):
        draw_image(images / f"{number}.png", number)
    asked = [
        {"question_id": n, "image": f"{n % 2}.png", "text": text, "answer": answer, "category": c}
        for n, (text, answer, c) in enumerate(
            [("what color?", "red", "color"), ("red?", "no", "is"), ("blue?", "no", "is")]
        )
    ]
    (folder / "test.json").write_text(json.dumps(asked))
    for split in ("random", "popular", "adversarial"):
        lines = [
            {"question_id": n, "image": f"{n}.png", "text": "Is there a dog?", "label": "no"}
            for n in range(2)
        ]
        (folder / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, lines)))
    row = {"ind": 0, "activity_label": "a", "ctx_a": "A man", "ctx_b": "he", "ctx": "A man he"}
    rows = [{**row, "endings": ["runs", "is", "no", "yes"], "label": str(n)} for n in range(2)]
    (folder / "hellaswag").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "hellaswag" / "validation.parquet")
    return {
        "quickstart": {"annotations": str(folder / "test.json"), "image_dir": str(images)},
        "pope": {"annotations": str(folder), "image_dir": str(images)},
        "hellaswag": {"annotations": str(folder / "hellaswag")},
    }


def save_model(folder: Path) -> Path:
    """The tiny LLaVA, with the end tokens of every template."""
    save_tiny_llava(folder, num_layers=NUM_LAYERS)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    processor.tokenizer.add_tokens(END_TOKENS, special_tokens=True)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.resize_token_embeddings(len(processor.tokenizer))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class Workshop:
    """Runs shrunk presets; what it made once it uses again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        pool = draw_pool(root / "pool")
        records = [{**record, "task_name": record["source"]} for record in read_json(pool)]
        pool.write_text(json.dumps(records))
        self.pool = pool
        self.model = save_model(root / "model")
        self.encoder = save_encoder("clip", root / "clip")
        self.benchmarks = write_benchmarks(root / "benchmarks")
        self.selections: dict[str, RunDir] = {}

    def shrink(self, preset: Path) -> Config:
        config = load_config(preset)
        folder = preset.relative_to(EXPERIMENTS).parts[0]
        layer = max(1, config.selection.layer * NUM_LAYERS // DEPTHS[folder])
        benchmark = BENCHMARKS.get(preset.parent.name, "pope")
        data = self.benchmarks[benchmark].items()
        overrides = [
            f"output_dir={self.root / 'runs'}",
            f"model.path={self.model}",
            "model.dtype=float32",
            "data.prepare=null",
            f"data.records={self.pool}",
            f"data.image_dir={self.pool.parent / 'images'}",
            "data.source=field",
            "data.max_length=512",
            "data.num_workers=0",
            "selection.dtype=float32",
            f"selection.layer={layer}",
            "training.deepspeed=null",
            "training.hf.bf16=false",
            "training.hf.max_steps=2",
            "training.hf.per_device_train_batch_size=2",
            "evaluation.dtype=float32",
            f"evaluation.benchmarks=[{benchmark}]",
            *(f"evaluation.data.{benchmark}.{key}={value}" for key, value in data),
        ]
        if config.selection.scorer == "clip_score":
            overrides.append(f"selection.options.model={self.encoder}")
        return load_config(preset, overrides)

    def open(self, preset: Path) -> tuple[Config, RunDir]:
        config = self.shrink(preset)
        run = RunDir(Path(config.output_dir) / config.name)
        write_atomic(run.config, render_config(config))
        return config, run

    def select(self, config: Config, run: RunDir) -> None:
        """Like `prism-tune select`; an equal selection is brought here, and found finished."""
        depends_on = [config.selection.model_dump(), config.model.model_dump(), config.data.columns]
        made = self.selections.setdefault(fingerprint(depends_on), run)
        if made != run and not run.selection.exists():
            shutil.copytree(made.selection, run.selection)
        select(config, run)

    def finish(self, preset: Path) -> RunDir:
        """From select to results."""
        config, run = self.open(preset)
        if config.training.tuning != "none":
            if config.training.records == "subset":
                self.select(config, run)
            train(config, run)
        evaluate(config, run, force=False)
        return run


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


def stem(preset: Path) -> str:
    return str(preset.relative_to(EXPERIMENTS).with_suffix(""))


SELECTING = [
    preset
    for preset in PRESETS
    if load_config(preset).training.records == "subset" and "untuned" not in preset.stem
]


@pytest.mark.parametrize("preset", SELECTING, ids=stem)
def test_selects(workshop, preset):
    config, run = workshop.open(preset)
    workshop.select(config, run)
    manifest = read_json(run.selection / "manifest.json")
    assert manifest["scorer"] == load_config(preset).selection.scorer
    # 24 image records; 0.3 x 24 = 7.2, a third of 24 is 8; and the two of text.
    assert manifest["num_selected"] == (10 if "third" in preset.stem else 9)


@pytest.mark.parametrize("plan", PLANS)
def test_from_select_to_table(workshop, plan):
    presets = [EXPERIMENTS / f"{name}.yaml" for name in TUNED[plan]]
    planned = [p for patterns in PLANS[plan].tables.values() for p in patterns]
    assert all(any(p.relative_to(EXPERIMENTS).match(q) for q in planned) for p in presets)
    runs = [workshop.finish(preset) for preset in presets]
    for kind in PLANS[plan].tables:
        shown = [run for run in runs if kind != "cost" or "untuned" not in run.root.name]
        text = build_table(kind, [run.root for run in shown], baseline=None)
        listed = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("|")]
        expected = [p.stem for p in presets]
        if kind == "cost":
            expected = [name for name in expected if "pool" not in name and "untuned" not in name]
        assert set(expected) <= set(listed)
        assert "STALE" not in text


def test_every_recipe_is_tuned_in_some_plan():
    def recipes(presets):
        loaded = [load_config(preset) for preset in presets]
        return {(c.training.tuning, c.model.template) for c in loaded}

    tuned = {EXPERIMENTS / f"{name}.yaml" for names in TUNED.values() for name in names}
    assert recipes(tuned) == recipes(PRESETS)

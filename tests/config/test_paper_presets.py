"""Every row of the tables' grids, shrunk to a tiny model and pool, from select to table.

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
from support.tiny import draw_image, draw_pool, save_tiny_llava
from support.tiny_encoders import save_encoder
from transformers import AutoModelForImageTextToText, AutoProcessor

from prism_tune.compare.grid_cells import plan_cells
from prism_tune.config.load import load_config, render_config
from prism_tune.config.sections import Config
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.results.build import build_table
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_json, write_atomic
from prism_tune.selection.select import select
from prism_tune.training.train import train

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).parents[2] / "configs" / "experiments"
GRIDS = {path.stem: load_config(path) for path in sorted(EXPERIMENTS.glob("tables/*.yaml"))}
CELLS = {
    f"{grid}/{cell.selector}": cell
    for grid, config in GRIDS.items()
    for cell in plan_cells(config, RunDir(Path("runs") / config.name))
}
NUM_LAYERS = 4
END_TOKENS = ["<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
BENCHMARKS = {"language": "hellaswag", "quickstart": "quickstart"}

WARMUP = {"share": 0.3, "lora_rank": 4, "hf": {"save_strategy": "no"}}
REFERENCES = {key: {"warmup": WARMUP} for key in ("tive", "icons_heldout", "less_heldout")}
OPTIONS = {"coincide": {"num_clusters": 4}, **{key: {"dimension": 64} for key in REFERENCES}}
ENCODING = ("clip_score", "self_filter_static")
COUNTS = {  # of 24 image records and two of text, 26 rows; elsewhere 0.3 x 24 = 7.2, and the text
    **dict.fromkeys(("coincide", "datatailor", "tive"), 8),
    "scalselect": 7,
    "budget_third": 10,
}

TUNED = {
    "main": ("pool_7b_full", "prism_7b_full"),
    "main_lora": ("pool_7b_lora", "prism_7b_lora"),
    "ablation": ("prism_7b_full", "keep_high_7b_full"),
    "visionflan": ("visionflan_prism_7b_full",),
    "visionflan_lora": ("visionflan_prism_7b_lora",),
    "models": (
        "phi2_3b_pool_full",
        "phi2_3b_prism_full",
        "qwen25_7b_base_prism_full",
        "llama3_8b_prism_full",
    ),
    "language": ("prism_7b_full",),
    "selectors": ("prism_7b_full",),  # the runs of `main`, asked more
    "published": ("published_el2n_7b_lora",),
    "quickstart": ("quickstart_untuned", "quickstart_pool", "quickstart_prism"),
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

    def open(self, name: str) -> tuple[Config, RunDir]:
        """A cell on the tiny model and pool, its layer in proportion."""
        grid, cell = name.split("/")[0], CELLS[name]
        layer = cell.config.selection.layer * NUM_LAYERS // (30 if grid == "quickstart" else 32)
        benchmark = BENCHMARKS.get(grid, "pope")
        data = self.benchmarks[benchmark].items()
        overrides = [
            f"output_dir={self.root / 'runs'}",
            f"name={cell.selector}",
            f"model.path={self.model}",
            "model.dtype=float32",
            "data.prepare=null",
            f"data.records={self.pool}",
            f"data.image_dir={self.pool.parent / 'images'}",
            "data.source=field",
            "data.max_length=512",
            "data.num_workers=0",
            "selection.dtype=float32",
            f"selection.layer={max(1, layer)}",
            "training.deepspeed=null",
            "training.hf.bf16=false",
            "training.hf.max_steps=2",
            "training.hf.per_device_train_batch_size=2",
            "evaluation.dtype=float32",
            f"evaluation.benchmarks=[{benchmark}]",
            *(f"evaluation.data.{benchmark}.{key}={value}" for key, value in data),
        ]
        scorer, section = cell.config.selection.scorer, "selection.options"
        overrides += [f"{section}.{key}={value}" for key, value in OPTIONS.get(scorer, {}).items()]
        if scorer in ENCODING:
            overrides.append(f"{section}.model={self.encoder}")
        if scorer in REFERENCES:
            overrides.append(f"selection.reference={json.dumps(REFERENCES[scorer])}")
        elif cell.config.selection.reference is not None:
            overrides.append(f"selection.reference.model={self.model}")
        path = self.root / "cell.yaml"
        write_atomic(path, render_config(cell.config))
        config = load_config(path, overrides)
        return config, RunDir(Path(config.output_dir) / config.name)

    def select(self, config: Config, run: RunDir) -> None:
        """Like `prism-tune select`; an equal selection is brought here, and found finished."""
        depends_on = [config.selection.model_dump(), config.model.model_dump(), config.data.columns]
        made = self.selections.setdefault(fingerprint(depends_on), run)
        if made != run and not run.selection.exists():
            shutil.copytree(made.selection, run.selection)
        select(config, run, tune=train)

    def finish(self, name: str) -> RunDir:
        """From select to results."""
        config, run = self.open(name)
        for verb in CELLS[name].verbs:
            if verb == "select":
                self.select(config, run)
            elif verb == "train":
                train(config, run)
            else:
                evaluate(config, run, force=False)
        return run


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


SAME = ("selectors/", "main_lora/", "visionflan_lora/")  # their rows select as their `base` does
SAME = (*SAME, "published/")  # and these as the presets (tests/selection/test_published.py)
SELECTING = [n for n, c in CELLS.items() if "select" in c.verbs and not n.startswith(SAME)]


@pytest.mark.parametrize("name", SELECTING)
def test_selects(workshop, name):
    config, run = workshop.open(name)
    workshop.select(config, run)
    manifest = read_json(run.selection / "manifest.json")
    assert manifest["scorer"] == CELLS[name].config.selection.scorer
    row = name.split("/")[1].removesuffix("_7b_full").removesuffix("_7b_lora")
    # 24 image records; 0.3 x 24 = 7.2; and the two of text. The quickstart's budget is of rows:
    # 0.2 x 26 = 5.2.
    others = 5 if name.startswith("quickstart/") else 9
    assert manifest["num_selected"] == COUNTS.get(row, others)


@pytest.mark.parametrize("grid", GRIDS)
def test_from_select_to_table(workshop, grid):
    names = TUNED[grid]
    runs = [workshop.finish(f"{grid}/{name}") for name in names]
    for kind in GRIDS[grid].compare.tables:
        shown = [run for run in runs if kind != "cost" or "untuned" not in run.root.name]
        text = build_table(kind, [run.root for run in shown], baseline=None)
        listed = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("|")]
        expected = list(names)
        if kind == "cost":
            expected = [name for name in expected if "pool" not in name and "untuned" not in name]
        assert set(expected) <= set(listed)
        assert "STALE" not in text


def test_every_recipe_is_tuned_in_some_grid():
    def recipes(names):
        configs = [CELLS[name].config for name in names]
        return {(config.training.tuning, config.model.template) for config in configs}

    tuned = {f"{grid}/{name}" for grid, names in TUNED.items() for name in names}
    assert recipes(tuned) == recipes(CELLS)

"""Select, train, evaluate and tabulate a tiny random LLaVA on 16 drawn images, as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.tiny import COLOURS, SHAPES, draw_image
from support.verbs import run_verb

ROOT = Path(__file__).parents[1]
NUM_TEST_IMAGES = 4


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_verb(*arguments, cwd=ROOT)


def start_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same from nothing, imports and all."""
    command = [sys.executable, "-m", "prism_tune", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def draw_benchmarks(folder: Path) -> dict[str, dict[str, str]]:
    """The quickstart benchmark, POPE and MME over drawn images, in their official layouts."""
    images = folder / "images"
    images.mkdir(parents=True)
    for i in range(NUM_TEST_IMAGES):
        draw_image(images / f"{i}.png", i)
    asked = [
        {"question_id": 10 * i + j, "image": f"{i}.png", "text": text, "answer": answer}
        for i in range(NUM_TEST_IMAGES)
        for j, (text, answer) in enumerate(
            [("what color is it?", COLOURS[i % 4]), ("is it a circle?", "no" if i % 2 else "yes")]
        )
    ]
    for question in asked:
        question["category"] = "shape"
    (folder / "test.json").write_text(json.dumps(asked))

    pope = folder / "pope"
    pope.mkdir()
    for split in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": i + 1, "image": f"{i}.png", "text": f"Is there a {SHAPES[0]}?"}
            | {"label": "no" if i % 2 else "yes"}
            for i in range(NUM_TEST_IMAGES)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (pope / f"coco_pope_{split}.json").write_text(lines)

    mme = folder / "mme"
    for category in ("existence", "code_reasoning"):
        (mme / category).mkdir(parents=True)
        draw_image(mme / category / "0.png", 0)
        (mme / category / "0.txt").write_text(
            "Is it red? Please answer yes or no.\tYes\nIs it blue? Please answer yes or no.\tNo\n"
        )
    return {
        "quickstart": {"annotations": str(folder / "test.json"), "image_dir": str(images)},
        "pope": {"annotations": str(pope), "image_dir": str(images)},
        "mme": {"annotations": str(mme), "image_dir": str(mme)},
    }


@pytest.fixture(scope="module")
def config_path(tiny_llava_dir, drawn_pool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("end_to_end")
    benchmarks = draw_benchmarks(folder / "benchmarks")
    config = {
        "name": "tiny",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(tiny_llava_dir), "dtype": "float32", "template": "chatml"},
        "data": {"records": str(drawn_pool), "image_dir": str(drawn_pool.parent / "images")},
        "selection": {"budget": 0.5, "dtype": "float32"},
        "training": {
            "tuning": "lora",
            "lora": {"r": 4, "lora_alpha": 8},
            "deepspeed": "configs/deepspeed/zero2.json",
            "hf": {
                "max_steps": 3,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-2,
                "logging_steps": 1,
            },
        },
        "evaluation": {
            "benchmarks": list(benchmarks),
            "data": benchmarks,
            "controls": ["blind"],
            "dtype": "float32",
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def finished_runs(config_path):
    """Two runs, PRISM and Random, brought from the pool to the table."""
    outputs = {}
    for name, override in (("tiny", "seed=0"), ("tiny-random", "selection.scorer=random")):
        for verb in ("select", "train", "evaluate"):
            done = run_cli(verb, str(config_path), f"name={name}", override)
            assert done.returncode == 0, done.stderr
            outputs[name, verb] = done.stdout + done.stderr
    return config_path.parent / "runs", outputs


def test_every_artifact_is_where_it_belongs(finished_runs):
    runs, _ = finished_runs
    run = runs / "tiny"
    expected = [
        "timings.json",
        "log.txt",
        "selection/config.yaml",
        "training/config.yaml",
        "evaluation/pope/config.yaml",
        "selection/scores.parquet",
        "selection/subset.json",
        "selection/manifest.json",
        "selection/evidence/features",
        "training/final/adapter_model.safetensors",
        "evaluation/quickstart/predictions.jsonl",
        "evaluation/quickstart/results.json",
        "evaluation/pope/results.json",
        "evaluation/mme/results.json",
    ]
    assert [path for path in expected if not (run / path).exists()] == []
    assert not (run / "config.yaml").exists()


def test_the_subset_is_half_of_each_source_and_all_text(finished_runs, drawn_pool):
    runs, _ = finished_runs
    kept = json.loads((runs / "tiny" / "selection" / "subset.json").read_text())
    pool = json.loads(drawn_pool.read_text())
    counts = {s: sum(r["source"] == s for r in kept) for s in ("shape", "colour", "text")}
    assert counts == {"shape": 8, "colour": 4, "text": 2}
    assert all(record in pool for record in kept)


def test_every_question_is_answered(finished_runs):
    runs, _ = finished_runs
    for benchmark, count in (("quickstart", 8), ("pope", 12), ("mme", 4)):
        folder = runs / "tiny" / "evaluation" / benchmark
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        results = json.loads((folder / "results.json").read_text())
        assert len(lines) == count
        assert results["num_examples"] == count
        assert results["num_missing"] == 0


def test_repeating_a_command_skips_it_and_a_change_reruns_what_depends_on_it(
    config_path, finished_runs
):
    runs, _ = finished_runs
    subset = (runs / "tiny" / "selection" / "subset.json").read_bytes()
    again = run_cli("select", str(config_path))
    assert again.returncode == 0, again.stderr
    assert "already finished" in again.stderr
    changed = run_cli("select", str(config_path), "selection.budget=0.25")
    assert changed.returncode == 0, changed.stderr
    assert "selection.budget" in changed.stderr
    assert (runs / "tiny" / "selection" / "subset.json").read_bytes() != subset
    restored = run_cli("select", str(config_path))
    assert restored.returncode == 0, restored.stderr
    assert (runs / "tiny" / "selection" / "subset.json").read_bytes() == subset
    trained = run_cli("train", str(config_path))
    assert "already finished" in trained.stderr, trained.stderr


def test_the_table_puts_the_runs_side_by_side(finished_runs):
    runs, _ = finished_runs
    table = run_cli(
        "tables", "main", "--runs", str(runs / "tiny"), "--runs", str(runs / "tiny-random")
    )
    assert table.returncode == 0, table.stderr
    rows = [line for line in table.stdout.splitlines() if line.startswith("|")]
    assert any("PRISM" in row for row in rows)
    assert any("Random" in row for row in rows)
    assert "Rel." in table.stdout


def test_one_verb_does_what_is_left_and_ends_with_the_table_and_the_report(
    config_path, finished_runs
):
    runs, _ = finished_runs
    done = start_cli("run", str(config_path), "--launch", "local")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    for finished in ("select: already finished", "training: already finished"):
        assert finished in said
    steps = [line for line in done.stdout.splitlines() if line.startswith("=== ")]
    assert steps == [
        *("=== 1. Audit", "=== 2. Evaluate: untuned", "=== 3. Select: tiny", "=== 4. Tune: tiny"),
        *("=== 5. Evaluate: tiny", "=== 6. Table", "=== 7. Report"),
    ]
    assert "| PRISM 50 % (lora)" in done.stdout
    page = runs / "tiny/report/index.html"
    assert done.stdout.endswith(f"Report:     {page}\nRun folder: {runs / 'tiny'}\n")
    assert page.exists()


def test_a_stage_without_its_input_says_what_to_run_first(config_path):
    done = run_cli("train", str(config_path), "name=fresh")
    assert done.returncode == 1
    assert "prism-tune select" in done.stderr
    assert "Traceback" not in done.stderr

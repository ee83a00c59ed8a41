"""What pip installs: presets, DeepSpeed files and templates are in it, and a run needs no checkout.

`make try-wheel` does the same in a fresh environment, with the embedded default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("prism_tune", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
BUILD = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
OWN = """
base: preset:llava15_7b_lora
name: own
model: {{path: {model}, dtype: float32}}
data: {{records: pool.json, image_dir: {images}, source: field, max_length: 512, num_workers: 0}}
selection: {{budget: 0.5, dtype: float32}}
training:
  lora: {{r: 4, lora_alpha: 8}}
  hf: {{max_steps: 2, per_device_train_batch_size: 4, bf16: false, save_strategy: "no"}}
evaluation: {{benchmarks: []}}
"""


def call(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Made of a copy, so that a build folder of old files has no part in it."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        place = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        copy = shutil.copy if place.is_file() else shutil.copytree
        copy(place, source / name, **({} if place.is_file() else {"ignore": ignored}))
    return source / call("-c", BUILD, str(source), cwd=source).split()[-1]


@pytest.fixture(scope="module")
def site(sdist, tmp_path_factory) -> Path:
    """A folder with the wheel installed, made from the sdist."""
    place = tmp_path_factory.mktemp("site")
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    call("-m", "pip", "wheel", *offline, "-w", str(place / "dist"), str(sdist), cwd=place)
    (wheel,) = (place / "dist").iterdir()
    target = place / "packages"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--target", str(target))
    call("-m", "pip", *install, str(wheel), cwd=place)
    return target


def data_files() -> set[str]:
    """Everything that people or browsers read, by its place in the package."""
    configs = (path for path in (ROOT / "configs").rglob("*") if path.is_file())
    templates = (ROOT / "prism_tune/report/templates").iterdir()
    package = (path for path in (ROOT / "prism_tune").rglob("*.py"))
    return {
        *(f"prism_tune/{path.relative_to(ROOT)}" for path in configs),
        *(str(path.relative_to(ROOT)) for path in (*templates, *package)),
    }


def test_sdist_and_wheel_hold_every_file(sdist, site):
    installed = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert data_files() <= installed
    in_package = {name for name in installed if name.startswith("prism_tune/")}
    assert {name for name in in_package if "__pycache__" not in name} == data_files()
    assert not (site / "configs").exists()
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        name.removeprefix("prism_tune/") for name in data_files() if "configs/" in name
    } <= names
    assert not any(name.startswith("tests") for name in names)


def test_a_run_from_an_empty_folder(site, tiny_llava_dir, drawn_pool, tmp_path):
    """By a config on top of a preset, under the DeepSpeed file that the preset names."""
    there = {"PYTHONPATH": str(site)}
    found = call("-c", "import prism_tune; print(prism_tune.__file__)", cwd=tmp_path, **there)
    assert Path(found.strip()) == site / "prism_tune/__init__.py"
    listed = call("-m", "prism_tune", "presets", cwd=tmp_path, **there)
    assert "preset:quickstart " in listed
    shutil.copy(drawn_pool, tmp_path / "pool.json")
    own = OWN.format(model=tiny_llava_dir, images=drawn_pool.parent / "images")
    (tmp_path / "own.yaml").write_text(own)
    told = call("-m", "prism_tune", "run", "own.yaml", "--launch", "local", cwd=tmp_path, **there)
    assert told.endswith("Report:     runs/own/report/index.html\nRun folder: runs/own\n")
    for made in ("selection/subset.json", "training/final", "report/index.html"):
        assert (tmp_path / "runs/own" / made).exists()
    recorded = (tmp_path / "runs/own/training/config.yaml").read_text()
    assert "deepspeed: configs/deepspeed/zero3.json" in recorded
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.yaml", "pool.json", "runs"]

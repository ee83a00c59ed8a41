"""The report of a run on a pool of LLaVA-665K's size: seconds, memory, and the page's size.

    python benchmarks/report.py                                  # 665,298 records, 300,000 images
    python benchmarks/report.py --records 20000 --images 9000    # a quick look
    python benchmarks/report.py --folder /big/disk               # draws there, and keeps it

The run folder is synthetic: a 1.1 GB pool, 300,000 image files (links to 200 JPEGs of 640 x 480),
random features 4,096 wide (4.9 GB), random scores cut as `select` cuts them, a log of 5,197
steps, one benchmark of 9,000 questions. The report itself is the real verb, as a process of its
own; memory is the largest resident set of the process and of its largest child. Goals: under two
minutes, under 1 GiB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
from full_size_pool import peak_mebibytes
from PIL import Image

from prism_tune.config.load import load_config
from prism_tune.data.records import Pool, open_pool
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage
from prism_tune.selection.evidence.store import UNITS_PER_SHARD, EvidenceStore
from prism_tune.selection.outputs import write_outputs
from prism_tune.selection.ranking import Ranking
from prism_tune.selection.subset import cut_subset

SOURCES = ("coco", "gqa", "ocr_vqa", "textvqa", "vg")
WORDS = "a small red shape stands on the left of another one and looks like what was asked for "
_NUM_DRAWINGS = 200
_NUM_STEPS = 5197
_NUM_QUESTIONS = 9000


def main() -> None:
    """Draw the run where there is none yet, build its report, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=665_298)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--folder", type=Path, default=None, help="kept; default: temporary")
    parser.add_argument("--only-draw", action="store_true", help="draw into --folder, no more")
    arguments = parser.parse_args()
    if arguments.only_draw:
        draw_run(arguments.folder, arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        environment = {**os.environ, "PRISM_TUNE_CACHE": str(folder / "cache")}
        begin = time.perf_counter()
        # In a process of its own: what a process has peaked at, its children begin with.
        draw = [sys.executable, *sys.argv, "--only-draw", f"--folder={folder}"]
        subprocess.run(draw, check=True, env=environment)
        print(f"drawn in {time.perf_counter() - begin:.0f} s", flush=True)
        print(f"\n{arguments.records:,} records, {arguments.images:,} images\n")
        run = folder / "runs" / "full_size"
        measure([sys.executable, "-m", "prism_tune", "report", str(run)], environment)
        files = [path for path in (run / "report").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        print(f"\nthe page: {len(files):,} files, {size / 1e6:,.0f} MB")


def measure(command: list[str], environment: dict[str, str]) -> None:
    """Run the verb as a process and print its row; CPU seconds are of its children too."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    cpu_seconds = usage.ru_utime + usage.ru_stime
    code = os.waitstatus_to_exitcode(status)
    print("\n| seconds | CPU seconds | MiB | exit code |\n|---:|---:|---:|---:|")
    print(f"| {seconds:.1f} | {cpu_seconds:.1f} | {peak_mebibytes(usage):,.0f} | {code} |")


def draw_run(folder: Path, arguments: argparse.Namespace) -> None:
    """Pool, images and run folder, unless they are there."""
    config_file = folder / "config.yaml"
    run = RunDir(folder / "runs" / "full_size")
    if Stage(run.selection).path.exists():
        return
    draw_images(folder / "images", arguments.images)
    write_pool(folder / "pool.json", arguments.records, arguments.images)
    config_file.write_text(
        f"name: full_size\noutput_dir: {folder / 'runs'}\nmodel: {{path: none}}\n"
        f"data: {{records: {folder / 'pool.json'}, image_dir: {folder / 'images'}}}\n"
    )
    config = load_config(config_file)
    run.root.mkdir(parents=True, exist_ok=True)
    pool = open_pool(config.data)
    keys = write_features(run, arguments.images, arguments.width)
    write_outputs(config, run, pool, rank_at_random(pool, keys), {}, np.zeros(len(pool), int))
    write_training(run)
    Stage(run.selection).finish({"selection.keep": "low"}, config=config)


def draw_images(folder: Path, num_images: int) -> None:
    """Links to a few hundred drawings, in folders of 1,000."""
    rng = np.random.default_rng(0)
    drawings = []
    (folder / "drawn").mkdir(parents=True)
    for number in range(_NUM_DRAWINGS):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        drawings.append(folder / "drawn" / f"{number}.jpg")
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(drawings[-1], quality=85)
    for number in range(num_images):
        path = folder / name_image(number)
        if number % 1000 == 0:
            path.parent.mkdir()
        os.link(drawings[number % _NUM_DRAWINGS], path)


def name_image(number: int) -> str:
    """Folders of 1,000 files each."""
    return f"{number // 1000:04d}/{number}.jpg"


def write_pool(path: Path, num_records: int, num_images: int) -> None:
    """LLaVA records of about 1.6 KB; one in sixteen is text-only."""
    with path.open("wb") as file:
        for number in range(num_records):
            is_text_only = number % 16 == 0
            question = f"What is number {number}? {WORDS * (1 + number % 5)}"
            record = {
                "id": str(number),
                "source": "text" if is_text_only else SOURCES[number % len(SOURCES)],
                "conversations": [
                    {"from": "human", "value": ("" if is_text_only else "<image>\n") + question},
                    {"from": "gpt", "value": f"It is {number}. {WORDS * (2 + number % 7)}"},
                    {"from": "human", "value": f"And what else? {WORDS * 3}"},
                    {"from": "gpt", "value": WORDS * 5},
                ],
            }
            if not is_text_only:
                record["image"] = name_image(number % num_images)
            file.write((b"[" if number == 0 else b",\n") + orjson.dumps(record))
        file.write(b"]")


def write_features(run: RunDir, num_images: int, width: int) -> list[str]:
    """A store of random rows in a narrow cone; the key of each image's row."""
    store = EvidenceStore(str(run.root.parent), "features", {"model": "drawn"})
    store.begin(prompt="prefix")
    described = {"failed": {}, "counts": {}, "seconds": 1.0, "device": "cpu", "num_devices": 1}
    rng = np.random.default_rng(0)
    centre = 2 * rng.standard_normal(width, dtype=np.float32)
    noise = rng.standard_normal((UNITS_PER_SHARD, width), dtype=np.float32)
    keys = [f"{number:032x}" for number in range(num_images)]
    for start in range(0, num_images, UNITS_PER_SHARD):
        part = keys[start : start + UNITS_PER_SHARD]
        rolled = np.roll(noise, start // UNITS_PER_SHARD * 7, axis=1) * rng.uniform(0.5, 1.5)
        store.write_shard(part, (centre + rolled[: len(part)]).astype(np.float32), described)
    store.take(keys, run.features)
    return keys


def rank_at_random(pool: Pool, keys: list[str]) -> Ranking:
    """Random scores, cut per source to 30 % as `select` does."""
    text_only_N = pool.is_text_only_N
    scores_N = np.random.default_rng(1).normal(0, 0.01, len(pool))
    scores_N[text_only_N] = np.nan
    cut = cut_subset(
        scores_N,
        uids=pool.uids,
        is_text_only_N=text_only_N,
        budget=0.3,
        keep="low",
        groups_N=np.array(pool.sources),
    )
    places = pool.positions(range(len(pool)))
    feature_keys = [
        None if text_only else keys[place % len(keys)]
        for place, text_only in zip(places, text_only_N.tolist(), strict=True)
    ]
    return Ranking(
        scores_N,
        cut.rank_N,
        cut.selected_N,
        list(cut.reasons),
        feature_keys,
        (),
        {"unranked": {}},
        unranked=[None] * len(pool),
    )


def write_training(run: RunDir) -> None:
    """A training log with a loss per source, and the results of one benchmark."""
    run.training.mkdir()
    rng = np.random.default_rng(2)
    lines = [
        {"step": step, "loss": float(3 / step**0.3 + rng.normal(0, 0.05)), "learning_rate": 2e-4}
        | {"tokens_per_second": 5000.0}
        | {f"loss/{source}": float(2 / step**0.3) for source in SOURCES}
        for step in range(1, _NUM_STEPS + 1)
    ]
    (run.training / "log.jsonl").write_bytes(b"".join(orjson.dumps(x) + b"\n" for x in lines))
    credits = {f"popular-{number}": float(number % 8 > 0) for number in range(_NUM_QUESTIONS)}
    result = {
        "benchmark": "pope",
        "metrics": {"accuracy": 87.5},
        "num_examples": _NUM_QUESTIONS,
        "num_missing": 0,
        "profile": "llava15",
        "per_question": credits,
    }
    write_json(run.benchmark("pope") / "results.json", result)


if __name__ == "__main__":
    main()

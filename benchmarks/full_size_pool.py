"""A pool of LLaVA-665K's size through convert, audit and select: seconds and memory of each step.

    python benchmarks/full_size_pool.py                                # 665,298 records: hours
    python benchmarks/full_size_pool.py --records 5000 --images 2000   # a quick look
    python benchmarks/full_size_pool.py --folder /big/disk             # draws there, and keeps it

300,000 distinct JPEG files of 32 x 24 pixels, 6 % of the records without image, a tiny random LLaVA
(28-pixel images, 4 image tokens): the model costs next to nothing, so the figures are those of
everything around it. Each step is a process of its own, as a user would run it; CPU seconds are
those of the process and its children, memory is the largest resident set of any of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPEN = """
import sys, time
from prism_tune.config.load import load_config
from prism_tune.data.records import open_pool
config = load_config(sys.argv[1])
begin = time.perf_counter()
pool = open_pool(config.data)
print(f"{len(pool):,} records; opened in {time.perf_counter() - begin:.2f} s")
"""


def main() -> None:
    """Draw the pool where there is none yet, run the steps, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=665_298)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--folder", type=Path, default=None, help="kept; default: temporary")
    parser.add_argument("--workers", type=int, default=2, help="data.num_workers")
    parser.add_argument("--only-draw", action="store_true", help="draw into --folder, no more")
    arguments = parser.parse_args()
    if arguments.only_draw:
        prepare(arguments.folder, arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        config = str(folder / "config.yaml")
        begin = time.perf_counter()
        # In a process of its own: what a process has peaked at, its children begin with.
        draw = [sys.executable, *sys.argv, "--only-draw", f"--folder={folder}"]
        subprocess.run(draw, check=True)
        print(f"drawn in {time.perf_counter() - begin:.0f} s", flush=True)
        print(f"\n{arguments.records:,} records, {arguments.images:,} distinct JPEG files\n")
        print("| step | seconds | CPU seconds | MiB | exit code |")
        print("|---|---:|---:|---:|---:|", flush=True)
        environment = {**os.environ, "PRISM_TUNE_CACHE": str(folder / "cache")}
        cli = [sys.executable, "-m", "prism_tune"]
        measure("convert", [sys.executable, "-c", OPEN, config], environment)
        measure("open", [sys.executable, "-c", OPEN, config], environment)
        measure("audit", [*cli, "audit", config], environment)
        measure("audit again", [*cli, "audit", config], environment)
        measure("select", [*cli, "select", config], environment)
        measure("rescore", [*cli, "select", config, "selection.budget=0.2"], environment)
        measure("select again", [*cli, "select", config, "selection.budget=0.2"], environment)


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Pool, model and config in `folder`, unless they are there."""
    from drawn_models import draw_pool, save_llava  # brings torch

    config = folder / "config.yaml"
    if config.exists():
        return
    model = save_llava(folder / "model", num_layers=2, width=64, vision_layers=2, image_pixels=28)
    records = draw_pool(
        folder / "pool",
        num_records=arguments.records,
        num_images=arguments.images,
        size=(32, 24),
        text_only=0.06,
    )
    config.write_text(
        f"name: full_size\noutput_dir: {folder / 'runs'}\nmodel: {{path: {model}}}\n"
        f"data: {{records: {records}, image_dir: {records.parent / 'images'}, "
        f"num_workers: {arguments.workers}}}\nselection: {{dtype: float32}}\n"
    )


def measure(step: str, command: list[str], environment: dict[str, str]) -> None:
    """Run a step as a process and print its row; its last lines where it failed."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines = process.stdout.readlines()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    memory = f"{peak_mebibytes(usage):,.0f}"
    print(f"| {step} | {seconds:.1f} | {cpu_seconds:.1f} | {memory} | {code} |", flush=True)
    if code or command[1] == "-c":
        print("".join(lines[-5:]), flush=True, file=sys.stderr)


def peak_mebibytes(usage: resource.struct_rusage) -> float:
    """The largest resident set, of the process or one of its children."""
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()

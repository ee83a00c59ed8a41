"""Is this machine ready? Libraries, devices, disk and launchers in; a table and a verdict out.

What is missing comes with the command that mends it. Nothing is changed, nothing is fetched.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from prism_tune.cli.libraries import Check, State, check_packages, check_uses
from prism_tune.errors import UserError
from prism_tune.models.cpu import bf16_instructions
from prism_tune.run.cache_home import cache_home
from prism_tune.run.log import console
from prism_tune.run.worker_processes import count_cores

GIB = 1 << 30
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
DISK_NEEDED_GIB = 6  # as scripts/setup.sh asks for
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_NEEDED = (4 * 2 + 1) * 16 * (3 * 336 * 336 * 4)
"""Bytes of pixels in the LLaVA presets: 4 workers with 2 batches each, one in use, of 16 images."""
_MARKS: dict[State, str] = {
    "ok": "[green]ok[/green]",
    "optional": "[yellow]optional[/yellow]",
    "missing": "[red]missing[/red]",
}


def diagnose() -> bool:
    """Print what is there and what is missing.

    Returns:
        False when something required is missing.
    """
    checks = [
        *(*check_python(), *check_packages(), *check_uses(), *check_devices()),
        *(*check_shared_memory(), *check_disk(), check_cache(), *check_tools(), check_tracking()),
    ]
    table = Table("", "found", "", "how to mend it", title="prism-tune doctor")
    for column in table.columns:
        column.overflow = "fold"
    for check in checks:
        cells = (escape(check.name), escape(check.found), _MARKS[check.state], escape(check.mend))
        table.add_row(*cells)
    console.print(table, markup=True)
    missing = [check.name for check in checks if check.state == "missing"]
    if missing:
        console.print(f"[red]Not ready:[/red] {escape(', '.join(missing))}", markup=True)
    else:
        console.print("[green]Ready.[/green]", markup=True)
    optional = [check.name for check in checks if check.state == "optional"]
    if optional:
        console.print(f"Only some things need: {', '.join(optional)}")
    return not missing


def check_python() -> Iterator[Check]:
    """The running Python against the supported range."""
    found = platform.python_version()
    if PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        yield Check("Python", found)
    else:
        yield Check("Python", found, "missing", "install Python 3.11, 3.12 or 3.13")


def check_devices() -> Iterator[Check]:
    """GPUs, or what the CPU can do; and the memory of either."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Check("CPU", f"{count_cores()} cores, {memory_bytes / GIB:.0f} GiB of memory")
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of torch is missing
        mend = "pip install --force-reinstall torch"
        yield Check("torch", f"cannot be imported: {error}", "missing", mend)
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if gpu.major >= 8 else "fp16 only: set training.hf.fp16"
            yield Check(f"GPU {index}", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, {bf16}")
    elif shutil.which("nvidia-smi"):
        mend = (
            "install a CUDA build of torch (PRISM_TUNE_TORCH=... bash scripts/setup.sh), "
            "or update the driver"
        )
        yield Check("GPU", f"torch {torch.__version__} sees none", "missing", mend)
    else:
        yield Check("GPU", "none: everything runs on the CPU")
        yield Check("bf16 on the CPU", _cpu_bf16())


def check_shared_memory() -> Iterator[Check]:
    """Where the workers that read images hand them over; containers have 64 MB by default."""
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    name, found = f"shared memory ({SHARED_MEMORY})", f"{free / 2**20:,.0f} MiB free"
    if free >= SHARED_MEMORY_NEEDED:
        yield Check(name, found)
        return
    needed = f"{SHARED_MEMORY_NEEDED / 2**20:.0f} MiB"
    mend = "docker run --shm-size 16g; until then fewer workers read images"
    yield Check(name, f"{found}, the batches of the LLaVA presets need {needed}", "optional", mend)


def check_disk() -> Iterator[Check]:
    """Free space here, where runs/ and data/ are written."""
    free_gib = shutil.disk_usage(Path.cwd()).free / GIB
    enough = free_gib >= DISK_NEEDED_GIB
    mend = "" if enough else f"the embedded default needs {DISK_NEEDED_GIB} GiB, set-up included"
    yield Check("free disk", f"{free_gib:.0f} GiB", "ok" if enough else "optional", mend)


def check_cache() -> Check:
    """Where converted pools are kept; containers run as users without a home."""
    try:
        return Check("cache", str(cache_home()))
    except UserError:
        mend = "set PRISM_TUNE_CACHE to a folder for converted pools, or HOME"
        return Check("cache", "the user has no home directory", "missing", mend)


def check_tools() -> Iterator[Check]:
    """Launchers, and the compiler of DeepSpeed's own operators."""
    for command, package in (("torchrun", "torch"), ("deepspeed", "deepspeed")):
        yield _check_command(command, f"pip install --force-reinstall {package}", "missing")
    offload = "needed by ZeRO with CPU offload only"
    yield _check_command("g++", f"install a C++ compiler; {offload}", "optional")
    yield _check_command("ninja", f"pip install ninja; {offload}", "optional")


def check_tracking() -> Check:
    """Where W&B will write; without its key it would ask for one, or end a run."""
    mode = os.environ.get("WANDB_MODE", "not set: offline")
    has_key = "WANDB_API_KEY" in os.environ or _is_logged_in()
    if mode == "online" and not has_key:
        return Check("WANDB_MODE", "online, without a key", "optional", "wandb login")
    return Check("WANDB_MODE", mode)


def _check_command(name: str, mend: str, state: State) -> Check:
    """A command beside this Python or on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name)
    return Check(name, found) if found else Check(name, "not found", state, mend)


def _cpu_bf16() -> str:
    native = bf16_instructions()
    if native is None:
        return "unknown on this system"
    return f"native ({', '.join(native)})" if native else "emulated, slow: auto takes float32"


def _is_logged_in() -> bool:
    """Whether `wandb login` has left a key."""
    try:
        return "wandb" in (Path.home() / ".netrc").read_text(errors="replace")
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return False

"""Is this machine ready? Versions, devices, disk and launchers in; a table and a verdict out.

What is missing comes with the command that mends it. Nothing is changed, nothing is fetched.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from prism_tune.run.log import console

State = Literal["ok", "optional", "missing"]
GIB = 1 << 30
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
DISK_NEEDED_GIB = 6  # as scripts/setup.sh asks for
_MARKS: dict[State, str] = {
    "ok": "[green]ok[/green]",
    "optional": "[yellow]optional[/yellow]",
    "missing": "[red]missing[/red]",
}


@dataclass(frozen=True)
class Check:
    """One line of the table.

    `state` is "missing" where prism_tune cannot work without it, "optional" where only some of it
    cannot; `mend` says what to do about either.
    """

    name: str
    found: str
    state: State = "ok"
    mend: str = ""


def diagnose() -> bool:
    """Print what is there and what is missing.

    Returns:
        False when something required is missing.
    """
    checks = [*check_python(), *check_packages(), *check_devices(), *check_disk(), *check_tools()]
    table = Table("", "found", "", "how to mend it", title="prism-tune doctor")
    for column in table.columns:
        column.overflow = "fold"
    for check in checks:
        cells = (escape(check.name), escape(check.found), _MARKS[check.state], escape(check.mend))
        table.add_row(*cells)
    console.print(table)
    missing = [check.name for check in checks if check.state == "missing"]
    if missing:
        console.print(f"[red]Not ready:[/red] {escape(', '.join(missing))}")
    else:
        console.print("[green]Ready.[/green]")
    return not missing


def check_python() -> Iterator[Check]:
    """The running Python against the supported range."""
    found = platform.python_version()
    if PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        yield Check("Python", found)
    else:
        yield Check("Python", found, "missing", "Python 3.11 to 3.13; then bash scripts/setup.sh")


def check_packages() -> Iterator[Check]:
    """Every requirement of setup.py against what is installed."""
    try:
        lines = requires("prism_tune") or []
    except PackageNotFoundError:
        yield Check("prism_tune", "not installed", "missing", "bash scripts/setup.sh")
        return
    for line in lines:
        requirement = Requirement(line)
        extra = _extra_of(requirement)
        if extra in ("dev", "bench"):  # of no use to a user
            continue
        yield _check_package(requirement, extra)


def check_devices() -> Iterator[Check]:
    """GPUs, or what the CPU can do; and the memory of either."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Check("CPU", f"{cores} cores, {memory_bytes / GIB:.0f} GiB of memory")
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of torch is missing
        yield Check("torch", f"cannot be imported: {error}", "missing", "bash scripts/setup.sh")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if gpu.major >= 8 else "fp16 only: set training.hf.fp16"
            yield Check(f"GPU {index}", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, {bf16}")
    elif shutil.which("nvidia-smi"):
        mend = "a CUDA build: PRISM_TUNE_TORCH=... bash scripts/setup.sh; or update the driver"
        yield Check("GPU", f"torch {torch.__version__} sees none", "missing", mend)
    else:
        yield Check("GPU", "none: everything runs on the CPU")
        yield Check("bf16 on the CPU", _cpu_bf16())


def check_disk() -> Iterator[Check]:
    """Free space here, where runs/ and data/ are written."""
    free_gib = shutil.disk_usage(Path.cwd()).free / GIB
    enough = free_gib >= DISK_NEEDED_GIB
    mend = "" if enough else f"the embedded default needs {DISK_NEEDED_GIB} GiB, set-up included"
    yield Check("free disk", f"{free_gib:.0f} GiB", "ok" if enough else "optional", mend)


def check_tools() -> Iterator[Check]:
    """Launchers, the compiler of DeepSpeed's own operators, and where W&B will write."""
    yield _check_command("torchrun", "bash scripts/setup.sh", "missing")
    yield _check_command("deepspeed", "bash scripts/setup.sh", "missing")
    offload = "needed by ZeRO with CPU offload only"
    yield _check_command("g++", f"install a C++ compiler; {offload}", "optional")
    yield _check_command("ninja", f"pip install ninja; {offload}", "optional")
    yield Check("WANDB_MODE", os.environ.get("WANDB_MODE", "not set: offline"))


def _extra_of(requirement: Requirement) -> str:
    """The extra that a requirement belongs to; empty for one that everybody needs."""
    found = re.search(r'extra == "(.+?)"', str(requirement.marker or ""))
    return found[1] if found else ""


def _check_package(requirement: Requirement, extra: str) -> Check:
    state: State = "optional" if extra else "missing"
    mend = f"bash scripts/setup.sh {extra}".rstrip()
    needed = f"{requirement.name}{requirement.specifier}"
    label = f"{requirement.name} [{extra}]" if extra else requirement.name
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Check(label, "not installed", state, f"{mend} (needs {needed})")
    if requirement.specifier.contains(found, prereleases=True):
        return Check(label, found)
    return Check(label, f"{found}, needs {needed}", state, mend)


def _check_command(name: str, mend: str, state: State) -> Check:
    """A command beside this Python or on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name)
    return Check(name, found) if found else Check(name, "not found", state, mend)


def _cpu_bf16() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "unknown on this system"
    native = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return f"native ({', '.join(native)})" if native else "emulated: try model.dtype=float32 too"

"""The doctor: what it calls missing, what optional, and that every complaint has a remedy."""

from __future__ import annotations

import io
import shutil
from collections import namedtuple

import pytest
from rich.console import Console

from prism_tune.cli import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def output(monkeypatch):
    """What was printed."""
    console = Console(record=True, width=200, file=io.StringIO())
    monkeypatch.setattr(doctor, "console", console)
    return console


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.fixture
def versions(monkeypatch):
    """Pretend that exactly these requirements and packages are there."""

    def pretend(requirements, installed):
        def version(name):
            if name not in installed:
                raise doctor.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(doctor, "requires", lambda _: requirements)
        monkeypatch.setattr(doctor, "version", version)
        return by_name(doctor.check_packages())

    return pretend


def test_packages_are_judged_by_the_ranges_of_setup_py(versions):
    checks = versions(
        ["torch<2.14,>=2.6", "peft>=0.18", "wandb>=0.20", "lm-eval>=0.4.13; extra == 'eval'"],
        {"torch": "2.13.0+cpu", "peft": "0.17.1"},
    )
    assert (checks["torch"].found, checks["torch"].state) == ("2.13.0+cpu", "ok")
    assert checks["peft"].state == "missing"
    assert checks["peft"].found == "0.17.1, needs peft>=0.18"
    assert checks["wandb"].state == "missing"
    assert checks["wandb"].mend == "bash scripts/setup.sh (needs wandb>=0.20)"
    assert checks["lm-eval [eval]"].state == "optional"
    assert checks["lm-eval [eval]"].mend == "bash scripts/setup.sh eval (needs lm-eval>=0.4.13)"


def test_development_packages_are_nobodys_concern(versions):
    wanted = {"pytest>=8": "dev", "trl": "bench", "gguf": "quickstart"}
    checks = versions([f"{name}; extra == '{extra}'" for name, extra in wanted.items()], {})
    assert list(checks) == ["gguf [quickstart]"]
    assert {check.state for check in checks.values()} == {"optional"}


def test_where_the_tests_run_everything_required_is_there(output, monkeypatch):
    devices = list(doctor.check_devices())
    monkeypatch.setattr(doctor, "check_devices", lambda: [c for c in devices if c.name == "CPU"])
    assert doctor.diagnose() is True
    printed = output.export_text()
    assert "Ready." in printed
    for name in ("Python", "torch", "transformers", "CPU", "free disk", "torchrun", "g++"):
        assert f" {name} " in printed


def test_something_required_that_is_missing_is_the_verdict(output, monkeypatch, versions):
    versions(["peft>=0.18"], {})
    monkeypatch.setattr(doctor, "check_devices", lambda: iter(()))
    assert doctor.diagnose() is False
    assert "Not ready: peft" in output.export_text()


def test_something_optional_that_is_missing_is_not(output, monkeypatch, versions):
    versions(["lm-eval>=0.4; extra == 'eval'"], {})
    monkeypatch.setattr(doctor, "check_devices", lambda: iter(()))
    assert doctor.diagnose() is True


@pytest.mark.parametrize(("found", "state"), [((3, 9), "missing"), ((3, 14), "missing")])
def test_python_outside_the_range_is_missing(monkeypatch, found, state):
    monkeypatch.setattr(doctor.sys, "version_info", found)
    assert by_name(doctor.check_python())["Python"].state == state


def test_little_disk_is_said(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(0, 0, 2 * doctor.GIB))
    [check] = doctor.check_disk()
    assert (check.found, check.state) == ("2 GiB", "optional")
    assert "needs 6 GiB" in check.mend


def test_tools_that_are_missing_come_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: None)
    monkeypatch.setenv("WANDB_MODE", "online")
    checks = by_name(doctor.check_tools())
    assert checks["torchrun"].state == checks["deepspeed"].state == "missing"
    assert checks["g++"].state == checks["ninja"].state == "optional"
    assert all(checks[name].mend for name in ("torchrun", "deepspeed", "g++", "ninja"))
    assert checks["WANDB_MODE"].found == "online"


def test_a_gpu_that_torch_does_not_see_is_missing(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    which = shutil.which
    monkeypatch.setattr(
        doctor.shutil, "which", lambda name: "/usr/bin/x" if name == "nvidia-smi" else which(name)
    )
    checks = by_name(doctor.check_devices())
    assert checks["GPU"].state == "missing"
    assert "PRISM_TUNE_TORCH" in checks["GPU"].mend


def test_gpus_are_named_with_their_memory(monkeypatch):
    import torch

    Properties = namedtuple("Properties", "name total_memory major")
    cards = [Properties("NVIDIA H100", 80 * doctor.GIB, 9), Properties("T4", 16 * doctor.GIB, 7)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])
    checks = by_name(doctor.check_devices())
    assert checks["GPU 0"].found == "NVIDIA H100, 80 GiB, bf16"
    assert checks["GPU 1"].found == "T4, 16 GiB, fp16 only: set training.hf.fp16"

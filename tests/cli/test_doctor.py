"""The doctor: what it calls missing, what optional, and that every complaint has a remedy."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from types import ModuleType

import pytest
from rich.console import Console

from prism_tune.cli import doctor, libraries

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
                raise libraries.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(libraries, "requires", lambda _: requirements)
        monkeypatch.setattr(libraries, "version", version)
        return by_name(libraries.check_packages())

    return pretend


def test_packages_are_judged_by_the_ranges_of_setup_py(versions):
    checks = versions(
        ["torch>=2.6", "peft>=0.18", "wandb>=0.20", "lm-eval>=0.4.13; extra == 'eval'"],
        {"torch": "2.13.0+cpu", "peft": "0.17.1"},
    )
    assert (checks["torch"].found, checks["torch"].state) == ("2.13.0+cpu", "ok")
    assert checks["peft"].state == "missing"
    assert checks["peft"].found == "0.17.1, needs peft>=0.18"
    assert checks["wandb"].state == "missing"
    assert checks["wandb"].mend == "pip install 'wandb>=0.20'"
    assert checks["lm-eval [eval]"].state == "optional"
    assert checks["lm-eval [eval]"].mend == "pip install 'lm-eval>=0.4.13'"


def test_development_packages_are_nobodys_concern(versions):
    wanted = {"pytest>=8": "dev", "mkdocs": "docs", "gguf": "quickstart"}
    checks = versions([f"{name}; extra == '{extra}'" for name, extra in wanted.items()], {})
    assert list(checks) == ["gguf [quickstart]"]
    assert {check.state for check in checks.values()} == {"optional"}


def test_where_the_tests_run_everything_required_is_there(output, monkeypatch):
    devices = list(doctor.check_devices())
    monkeypatch.setattr(doctor, "check_devices", lambda: [c for c in devices if c.name == "CPU"])
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(0, 0, 64 * doctor.GIB))
    assert doctor.diagnose() is True
    printed = output.export_text()
    assert "Ready." in printed
    for name in ("Python", "torch", "transformers", "CPU", "free disk", "torchrun", "g++"):
        assert f" {name} " in printed
    for name in ("transformers' Auto classes", "chat templates", "SentencePiece tokenizers"):
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
    checks = by_name([*doctor.check_tools(), doctor.check_tracking()])
    assert checks["torchrun"].state == checks["deepspeed"].state == "missing"
    assert checks["g++"].state == checks["ninja"].state == "optional"
    assert all(checks[name].mend for name in ("torchrun", "deepspeed", "g++", "ninja"))
    assert checks["WANDB_MODE"].found.startswith("online")


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


@pytest.fixture
def without(monkeypatch):
    """Pretend that these modules are not installed; they cannot be imported, nor found."""

    def pretend(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return pretend


class Broken(ModuleType):
    """A module that is there, and of another build than those it works with."""

    def __getattr__(self, name):
        raise RuntimeError(f"operator torchvision::nms does not exist\n(asked for {name})")


def test_a_torchvision_of_another_build_is_what_has_to_be_mended(monkeypatch):
    """The usual case: torch for CPUs beside a torchvision that came with CUDA."""
    for name in ("torchvision", "transformers"):
        module = Broken(name)
        module.__spec__ = object()
        monkeypatch.setitem(sys.modules, name, module)
    checks = by_name(libraries.check_uses())
    broken = checks["torchvision"]
    assert broken.state == checks["transformers' Auto classes"].state == "missing"
    assert "operator torchvision::nms does not exist" in broken.found
    assert "pip uninstall torchvision" in broken.mend
    assert checks["transformers' Auto classes"].mend == "as torchvision"


def test_an_old_jinja2_is_found_by_rendering_a_template(monkeypatch):
    def refuse(**_):
        raise ImportError("apply_chat_template requires jinja2>=3.1.0")

    templates = "transformers.utils.chat_template_utils.render_jinja_template"
    monkeypatch.setattr(templates, refuse)
    monkeypatch.setattr(libraries, "requires", lambda _: ["jinja2>=3.1.6"])
    check = libraries.check_template()
    assert (check.state, check.mend) == ("missing", "pip install 'jinja2>=3.1.6'")
    assert "requires jinja2>=3.1.0" in check.found


def test_tokenizers_of_sentencepiece_are_tried(without):
    assert libraries.check_tokenizers().state == "ok"
    without("sentencepiece", "sentencepiece.sentencepiece_model_pb2")
    check = libraries.check_tokenizers()
    assert check.state == "missing"
    assert "sentencepiece is missing" in check.found
    assert check.mend.startswith("pip install --upgrade sentencepiece protobuf")


def test_families_whose_processor_lacks_a_part_are_named(without):
    without("torchvision", "num2words")
    checks = by_name(libraries.check_processors())
    assert {check.state for check in checks.values()} == {"optional"}
    for family in ("llava_onevision", "internvl", "smolvlm", "qwen2_5_vl", "mistral3", "pixtral"):
        assert family in checks["torchvision"].found
    assert "idefics3" not in checks["torchvision"].found
    assert checks["num2words"].found == "not installed: no processor for smolvlm"
    assert "from where torch came" in checks["torchvision"].mend


@pytest.mark.parametrize(("free_mib", "state"), [(64, "optional"), (1024, "ok")])
def test_dockers_shared_memory_is_little_and_stops_nobody(monkeypatch, tmp_path, free_mib, state):
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    usage = Usage(free_mib << 20, 0, free_mib << 20)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    (check,) = doctor.check_shared_memory()
    assert check.state == state
    if state == "optional":
        assert "64 MiB free, the batches of the LLaVA presets need 186 MiB" in check.found
        assert check.mend == "docker run --shm-size 16g; until then fewer workers read images"


def test_systems_without_shared_memory_as_a_folder_are_not_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "shm")
    assert list(doctor.check_shared_memory()) == []


def test_tracking_online_needs_a_key(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    check = doctor.check_tracking()
    assert (check.found, check.state, check.mend) == (
        "online, without a key",
        "optional",
        "wandb login",
    )
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key")
    assert doctor.check_tracking().state == "ok"


def test_a_user_without_home_is_told_what_to_set(monkeypatch, without_home):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert doctor.check_tracking().found == "online, without a key"
    check = doctor.check_cache()
    assert (check.found, check.state) == ("the user has no home directory", "missing")
    assert check.mend == "set PRISM_TUNE_CACHE to a folder for converted pools, or HOME"
    monkeypatch.setenv("PRISM_TUNE_CACHE", "/cache")
    assert (doctor.check_cache().found, doctor.check_cache().state) == ("/cache", "ok")


def test_a_key_file_in_another_encoding_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tmp_path / ".netrc").write_bytes(b"# M\xfcller\nmachine api.wandb.ai login user password key")
    assert doctor.check_tracking().state == "ok"


def test_a_broken_torchvision_ends_with_1(tmp_path):
    """The real thing: a torchvision whose operators torch does not know, before everything else."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(
        "import torch\n"
        '@torch.library.register_fake("torchvision::nms")\n'
        "def nms(dets, scores, iou_threshold): ...\n"
    )
    (tmp_path / "torchvision-0.29.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.29.0\n"
    (tmp_path / "torchvision-0.29.0.dist-info/METADATA").write_text(metadata)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "prism_tune", "doctor"],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be imported: operator torchvision::nms does not exist" in done.stdout
    assert "Not ready: torchvision, transformers' Auto classes" in done.stdout
    assert "Traceback" not in done.stderr

"""Energy as NVML counts it, from a stand-in for the library: no GPU is needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from prism_tune.run.energy import EnergyMeter
from prism_tune.run.folder import RunDir
from prism_tune.run.timings import StageTimer, read_timings, stage_total


class NVMLError(Exception):
    pass


class StandIn(SimpleNamespace):
    """Four GPUs, by index or `GPU-<index>`; counters in millijoules that the test moves."""

    NVMLError = NVMLError

    def __init__(self):
        self.counters = [1000, 2000, 3000, 4000]
        self.has_counters = True

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        if index >= len(self.counters):
            raise NVMLError
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        if not self.has_counters:
            raise NVMLError
        return self.counters[gpu]


@pytest.fixture
def nvml(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return stand_in


def use(nvml, *millijoules):
    for gpu, amount in enumerate(millijoules):
        nvml.counters[gpu] += amount


def test_joules_since_the_beginning_of_the_stages_gpus_only(nvml, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    meter = EnergyMeter(2)
    use(nvml, 1500, 2500, 9999, 9999)
    assert meter.joules() == 4.0


@pytest.mark.parametrize("visible", ["3,1", "GPU-3,GPU-1"])
def test_visible_devices_are_obeyed(nvml, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = EnergyMeter(1)
    use(nvml, 10, 20, 30, 4000)
    assert meter.joules() == 4.0


def test_gpus_of_another_machine_cannot_be_asked(nvml, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert EnergyMeter(4).joules() is None


def test_without_counter_device_or_library_there_is_no_number(nvml, monkeypatch):
    nvml.has_counters = False
    assert EnergyMeter(1).joules() is None
    nvml.has_counters = True
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert EnergyMeter(1).joules() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # import fails
    assert EnergyMeter(1).joules() is None


def test_a_stage_keeps_its_energy_summed_over_attempts(nvml, tmp_path):
    """The first attempt is killed: its last tick counts."""
    run = RunDir(tmp_path / "trial")
    killed = StageTimer(run, "training", fingerprint="f", device="NVIDIA H100")
    killed.__enter__()
    use(nvml, 5000)
    killed.tick(tokens=10)
    use(nvml, 700)
    with StageTimer(run, "training", fingerprint="f", device="NVIDIA H100"):
        use(nvml, 3000)
    assert [entry["energy_joules"] for entry in read_timings(run)] == [5.0, 3.0]
    assert stage_total(run, "training", "energy_joules") == 8.0


def test_a_cpu_has_no_counter(nvml, tmp_path):
    run = RunDir(tmp_path / "trial")
    with StageTimer(run, "training", fingerprint="f", device="cpu"):
        use(nvml, 5000)
    assert read_timings(run)[0]["energy_joules"] is None
    assert stage_total(run, "training", "energy_joules") is None

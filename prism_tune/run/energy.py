"""The energy that this run's GPUs have used, as NVML counts it (package nvidia-ml-py, optional).

NVML counts what a whole GPU uses, other programs on it included. Only this machine's GPUs can be
asked; where processes run on others too, or there is no counter, the energy is None, never 0.
"""

from __future__ import annotations

import os
from typing import Any

_JOULES_PER_COUNT = 1e-3


class EnergyMeter:
    """Counts from its creation on.

    Args:
        num_devices: GPUs of the whole stage, one for each process.
    """

    def __init__(self, num_devices: int) -> None:
        self._handles = _find_gpus(num_devices)
        self._begin = self._read()

    def joules(self) -> float | None:
        """The energy used since the creation, of all devices together."""
        now = self._read()
        return None if now is None or self._begin is None else round(now - self._begin, 3)

    def _read(self) -> float | None:
        if not self._handles:
            return None
        import pynvml

        try:
            counts = [pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in self._handles]
        except pynvml.NVMLError:
            return None  # GPUs before Volta, and parts of a divided GPU, have no counter
        return _JOULES_PER_COUNT * float(sum(counts))


def _find_gpus(num_devices: int) -> list[Any]:
    """NVML's handles of the stage's GPUs; empty where not all of them can be asked from here."""
    try:
        import pynvml
    except ImportError:
        return []
    places = _find_places(num_devices)
    try:
        pynvml.nvmlInit()
        return [
            pynvml.nvmlDeviceGetHandleByIndex(int(place))
            if place.isdecimal()
            else pynvml.nvmlDeviceGetHandleByUUID(place)
            for place in places
        ]
    except pynvml.NVMLError:
        return []


def _find_places(num_devices: int) -> list[str]:
    """Indices or UUIDs of the stage's GPUs, out of CUDA_VISIBLE_DEVICES where that is set."""
    on_this_node = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    if on_this_node != num_devices:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(index) for index in range(num_devices)]
    return [place.strip() for place in visible.split(",") if place.strip()][:num_devices]

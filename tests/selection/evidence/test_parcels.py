"""Units arrive from the processes that make them as they were made, in order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import Dataset

from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.parcels import load_units, pack, unpack

UNREADABLE = ("image_missing", "pool.json: record 2: gone.png: no such file")


class Drawn(Dataset[Encoded]):
    """Units of different lengths; every third has instruction positions, the fifth no inputs."""

    def __init__(self, num_pixels: int) -> None:
        self.num_pixels = num_pixels

    def __getitem__(self, number: int) -> Encoded:
        if number == 5:
            return Encoded({}, torch.zeros(0, dtype=torch.bool), 0, UNREADABLE)
        torch.manual_seed(number)
        length = 3 + number
        inputs = {
            "input_ids": torch.arange(length),
            "token_type_ids": torch.ones(length, dtype=torch.int32),
            "pixel_values": torch.rand(1, 3, self.num_pixels, self.num_pixels),
            "scale": torch.tensor(0.5 + number),
        }
        spoken_L = torch.arange(length) % 2 == 0 if number % 3 == 0 else None
        return Encoded(inputs, torch.arange(length) > 1, 1 + number, None, spoken_L)


def assert_same(found: list[Encoded], expected: list[Encoded]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one.inputs) == list(other.inputs)
        assert (one.num_images, one.fault) == (other.num_images, other.fault)
        tensors = [(*unit.inputs.values(), unit.pooled_L) for unit in (one, other)]
        for mine, theirs in zip(*tensors, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
        assert (one.instruction_L is None) == (other.instruction_L is None)
        if one.instruction_L is not None:
            assert torch.equal(one.instruction_L, other.instruction_L)


@pytest.mark.parametrize("num_pixels", [5, 300])  # through the pipe; through shared memory
def test_a_parcel_holds_its_units(num_pixels):
    units = [Drawn(num_pixels)[number] for number in range(6)]
    parcel = pack(units)
    assert isinstance(parcel.content, torch.Tensor) == (num_pixels == 300)
    assert_same(list(unpack(parcel)), units)


@pytest.mark.slow
@pytest.mark.parametrize("num_pixels", [5, 300])
def test_workers_hand_over_what_one_process_makes(num_pixels):
    """Asked for by threads that come and go, as for every shard: the workers outlive them."""
    dataset, dtype = Drawn(num_pixels), torch.bfloat16
    expected = list(load_units(dataset, 10, 0, dtype))
    assert expected[0].inputs["pixel_values"].dtype == torch.bfloat16
    units = load_units(dataset, 10, 2, dtype)
    found = []
    for _ in range(10):
        with ThreadPoolExecutor(1) as receiver:
            found.append(receiver.submit(next, units).result(60))
    assert next(units, None) is None
    assert_same(found, expected)

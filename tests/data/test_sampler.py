from __future__ import annotations

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from prism_tune.data.sampler import ModalityLengthSampler

MIXES = st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=80)


def build(mix, batch_size, world_size, seed=0):
    lengths_N = np.array([length for length, _ in mix])
    has_image_N = np.array([image for _, image in mix])
    return ModalityLengthSampler(lengths_N, has_image_N, batch_size, world_size, seed)


def deal(sampler, batch_size, world_size):
    """What each process gets from accelerate."""
    batches = BatchSampler(sampler, batch_size, drop_last=False)
    shards = [BatchSamplerShard(batches, world_size, rank) for rank in range(world_size)]
    return [list(shard) for shard in shards]


@given(MIXES, st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_every_record_exactly_once(mix, batch_size, world_size, epoch):
    sampler = build(mix, batch_size, world_size)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(mix)))
    assert len(sampler) == len(mix)


@given(MIXES, st.integers(1, 5), st.integers(1, 4))
def test_processes_partition_the_records(mix, batch_size, world_size):
    ranks = deal(build(mix, batch_size, world_size), batch_size, world_size)
    seen = [number for rank in ranks for batch in rank for number in batch]
    step = batch_size * world_size
    assert set(seen) == set(range(len(mix)))
    if len(mix) >= step:
        assert len(seen) == -(-len(mix) // step) * step
    assert len({len(rank) for rank in ranks}) == 1
    if len(mix) % step == 0:
        assert len(seen) == len(mix)


@given(MIXES, st.integers(1, 5), st.integers(1, 4))
def test_steps_are_of_one_modality_but_for_the_left_over(mix, batch_size, world_size):
    step = batch_size * world_size
    order = list(build(mix, batch_size, world_size))
    steps = [order[start : start + step] for start in range(0, len(order), step)]
    num_mixed = sum(len({mix[number][1] for number in numbers}) > 1 for numbers in steps)
    num_pure = sum(len(numbers) == step for numbers in steps) - num_mixed
    num_images = sum(image for _, image in mix)
    assert num_pure >= num_images // step + (len(mix) - num_images) // step - 1
    assert num_mixed <= 2


def test_a_steps_lengths_are_close():
    random = np.random.default_rng(0)
    mix = [(int(length), True) for length in random.integers(1, 1000, 1600)]
    order = list(build(mix, 4, 2))
    lengths = np.array([mix[number][0] for number in order]).reshape(-1, 8)
    spread = (lengths.max(1) - lengths.min(1)).mean()
    assert spread < 50
    assert abs(np.corrcoef(lengths.mean(1), np.arange(len(lengths)))[0, 1]) < 0.3


def test_seeds_and_epochs():
    mix = [(number % 7 + 1, number % 3 > 0) for number in range(60)]
    first = list(build(mix, 4, 2))
    assert list(build(mix, 4, 2)) == first
    assert list(build(mix, 4, 2, seed=1)) != first
    sampler = build(mix, 4, 2)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("has_image", [True, False])
def test_one_modality_only(has_image):
    sampler = build([(5, has_image)] * 9, 2, 2)
    assert sorted(sampler) == list(range(9))


def test_the_worked_example(monkeypatch):
    class Shuffled:
        orders = iter([[3, 0, 5, 2, 1, 4], [8, 6, 7], [1, 0]])

        def permutation(self, _):
            return np.array(next(self.orders))

    monkeypatch.setattr(np.random, "default_rng", lambda _: Shuffled())
    mix = [(n, True) for n in (9, 3, 8, 2, 7, 1)] + [(n, False) for n in (5, 6, 4)]
    sampler = build(mix, 2, 2)
    assert list(sampler) == [4, 7, 6, 8, 0, 2, 3, 5, 1]

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.data.token_budget import TokenBudgetBatchSampler
from prism_tune.errors import UserError

# At least two records fit a batch: where every batch is a single record, an uneven deal is refused.
MIXES = st.lists(st.tuples(st.integers(1, 25), st.booleans()), min_size=8, max_size=80)
WORLDS = st.integers(1, 4)


def deal(mix, budget, world_size=1, seed=0, epoch=0):
    """Every process's batches."""
    lengths_N = np.array([length for length, _ in mix])
    has_image_N = np.array([image for _, image in mix], dtype=bool)
    ranks = []
    for rank in range(world_size):
        sampler = TokenBudgetBatchSampler(
            lengths_N, has_image_N, budget, rank=rank, world_size=world_size, seed=seed
        )
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        ranks.append(batches)
    return ranks


@given(MIXES, st.integers(50, 300), WORLDS, st.integers(0, 3))
def test_processes_share_the_records_out_without_loss_or_double(mix, budget, world_size, epoch):
    ranks = deal(mix, budget, world_size, epoch=epoch)
    assert len({len(batches) for batches in ranks}) == 1
    seen = sorted(number for batches in ranks for batch in batches for number in batch)
    assert seen == list(range(len(mix)))


@given(MIXES, st.integers(50, 300), WORLDS)
def test_no_padded_batch_exceeds_the_budget_or_mixes_modalities(mix, budget, world_size):
    mixed_steps = 0
    for step in zip(*deal(mix, budget, world_size), strict=True):
        for batch in step:
            assert batch
            assert len(batch) * max(mix[number][0] for number in batch) <= budget
            assert len({mix[number][1] for number in batch}) == 1
        mixed_steps += len({mix[number][1] for batch in step for number in batch}) > 1
    assert mixed_steps <= 1


def test_the_documented_example():
    mix = [(2, True), (6, True), (4, True), (3, False), (5, True), (3, False), (2, True)]
    ranks = deal(mix, 12, world_size=2)
    steps = [
        tuple(tuple(mix[number][0] for number in batch) for batch in step)
        for step in zip(*ranks, strict=True)
    ]
    assert sorted(steps) == [((2,), (3, 3)), ((6, 5), (4, 2))]


def test_epochs_and_seeds_have_orders_of_their_own():
    mix = [(length, True) for length in range(1, 41)]
    (first,), (again,) = deal(mix, 60, seed=1), deal(mix, 60, seed=1)
    (next_epoch,), (other,) = deal(mix, 60, seed=1, epoch=1), deal(mix, 60, seed=2)
    assert first == again
    assert first != next_epoch
    assert sorted(first) == sorted(next_epoch)  # the same batches
    assert first != other


def test_what_cannot_be_batched_is_said():
    with pytest.raises(UserError, match=r"tokens_per_batch: 30, but the longest record has 31"):
        deal([(31, True), (3, False)], 30)
    with pytest.raises(UserError, match="3 records cannot be dealt evenly to 2 processes"):
        deal([(3, True)] * 3, 3, world_size=2)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.data.packing import PackedBatchSampler
from prism_tune.errors import UserError

# At least two records fit a row: where every row is a single record, an uneven deal is refused.
MIXES = st.lists(st.tuples(st.integers(1, 25), st.booleans()), min_size=8, max_size=120)
WORLDS = st.integers(1, 4)


def deal(mix, capacity, world_size=1, seed=0, epoch=0):
    """Every process's rows."""
    lengths_N = np.array([length for length, _ in mix])
    has_image_N = np.array([image for _, image in mix], dtype=bool)
    ranks = []
    for rank in range(world_size):
        sampler = PackedBatchSampler(
            lengths_N, has_image_N, capacity, rank=rank, world_size=world_size, seed=seed
        )
        sampler.set_epoch(epoch)
        rows = list(sampler)
        assert len(rows) == len(sampler)
        ranks.append(rows)
    return ranks


@given(MIXES, st.integers(50, 300), WORLDS, st.integers(0, 3))
def test_processes_share_the_records_out_without_loss_or_double(mix, capacity, world_size, epoch):
    ranks = deal(mix, capacity, world_size, epoch=epoch)
    assert len({len(rows) for rows in ranks}) == 1
    seen = sorted(number for rows in ranks for row in rows for number in row)
    assert seen == list(range(len(mix)))


@given(MIXES, st.integers(50, 300), WORLDS, st.integers(0, 3))
def test_no_row_is_empty_or_holds_more_than_its_tokens(mix, capacity, world_size, epoch):
    for rows in deal(mix, capacity, world_size, epoch=epoch):
        assert all(row for row in rows)
        assert max(sum(mix[number][0] for number in row) for row in rows) <= capacity


@given(MIXES, WORLDS, st.integers(1, 4))
def test_every_epoch_has_the_same_number_of_rows(mix, world_size, epoch):
    first, later = deal(mix, 60, world_size), deal(mix, 60, world_size, epoch=epoch)
    assert [len(rows) for rows in first] == [len(rows) for rows in later]


def test_rows_of_a_llava_like_mix_are_full():
    """Few tokens are left over: no more than rows over what the tokens alone would need."""
    random = np.random.default_rng(0)
    lengths = np.concatenate(
        [576 + random.geometric(1 / 100, 1800).clip(20, 1400), random.integers(30, 2000, 200)]
    )
    mix = [(int(length), number < 1800) for number, length in enumerate(lengths)]
    for capacity, fewest in ((2048, 0.9), (4096, 0.95), (16384, 0.97)):
        (rows,) = deal(mix, capacity)
        assert lengths.sum() / (len(rows) * capacity) >= fewest


def test_the_first_open_row_with_room_takes_the_record():
    mix = [(length, True) for length in (6, 5, 4, 7, 2, 3, 2)]
    (rows,) = deal(mix, 12, seed=3)
    tokens = sorted(sorted((mix[number][0] for number in row), reverse=True) for row in rows)
    random = np.random.default_rng(3)
    expected = [[]]
    for number in random.permutation(7):
        fitting = [row for row in expected if sum(row) + mix[number][0] <= 12]
        if fitting:
            fitting[0].append(mix[number][0])
        else:
            expected.append([mix[number][0]])
    assert tokens == sorted(sorted(row, reverse=True) for row in expected)


def test_an_epoch_gives_records_other_neighbours_in_rows_of_the_same_lengths():
    mix = [(10 + number % 3, number % 2 == 0) for number in range(60)]
    (first,), (again,) = deal(mix, 50, seed=1), deal(mix, 50, seed=1)
    (next_epoch,), (other,) = deal(mix, 50, seed=1, epoch=1), deal(mix, 50, seed=2)
    assert first == again
    assert first != other
    assert sorted(first) != sorted(next_epoch)
    kinds = [sorted(sorted(mix[n] for n in row) for row in rows) for rows in (first, next_epoch)]
    assert kinds[0] == kinds[1]


def test_what_cannot_be_packed_is_said():
    with pytest.raises(UserError, match=r"tokens_per_batch: 30, but the longest record has 31"):
        deal([(31, True), (3, False)], 30)
    with pytest.raises(UserError, match="3 records cannot be dealt evenly to 2 processes"):
        deal([(3, True)] * 3, 3, world_size=2)

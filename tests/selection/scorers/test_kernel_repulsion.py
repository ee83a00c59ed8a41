"""kernel_repulsion against its definition over an explicit kernel matrix; rounds by hand."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from prism_tune.errors import ConfigError
from prism_tune.selection.scorers.kernels.cells import CellKernel, find_cells, narrow_bandwidth
from prism_tune.selection.scorers.kernels.density import Rbf
from prism_tune.selection.scorers.kernels.kernel_repulsion import pick_repelled, round_sizes


def draw(num_records=120, num_rows=50, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_rows, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    row_N = np.concatenate([np.arange(num_rows), rng.integers(0, num_rows, num_records - num_rows)])
    return rows, row_N, rng.normal(size=num_records)


def pick_by_definition(keys, rows, row_N, cells, bandwidth, num_picks, beta):
    """One round after the other over the N x N matrix of the kernel inside cells."""
    cell_P = np.empty(len(rows), dtype=int)
    for number, members in enumerate(cells):
        cell_P[members] = number
    records, cell_N = rows[row_N], cell_P[row_N]
    kernel = np.exp(-((records[:, None] - records) ** 2).sum(axis=2) / (2 * bandwidth))
    kernel *= cell_N[:, None] == cell_N
    kept, size = [], max(1, round(0.02 * len(keys)))
    while len(kept) < num_picks:
        fair = np.minimum(len(kept) / len(keys) * (kernel.sum(axis=1) - 1), 0.5)
        cover = np.maximum(kernel[:, kept].sum(axis=1) - fair, 0)
        order = np.argsort(np.exp(keys) * (1 + cover) ** beta)
        kept += [n for n in order.tolist() if n not in kept][:size]
        size = max(1, round(0.25 * len(kept)))
    return kept[:num_picks]


@pytest.mark.parametrize("beta", [0.0, 1.5, 8.0])
def test_picks_are_those_of_the_definition(beta):
    rows, row_N, keys = draw()
    cells = find_cells(rows)
    assert len(cells) > 3
    picks = pick_repelled(keys, row_N, CellKernel(rows, cells, Rbf(0.1)), 60, beta)
    assert picks.tolist() == pick_by_definition(keys, rows, row_N, cells, 0.1, 60, beta)


def test_without_repulsion_it_is_the_race():
    rows, row_N, keys = draw()
    kernel = CellKernel(rows, find_cells(rows), Rbf(0.1))
    assert pick_repelled(keys, row_N, kernel, 40, 0.0).tolist() == np.argsort(keys)[:40].tolist()


@pytest.mark.parametrize("options", [{}, {"text_weight": 0.5}, {"alpha": 1.0, "deficit": 1.0}])
def test_of_axes_each_twice_every_pick_is_another(options, make_table):
    """Ten axes, each twice, six wanted: six axes."""
    axes = np.repeat(np.eye(10), 2, axis=0)
    table = make_table(axes, texts_ND=axes)
    options = {"bandwidth": 0.1, "beta": 64.0, **options}
    for seed in range(20):
        kept = table.select("kernel_repulsion", budget=6, seed=seed, **options)
        assert len({int(uid[4:]) // 2 for uid in kept}) == 6, seed


def plant(num_records, width=16, seed=0):
    """Concepts of unequal sizes, the last 10 % near-copies of the first 10 %, then 3 % noise."""
    rng = np.random.default_rng(seed)
    num_copies, num_noise = num_records // 10, 3 * num_records // 100
    num_plain = num_records - num_copies - num_noise
    chances = 1 / np.arange(1, 101)
    concept = rng.choice(100, num_plain, p=chances / chances.sum())
    rows = rng.normal(size=(100, width))[concept] + 0.15 * rng.normal(size=(num_plain, width))
    copies = rows[:num_copies] + 0.01 * rng.normal(size=(num_copies, width))
    noise = rng.normal(size=(num_noise, width))
    return np.concatenate([rows, copies, noise]), num_plain, num_copies


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"alpha": 1.0, "deficit": 1.0}, marks=pytest.mark.slow)]
)
def test_of_many_records_copies_go_and_noise_stays_rare(options, make_table):
    """20,000 records: random features kept twice as many copies as chance does."""
    rows, num_plain, num_copies = plant(20_000)
    kept = make_table(rows).select("kernel_repulsion", budget=0.1, **options)
    kept = {int(uid[4:]) for uid in kept}
    touched = [n for n in range(num_copies) if n in kept or n + num_plain in kept]
    whole = [n for n in touched if n in kept and n + num_plain in kept]
    assert len(whole) / len(touched) < 0.1 / 1.9 / 3  # a third of what chance keeps
    assert sum(n >= num_plain + num_copies for n in kept) / len(kept) < 0.06


def test_one_record_many_times_is_thinned(make_table):
    """200 near-copies of one record among 2,000: at a tenth, chance keeps twenty."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 16))
    rows[:200] = rows[0] + 0.005 * rng.normal(size=(200, 16))
    kept = make_table(rows).select("kernel_repulsion", budget=0.1)
    assert 1 <= sum(int(uid[4:]) < 200 for uid in kept) <= 6


def test_cells_hold_every_row_once_and_are_of_bounded_size():
    """Also where a third of the rows are equal, so that no centre parts them."""
    rows = np.random.default_rng(0).normal(size=(900, 5))
    rows[:300] = rows[0]
    cells = find_cells(rows)
    assert np.sort(np.concatenate(cells)).tolist() == list(range(900))
    assert max(map(len, cells)) <= 4 * 30


def test_a_dense_pool_has_a_narrower_bandwidth():
    rows = np.random.default_rng(0).normal(size=(2000, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cells = find_cells(rows)
    assert narrow_bandwidth(rows[:20], [np.arange(20)], 0.01) == 0.01 / 4
    assert narrow_bandwidth(rows, cells, 0.2) == 0.2 / 4 / 2**5
    assert narrow_bandwidth(np.repeat(rows[:9], 5, axis=0), [np.arange(45)], 0.01) == 0.01 / 4


@pytest.mark.parametrize("threads", [1, 5])
def test_the_number_of_threads_changes_nothing(threads, monkeypatch):
    rows, row_N, keys = draw(4000, 3000)
    wanted = pick_repelled(keys, row_N, CellKernel(rows, find_cells(rows), Rbf(0.01)), 900, 8.0)
    monkeypatch.setattr("prism_tune.features.row_blocks.count_cores", lambda: threads)
    again = pick_repelled(keys, row_N, CellKernel(rows, find_cells(rows), Rbf(0.01)), 900, 8.0)
    assert again.tolist() == wanted.tolist()


def test_rounds_by_hand():
    assert list(islice(round_sizes(400, 400), 5)) == [8, 2, 2, 3, 4]
    assert sum(round_sizes(10, 10)) == 10
    assert list(round_sizes(1, 1)) == [1]


def test_of_near_duplicates_one_is_kept_before_another_is(make_table):
    """40 places with 5 near-duplicates each: at a fifth, most places have their one."""
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.normal(size=(40, 16)), 5, axis=0) + 0.01 * rng.normal(size=(200, 16))

    def num_places(scorer):
        kept = make_table(rows).select(scorer, budget=0.2)
        return len({int(uid[4:]) // 5 for uid in kept})

    assert num_places("kernel_prism") <= 30  # as by chance: 40 (1 - .8^5) = 27
    assert num_places("kernel_repulsion") >= 34  # not 40: within a round nothing repels


def test_a_smaller_budget_is_the_beginning_of_a_larger(clustered):
    small, large = (clustered.select("kernel_repulsion", budget=b) for b in (0.1, 0.3))
    assert small < large


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, "`beta` = -1: expected a number from 0"),
        ({"alpha": float("inf")}, "`alpha` = 'inf': expected a number from 0"),
        ({"num_landmarks": 0}, "`num_landmarks` = 0: expected greater than 0"),
    ],
)
def test_options_are_refused_by_name(options, message, clustered):
    with pytest.raises(ConfigError, match=message):
        clustered.run("kernel_repulsion", **options)


def test_another_end_has_no_meaning(clustered):
    with pytest.raises(ConfigError, match="kernel_repulsion, which picks records one by one"):
        clustered.run("kernel_repulsion", keep="high")

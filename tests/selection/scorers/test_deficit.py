"""The deficit race against its definition over an explicit kernel matrix, and what it does."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.features.row_pairs import pair_rows
from prism_tune.selection.scorers.kernels.cells import CellKernel
from prism_tune.selection.scorers.kernels.deficit import Deficit
from prism_tune.selection.scorers.kernels.density import Rbf
from prism_tune.selection.scorers.kernels.kernel import Kernel
from prism_tune.selection.scorers.kernels.kernel_repulsion import pick_repelled, round_sizes
from prism_tune.selection.scorers.kernels.short_rows import ShortRows


def draw_group(num_records=120, num_rows=50, seed=0):
    """A kernel of one group whose records share rows, and a race's rates and keys."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_rows, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    row_N = np.concatenate([np.arange(num_rows), rng.integers(0, num_rows, num_records - num_rows)])
    short = ShortRows(pair_rows(num_rows, None, row_N), rows, 4)
    kernel = Kernel(short, Rbf(0.3), np.arange(num_records), 2048)
    rates = rng.normal(size=num_records)
    return kernel, next(kernel.groups()), rates, np.log(rng.exponential(size=num_records)) - rates


def pick_by_definition(kernel, row_N, rates, keys, num_picks, strength):
    records = kernel.rows.values_PK[row_N]
    between = np.exp(-((records[:, None] - records) ** 2).sum(axis=2) / (2 * 0.3))
    weights = np.exp(rates)
    others = between * ~np.eye(len(keys), dtype=bool)
    fair = others @ weights / (weights.sum() - weights)
    kept = []
    for size in round_sizes(len(keys), num_picks):
        factor = np.ones(len(keys))
        if kept:
            lacking = 1 - (between[:, kept].mean(axis=1) + 0.02) / (fair + 0.02)
            factor = np.maximum(0.05, 1 + strength * len(kept) / size * lacking)
        order = np.argsort(np.exp(keys) / factor)
        kept += [n for n in order.tolist() if n not in kept][:size]
    return kept[:num_picks]


@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0])
def test_picks_are_those_of_the_definition(strength):
    kernel, group, rates, keys = draw_group()
    alone = CellKernel(group.values_PK, [np.arange(50)], Rbf(1e-9))
    deficit = Deficit(group, kernel, rates, strength)
    picks = pick_repelled(keys, group.row_N, alone, 60, 0.0, deficit)
    expected = pick_by_definition(kernel, group.row_N, rates, keys, 60, strength)
    assert picks.tolist() == expected
    assert picks.tolist() != pick_repelled(keys, group.row_N, alone, 60, 0.0).tolist()


def test_of_equal_records_none_is_ahead():
    kernel, group, _, _ = draw_group(8, 1)
    deficit = Deficit(group, kernel, np.zeros(8), 1.0)
    assert deficit.log_factors(2).tolist() == [0.0] * 8
    deficit.add(np.array([0, 1]))
    np.testing.assert_allclose(deficit.log_factors(2), 0.0, atol=1e-12)


def test_what_is_kept_is_less_alike_and_noise_stays_rare(make_table):
    """Against the race alone: less kernel between the kept, not by picking the isolated."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, 41)
    concept = rng.choice(40, 1940, p=chances / chances.sum())
    rows = rng.normal(size=(40, 16))[concept] + 0.3 * rng.normal(size=(1940, 16))
    noise = 3 * rng.normal(size=(60, 16))
    table = make_table(np.concatenate([rows, noise]))

    def measure(**options):
        masses, noisy = [], []
        for seed in range(3):
            kept = table.select("kernel_repulsion", budget=0.1, seed=seed, beta=0.0, **options)
            at = np.array([int(uid[4:]) for uid in kept])
            unit = table.features_UD[at] / np.linalg.norm(table.features_UD[at], axis=1)[:, None]
            masses.append(np.exp(-(2 - 2 * unit @ unit.T) / 0.4).mean())
            noisy.append(np.mean(at >= 1940))
        return np.mean(masses), np.mean(noisy)

    by_chance, _ = measure(alpha=0.0)
    tempered, noisy = measure(alpha=1.0, deficit=1.0)
    assert tempered < 0.7 * by_chance
    assert noisy < 0.12

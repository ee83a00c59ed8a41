"""What do the selectors remove of the testbed's known faults? Selections alone, without tuning.

    prism-tune prepare preset:quickstart
    python benchmarks/faults.py             # every selector of the testbed's configs, ten seeds
    python benchmarks/faults.py --budget 0.1 --seeds 3 --only "kernel_*" random

`prism-tune compare preset:testbed_faults` prints the same beside accuracies, once its cells have
been tuned. Per cent, mean over seeds: the share of each kind of faulty record that is not in the
subset (Random removes one minus the budget of each), and the share of the subset that repeats
another record of it. Evidence is computed once and kept below --work, as finished selections are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import prism_tune as pt
from prism_tune.results.overlap import read_planted, removed_shares, repeated_share
from prism_tune.results.records import read_records

PRESETS = ("testbed", "testbed_selectors")


def main() -> None:
    """Select under every seed, and print a row a selector."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of selectors")
    parser.add_argument("--work", type=Path, default=Path("runs/faults"))
    given = parser.parse_args()
    table = {
        name: [_measure(name, entry, given.budget, seed, given.work) for seed in range(given.seeds)]
        for name, entry in _list_selectors(given.only).items()
    }
    kinds = list(next(iter(table.values()))[0])
    print("| selector | " + " | ".join(kinds) + " |\n|---|" + "---:|" * len(kinds))
    for name, shares in table.items():
        means = (sum(share[kind] for share in shares) / len(shares) for kind in kinds)
        print(f"| {name} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")


def _list_selectors(patterns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of the configs: what differs in `selection`, by name."""
    found: dict[str, dict[str, Any]] = {}
    for preset in PRESETS:
        compared = pt.load_config(f"preset:{preset}").compare
        assert compared is not None
        for selector in compared.selectors:
            entry = {"scorer": selector} if isinstance(selector, str) else dict(selector)
            found[str(entry.pop("name", entry["scorer"]))] = entry
    return {k: entry for k, entry in found.items() if any(fnmatch(k, p) for p in patterns)}


def _measure(
    name: str, differing: dict[str, Any], budget: float, seed: int, work: Path
) -> dict[str, float]:
    config = pt.load_config("preset:testbed_faults")
    assert config.compare is not None
    assert config.compare.planted is not None
    subset = pt.select(
        config,
        name=f"{name}-{budget}-seed{seed}",
        output_dir=str(work),
        seed=seed,
        **{f"selection.{key}": value for key, value in {**differing, "budget": budget}.items()},
    )
    records, planted = read_records(subset.run), read_planted(Path(config.compare.planted))
    shares = {**removed_shares(records, planted), "repeats kept": repeated_share(records, planted)}
    return {kind: 100 * share for kind, share in shares.items()}


if __name__ == "__main__":
    main()

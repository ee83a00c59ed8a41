"""How much of a comparison's spread over seeds is answers that flip? Reads finished cells.

    prism-tune compare preset:testbed
    python benchmarks/noise.py runs/testbed

Per selector and budget: the mean of Rel., its standard deviation over seeds, and the part that
independent flips of single answers make of it (the variance of each question's credit over the
seeds, summed; parts add in squares). Then the spread of each benchmark's score.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import orjson

Answers = dict[str, dict[str, float]]
"""Of a cell: benchmark -> question -> credit in [0, 1]."""


def main() -> None:
    """Print a row a selector and budget."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the comparison's folder")
    rows: dict[str, list[Answers]] = defaultdict(list)
    for cell in sorted((parser.parse_args().run / "cells").glob("*-seed*")):
        rows[cell.name.rpartition("-seed")[0]].append(_read(cell))
    whole = {
        name: 100 * _credits(rows["whole_pool"], name).mean() for name in rows["whole_pool"][0]
    }
    print("| cells | Rel. | sd | of it flips | " + " | ".join(whole) + " |")
    print("|---|---:|---:|---:|" + "---:|" * len(whole))
    for row, cells in rows.items():
        credits = {name: _credits(cells, name) for name in whole}
        scores_BS = np.array([100 * credits[name].mean(1) for name in whole])
        whole_B = np.array(list(whole.values()))
        rel_S = 100 * (scores_BS / whole_B[:, None]).mean(0)
        flips_B = np.array([c.var(0, ddof=1).mean() / c.shape[1] for c in credits.values()])
        flips = 100 * np.sqrt((1e4 * flips_B / whole_B**2).sum()) / len(whole)
        spread = " | ".join(f"{m:.1f} ± {s:.1f}" for m, s in _describe(scores_BS))
        print(f"| {row} | {rel_S.mean():.1f} | {rel_S.std(ddof=1):.1f} | {flips:.1f} | {spread} |")


def _read(cell: Path) -> Answers:
    return {
        file.parent.name: orjson.loads(file.read_bytes())["per_question"]
        for file in sorted((cell / "evaluation").glob("*/results.json"))
    }


def _credits(cells: list[Answers], name: str) -> np.ndarray:
    """[seeds, questions]."""
    questions = sorted(cells[0][name])
    return np.array([[cell[name][question] for question in questions] for cell in cells])


def _describe(scores_BS: np.ndarray) -> list[tuple[float, float]]:
    return [(row_S.mean(), row_S.std(ddof=1)) for row_S in scores_BS]


if __name__ == "__main__":
    main()

"""What a run amounts to beside others: its row of their table, and sentences in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prism_tune.errors import UserError
from prism_tune.report.numbers import count, number, percent, seconds
from prism_tune.results.build import compose_table
from prism_tune.results.columns import num_digits, scale_of
from prism_tune.results.render import Cell, Table
from prism_tune.results.runs import FinishedRun

_NARROW_CONE = 0.5
_EVEN = 0.02  # sources whose kept shares differ by no more are said to be kept evenly


def compare_runs(runs: Sequence[FinishedRun]) -> Table | None:
    """The main table of the evaluated runs; None where they have none together.

    What keeps their results apart is said in the section Compare.
    """
    evaluated = [run for run in runs if run.results]
    try:
        return compose_table("main", evaluated, None).table if evaluated else None
    except UserError:
        return None


def find_row(table: Table | None, run: FinishedRun) -> Mapping[str, Cell]:
    """Heading -> cell of the run's own row; empty where the table does not hold it."""
    for cells in table.rows if table else ():
        row = dict(zip(table.header if table else (), cells, strict=True))
        if run.name in row["Run"].names:
            return row
    return {}


def describe_run(run: FinishedRun, table: Table | None) -> list[str]:
    """The sentences, the most important first; at least one.

    Args:
        run: what they are about.
        table: of the run and those beside it.
    """
    cells = list_cells(run)
    has_run = run.manifest is not None or bool(run.record("training")) or bool(run.results)
    found = [
        *([] if has_run else _say_cells(run, cells)),
        *([] if cells and not has_run else [_say_kept(run)]),
        *_say_stale(run),
        _say_unranked(run),
        _say_random(run, table),
        _say_cost(run),
        _say_cone(run),
        _say_balance(run),
        *_say_sight(run),
        *(_say_cells(run, cells) if has_run else []),
    ]
    return [sentence for sentence in found if sentence]


def list_cells(run: FinishedRun) -> list[Path]:
    """The cells of the comparison that the folder is of; none of a run."""
    return sorted(path.parent for path in run.root.glob("cells/*/cell.yaml"))


def _say_cells(run: FinishedRun, cells: Sequence[Path]) -> list[str]:
    """That the folder is a comparison's, and where what it found lies; nothing of a run."""
    if not cells:
        return []
    tables = [n for n in ("comparison.md", "comparison.html") if (run.root / n).exists()]
    pages = [f"cells/{c.name}/report" for c in cells if (c / "report" / "index.html").exists()]
    return [
        f"This is the folder of a comparison of {count(len(cells))} cells, each a run of its own: "
        "what was selected, tuned and evaluated lies in them.",
        f"What it found: {' and '.join(tables)}." if tables else "It has no table yet.",
        f"Its cells: {', '.join(f'cells/{cell.name}' for cell in cells)}.",
        f"Reports of cells: {', '.join(pages)}."
        if pages
        else f"`prism-tune report {run.root}/cells/NAME` makes the report of a cell.",
    ]


def _say_kept(run: FinishedRun) -> str:
    manifest = run.manifest
    if manifest is None:
        if run.config.training.tuning == "none":
            return "This is the untuned model: nothing was selected and nothing was tuned."
        if run.is_full and not run.record("training"):
            return (
                "This run is to be tuned on the whole pool, and has not been: there is nothing to "
                "judge yet."
            )
        if run.is_full:
            return "This run was tuned on the whole pool: nothing was selected."
        return "The selection of this run has not finished: there is nothing to judge yet."
    kept, total = manifest["num_selected"], manifest["num_pool"]
    text = f"{manifest['scorer']} kept {count(kept)} of {count(total)} records "
    text += f"({percent(kept / max(total, 1))})"
    if manifest["num_text_only"] and run.config.selection.text_only == "keep":
        text += f", all {count(manifest['num_text_only'])} text-only records among them"
    skipped = sum(manifest.get("num_skipped", {}).values())
    return text + (f"; {count(skipped)} unusable records were left out." if skipped else ".")


def _say_stale(run: FinishedRun) -> list[str]:
    """What is not of the stages before it as they are by now."""
    return [f"STALE: {found}; run that stage again." for found in run.stale]


def _say_unranked(run: FinishedRun) -> str:
    """How many records the selector could not rank, and why."""
    text = run.unranked
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _say_random(run: FinishedRun, table: Table | None) -> str:
    """The table's own judgement of the selector against Random."""
    row = find_row(table, run)
    return table.verdicts.get(row["Method"].text, "") if table and row else ""


def _say_cost(run: FinishedRun) -> str:
    select, tune = run.total("selection"), run.total("training")
    if select is None:
        return ""
    text = f"Selecting took {seconds(select)} of device time"
    if tune:
        text += f", {percent(select / tune)} of the {seconds(tune)} of tuning that followed"
    return text + "."


def _say_cone(run: FinishedRun) -> str:
    measured = (run.manifest or {}).get("anisotropy")
    if measured is None:
        return ""
    raw, centred = measured["mean_cosine_raw"], measured["mean_cosine_centred"]
    if raw < _NARROW_CONE:
        return f"The raw features do not lie in a narrow cone (mean cosine {number(raw, 2)})."
    return (
        f"The raw features lie in a narrow cone (mean cosine {number(raw, 2)}); re-centring opens "
        f"it (mean cosine {number(centred, 3)}), so that records are told apart by what is "
        "particular to them."
    )


def _say_balance(run: FinishedRun) -> str:
    records = run.records
    if records is None:
        return ""
    ranked_N = records.is_ranked_N
    num_sources = len(records.sources.names)
    totals = np.bincount(records.sources.codes_N[ranked_N], minlength=num_sources)
    kept = np.bincount(
        records.sources.codes_N[ranked_N & records.selected_N], minlength=num_sources
    )
    present = np.flatnonzero(totals)
    if len(present) < 2:
        return ""
    shares = kept[present] / totals[present]
    least, most = int(shares.argmin()), int(shares.argmax())
    low, high = percent(shares[least]), percent(shares[most])
    spread = low if low == high else f"{low} to {high}"
    if shares[most] - shares[least] <= _EVEN:
        return f"Every source keeps about the same share of its image records ({spread})."
    names = [records.sources.names[present[place]] for place in (least, most)]
    return f"The sources are kept unevenly: {spread} (least {names[0]}, most {names[1]})."


def _say_sight(run: FinishedRun) -> list[str]:
    """What is left of the first metric when the image is taken away."""
    sentences = []
    for name, result in run.results.items():
        metric = next(iter(result.metrics), "")
        blind = result.metrics.get(f"{metric}_blind")
        if blind is not None:
            seen, digits = result.metrics[metric], num_digits(scale_of(result))
            sentences.append(
                f"On {name} it reaches {number(seen, digits)} ({metric}), and "
                f"{number(blind, digits)} "
                "when the images are withheld."
            )
    return sentences

"""What a run amounts to, in plain words: sentences computed from its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prism_tune.report.formats import count, number, percent, seconds
from prism_tune.results.runs import FinishedRun

_NARROW_CONE = 0.5
_EVEN = 0.02  # sources whose kept shares differ by no more are said to be kept evenly


def table_row(run: FinishedRun) -> Mapping[str, Mapping[str, Any]] | None:
    """The run's own row of its main table; None where no table was made."""
    for row in run.tables.get("main", {}).get("rows", []):
        if run.name in row.get("Run", {}).get("names", ()):
            own: Mapping[str, Mapping[str, Any]] = row
            return own
    return None


def describe_run(run: FinishedRun) -> list[str]:
    """The sentences, the most important first; at least one."""
    found = [
        _say_kept(run),
        _say_random(run),
        _say_cost(run),
        _say_cone(run),
        _say_balance(run),
        *_say_sight(run),
    ]
    return [sentence for sentence in found if sentence]


def _say_kept(run: FinishedRun) -> str:
    manifest = run.manifest
    if manifest is None:
        if run.config.training.tuning == "none":
            return "This is the untuned model: nothing was selected and nothing was tuned."
        if run.config.training.records == "pool":
            return "This run was tuned on the whole pool: nothing was selected."
        return "The selection of this run has not finished: there is nothing to judge yet."
    kept, total = manifest["num_selected"], manifest["num_pool"]
    text = f"{manifest['scorer']} kept {count(kept)} of {count(total)} records "
    text += f"({percent(kept / max(total, 1))})"
    if manifest["num_text_only"]:
        text += f", all {count(manifest['num_text_only'])} text-only records among them"
    skipped = sum(manifest.get("num_skipped", {}).values())
    return text + (f"; {count(skipped)} unusable records were left out." if skipped else ".")


def _say_random(run: FinishedRun) -> str:
    """The table's own judgement of the selector against Random."""
    row = table_row(run)
    if row is None or run.manifest is None:
        return ""
    verdict: str = run.tables["main"].get("verdicts", {}).get(row["Method"]["text"], "")
    return verdict


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
            seen = result.metrics[metric]
            sentences.append(
                f"On {name} it reaches {number(seen, 1)} ({metric}), and {number(blind, 1)} "
                "when the images are withheld."
            )
    return sentences

"""Training and evaluation: loss curves, losses of sources, results with intervals, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from prism_tune.errors import UserError
from prism_tune.features.row_blocks import even_places
from prism_tune.report.figures import (
    NUM_COLOURS,
    Figure,
    bar_size,
    category_colour,
    named_axis,
    single,
)
from prism_tune.report.numbers import count, number, plot_text
from prism_tune.report.section import PageFolder, Section
from prism_tune.results.columns import Metric, list_metrics, num_digits
from prism_tune.results.render import MISSING
from prism_tune.results.runs import FinishedRun

_MAX_POINTS = 1500
_SMOOTHED_POINTS = 20  # from so many on, a smoothed line stands over the logged one
_NUM_FIRST = 12
"""Metrics of a benchmark that stand open, and in the plot; the further ones are unfolded."""
_PER_SOURCE = "loss/"
_HELD_OUT = "eval_loss"


def build(run: FinishedRun, page: PageFolder) -> Section:
    """The section, and its plots in `data/training.js`."""
    logged = [line for line in run.training_log if "loss" in line]
    log = _thin(logged)
    held_out = [line for line in run.training_log if _HELD_OUT in line]
    metrics = {name: list_metrics(result) for name, result in run.results.items()}
    judged = [
        (name, metric)
        for name, found in metrics.items()
        for metric in found[:_NUM_FIRST]
        if metric.is_mean
    ]
    sources = _logged_sources(log)
    figures: dict[str, Figure] = {}
    if log:
        figures["loss"] = _loss_plot(log, held_out)
        figures["speed"] = _speed_plot(log)
    if sources:
        figures["sources"] = _source_plot(log, sources)
    if judged:
        figures["results"] = _result_plot(judged)
    controls = list(
        dict.fromkeys(c for found in metrics.values() for m in found for c in m.controls)
    )
    first, further = split_results(_result_rows(run, metrics, controls))
    values = {
        "has_log": bool(log),
        "why_no_log": _why_no_log(run),
        "num_steps": count(logged[-1]["step"]) if log else "",
        "is_thinned": len(log) < len(logged),
        "has_sources": bool(sources),
        "num_hidden": max(0, len(sources) - NUM_COLOURS),
        "has_intervals": bool(judged),
        "size": bar_size(len(judged)),
        "result_header": ("Benchmark", "Metric", "Value", "95 % interval", *controls, "Questions"),
        "results": first,
        "further": further,
        "tables": [_table(name, table) for name, table in run.tables.items()],
        "notes": [f"{name}: {note}" for name, r in run.results.items() for note in r.notes],
    }
    scripts = (page.add_data("training", {"figures": figures}),) if figures else ()
    return Section("training", "Training and evaluation", "training.html", values, scripts)


def _why_no_log(run: FinishedRun) -> str:
    if run.config.training.tuning == "none":
        return "This run is the untuned model: there is no training to show."
    return "This run has not been trained yet: `prism-tune train` writes the loss curve."


def _thin(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most so many lines, evenly spaced, the first and the last among them."""
    return [log[place] for place in even_places(len(log), _MAX_POINTS, nearest=True).tolist()]


def _logged_sources(log: Sequence[dict[str, Any]]) -> list[str]:
    """The sources whose losses were logged, the most often logged first."""
    times: dict[str, int] = {}
    for line in log:
        for key in line:
            if key.startswith(_PER_SOURCE):
                times[key] = times.get(key, 0) + 1
    return [key.removeprefix(_PER_SOURCE) for key in sorted(times, key=lambda k: (-times[k], k))]


def _loss_plot(log: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]) -> Figure:
    steps = [line["step"] for line in log]
    losses = [line["loss"] for line in log]
    is_long = len(log) >= _SMOOTHED_POINTS
    logged = _line(steps, losses, "loss", "$c5" if is_long else "$c0", 1.5 if is_long else 2.5)
    smoothed = _line(steps, _smooth(losses), "smoothed", "$c0", 2.5)
    traces = [logged, *([smoothed] if is_long else [])]
    if held_out:
        validated = [line[_HELD_OUT] for line in held_out]
        traces.append(
            _line([line["step"] for line in held_out], validated, "held-out records", "$c1", 2.5)
        )
    return single(traces, _over_steps("loss"))


def _source_plot(log: Sequence[dict[str, Any]], sources: Sequence[str]) -> Figure:
    traces = []
    for place, source in enumerate(sources[:NUM_COLOURS]):
        key = f"{_PER_SOURCE}{source}"
        lines = [line for line in log if key in line]
        losses = [line[key] for line in lines]
        shown = _smooth(losses) if len(losses) >= _SMOOTHED_POINTS else losses
        steps = [line["step"] for line in lines]
        traces.append(_line(steps, shown, plot_text(source), category_colour(place), 2))
    return single(traces, _over_steps("loss per answer token"))


def _speed_plot(log: Sequence[dict[str, Any]]) -> Figure:
    lines = [line for line in log if "tokens_per_second" in line]
    steps = [line["step"] for line in lines]
    speed = _line(steps, [line["tokens_per_second"] for line in lines], "tokens/s", "$c2", 2)
    rate = _line([line["step"] for line in log], [line.get("learning_rate") for line in log],
                 "learning rate", "$c3", 2)  # fmt: skip
    layout = _over_steps("tokens per second")
    layout["yaxis2"] = {
        "title": {"text": "learning rate"},
        "overlaying": "y",
        "side": "right",
        "rangemode": "tozero",
        "showgrid": False,
        "tickformat": ".0e",
        "nticks": 5,
    }
    return single([speed, {**rate, "yaxis": "y2"}], layout)


def _line(
    steps: Sequence[int], values: Sequence[float | None], name: str, colour: str, width: float
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(steps) < _SMOOTHED_POINTS else "lines",
        "name": name,
        "x": steps,
        "y": values,
        "line": {"color": colour, "width": width},
        "hovertemplate": "step %{x}: %{y:.4g}",
    }


def _over_steps(label: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": "step"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": label}, "rangemode": "tozero"},
    }


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, over a twentieth of the curve."""
    window = max(3, len(values) // 20) | 1
    half = window // 2
    return [
        float(np.mean(values[max(0, place - half) : place + half + 1]))
        for place in range(len(values))
    ]


def _result_plot(judged: Sequence[tuple[str, Metric]]) -> Figure:
    """Metrics in percent with their intervals, one below the other."""
    names = [f"{benchmark}: {metric.name}" for benchmark, metric in judged]
    values = [100 * metric.value / metric.scale for _, metric in judged]
    bounds = [metric.interval or (metric.value, metric.value) for _, metric in judged]
    scales = [100 / metric.scale for _, metric in judged]
    below = [v - low * s for v, (low, _), s in zip(values, bounds, scales, strict=True)]
    above = [high * s - v for v, (_, high), s in zip(values, bounds, scales, strict=True)]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": list(range(len(names))),
        "marker": {"color": "$c0", "size": 10},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": "$c0",
            "thickness": 2,
            "width": 5,
        },
        "hovertemplate": "%{x:.1f} %<extra></extra>",
        "showlegend": False,
    }
    layout = {
        "xaxis": {"title": {"text": "percent"}, "range": [0, 101]},
        "yaxis": named_axis(names, showgrid=True),
    }
    return single([trace], layout)


def _result_rows(
    run: FinishedRun, metrics: dict[str, list[Metric]], controls: Sequence[str]
) -> list[tuple[str, ...]]:
    rows = []
    for benchmark, found in metrics.items():
        for metric in found:
            digits = num_digits(metric.scale)
            shown = [number(metric.controls.get(control), digits) for control in controls]
            rows.append(
                (
                    benchmark,
                    metric.name,
                    number(metric.value, digits),
                    format_interval(metric, digits),
                    *shown,
                    count(run.results[benchmark].num_examples),
                )
            )
    return rows


def split_results(
    rows: Sequence[tuple[str, ...]],
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The first rows of each benchmark, which each row begins with, and the further ones."""
    seen: Counter[str] = Counter()
    first: list[tuple[str, ...]] = []
    further: list[tuple[str, ...]] = []
    for row in rows:
        (first if seen[row[0]] < _NUM_FIRST else further).append(row)
        seen[row[0]] += 1
    return first, further


def format_interval(metric: Metric, digits: int) -> str:
    """`61.2 to 69.8`."""
    if metric.interval is None:
        return MISSING
    low, high = metric.interval
    return f"{number(low, digits)} to {number(high, digits)}"


def _table(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """A table of `prism-tune tables`: its texts only."""
    if not isinstance(table, dict) or not table.keys() >= {"rows", "title", "notes"}:
        raise UserError(
            f"tables/{name}.json of the run: not a table; delete it, `prism-tune tables` writes it"
        )
    rows = table["rows"]
    return {
        "id": f"table-{name}",
        "title": table["title"],
        "header": tuple(rows[0]) if rows else (),
        "rows": [tuple(cell["text"] for cell in row.values()) for row in rows],
        "notes": table["notes"],
    }

"""The results file as the tables of benchmarks/RESULTS.md.

PYTHONPATH=benchmarks python -m gpu_parts.table runs/gpu.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

Outcomes = dict[str, dict[str, Any]]

_EXTRACTION = {
    "images_per_second": "images/s",
    "tflops": "TFLOP/s",
    "mfu": "of the peak",
    "hours_for_665k": "hours for 624,610",
    "peak_gib": "GiB",
}
_TRAINING = {
    "tokens_per_second": "tokens/s",
    "tflops": "TFLOP/s",
    "mfu": "of the peak",
    "tokens_per_step": "tokens a step",
    "peak_gib": "GiB",
    "first_loss": "first loss",
    "last_loss": "last loss",
}


def render(outcomes: Outcomes) -> str:
    """Everything measured, and what was not and why."""
    done = {name: found["result"] for name, found in outcomes.items() if found["status"] == "done"}
    blocks = [
        _describe(done.get("device", {})),
        _table("extraction", done, "images_per_second", _EXTRACTION),
        _table("training", done, "tokens_per_second", _TRAINING),
        _generation(done),
        _scoring(done.get("scoring")),
        _checks(done),
        _commands(done),
        _left_out(outcomes),
    ]
    return "\n\n".join(block for block in blocks if block)


def _describe(device: dict[str, Any]) -> str:
    shown = [f"{key} {_show(value)}" for key, value in device.items() if value is not None]
    return ", ".join(shown)


def _table(title: str, done: dict[str, Any], having: str, columns: dict[str, str]) -> str:
    rows = {name: found for name, found in done.items() if having in found}
    if not rows:
        return ""
    lines = [_line(title, *columns.values()), _line("---", *("---:" for _ in columns))]
    for name, found in rows.items():
        cells = (_show(found.get(key), key == "mfu") for key in columns)
        lines.append(_line(name, *cells))
    return "\n".join(lines)


def _generation(done: dict[str, Any]) -> str:
    lines = [_line("answers", "questions/s", "faster", "same answers"), _line("---", *3 * ["---:"])]
    for name, found in done.items():
        base = found.get("one at a time", {}).get("questions_per_second")
        for way, row in found.items() if base else ():
            if isinstance(row, dict):
                speed = row["questions_per_second"]
                same = _show(row.get("same_answers"), True)
                lines.append(_line(f"{name}, {way}", _show(speed), f"{speed / base:.1f}x", same))
    return "\n".join(lines) if len(lines) > 2 else ""


def _scoring(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    lines = [
        _line(f"{found['rows']:,} x {found['width']:,} float16, on the CPU", "seconds"),
        _line("---", "---:"),
    ]
    rows = {name: row for name, row in found.items() if isinstance(row, dict)}
    lines += [_line(name, _show(row["seconds"])) for name, row in rows.items()]
    return "\n".join(lines)


def _checks(done: dict[str, Any]) -> str:
    checks = [check for found in done.values() for check in found.get("checks", ())]
    if not checks:
        return ""
    lines = [_line("GPU beside CPU", "holds", "measured"), _line("---", "---", "---")]
    for check in checks:
        lines.append(_line(check["name"], "yes" if check["holds"] else "**no**", check["measured"]))
    return "\n".join(lines)


def _commands(done: dict[str, Any]) -> str:
    found = {name: done[name] for name in ("doctor", "tests") if name in done}
    return "\n".join(
        f"{name}: exit code {run['exit_code']}; {(run['output'].strip().splitlines() or [''])[-1]}"
        for name, run in found.items()
    )


def _left_out(outcomes: Outcomes) -> str:
    rows = [
        _line(name, found["status"], found.get("error", "").replace("|", "/").replace("\n", " "))
        for name, found in outcomes.items()
        if found["status"] != "done"
    ]
    return "\n".join(
        [_line("not measured", "", "why"), _line("---", "---", "---"), *rows] if rows else []
    )


def _show(value: Any, is_share: bool = False) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    if is_share:
        return f"{value:.0%}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    print(render(orjson.loads(Path(sys.argv[1]).read_bytes())))

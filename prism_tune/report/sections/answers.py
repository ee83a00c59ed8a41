"""Answers: every question of the finished evaluations, and what other runs answered.

One packed file holds a benchmark's questions with this run's answers, one more those of each other
run; the page loads them when they are chosen. Questions that the filters show first have pictures
beside the page; `prism-tune report --serve` draws the others.

Shape legend: N questions of a benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from prism_tune.errors import UserError
from prism_tune.report.answer_source import AnswerSource
from prism_tune.report.numbers import count
from prism_tune.report.question_columns import (
    CHANGES,
    PAGE_QUESTIONS,
    VERDICTS,
    Codes,
    choose_pictured,
    describe_answers,
    describe_questions,
    find_changes,
    judge,
)
from prism_tune.report.question_pictures import write_pictures
from prism_tune.report.section import PageFolder, Section, add_cards
from prism_tune.results.runs import FinishedRun
from prism_tune.schema import Answered

_HEADER = ("Benchmark", "Questions", *(verdict.capitalize() for verdict in VERDICTS))
_CHANGE_HEADER = ("Benchmark", "Before", *(change.capitalize() for change in CHANGES))


@dataclass
class _Found:
    """What has been written of the benchmarks so far."""

    benchmarks: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    change_rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_pictured: int = 0


def build(runs: Sequence[FinishedRun], source: AnswerSource, page: PageFolder) -> Section:
    """The section, its data in `data/answers*.js`, its pictures in `pictures/`.

    Args:
        runs: the report's own, then those to compare it with.
        source: of their answers.
        page: what is written to.
    """
    run, *others = runs
    found, names = _Found(), source.list_finished(run.run)
    for name in names:
        asked = _read(source, run, name, found.notes)
        if asked is not None and asked.rows:
            before = {other.name: _read(source, other, name, found.notes) for other in others}
            _write_benchmark(name, asked, before, source, page, found)
    if not found.benchmarks:
        absent = {"ready": False, "evaluated": bool(names), "notes": found.notes}
        return Section("answers", "Answers", "answers.html", absent)
    return _describe(run, [other.name for other in others], found, page)


def _read(source: AnswerSource, run: FinishedRun, name: str, notes: list[str]) -> Answered | None:
    """One benchmark of a run; None where it was not evaluated there, or its files are broken."""
    if name not in source.list_finished(run.run):
        return None
    try:
        asked = source.read_benchmark(run.run, name)
    except UserError as error:
        notes.append(f"{run.name}, {name}: left out ({error})")
        return None
    notes += [f"{run.name}, {note}" for note in asked.notes]
    return asked


def _write_benchmark(
    name: str,
    asked: Answered,
    others: Mapping[str, Answered | None],
    source: AnswerSource,
    page: PageFolder,
    found: _Found,
) -> None:
    number, verdict_N = len(found.benchmarks), judge(asked.rows)
    changes: list[tuple[int, Codes]] = []
    for place, (other, before) in enumerate(others.items()):
        if before is None or not before.rows:
            continue
        paired, said = source.pair_rows(name, before, asked)
        known = {*before.notes, *asked.notes}
        found.notes += [f"{other} and this run, {note}" for note in said if note not in known]
        paired = paired[: len(asked.rows)]  # those of the other run alone stand behind
        change_N = find_changes(paired)
        content = describe_answers(paired, "_before") | {"changes": change_N.tolist()}
        page.add_packed(f"answers-{number}-{place}", orjson.dumps(content))
        changes.append((place, change_N))
        found.change_rows.append((name, other, *_count(change_N, len(CHANGES))))
    pictured = choose_pictured(asked, verdict_N, [change_N for _, change_N in changes])
    paths = write_pictures((place for row in pictured for place in asked.images[row]), page)
    content = describe_questions(asked) | describe_answers(asked.rows)
    content["pictures"] = {
        str(row): [paths[place] for place in asked.images[row]]
        for row in pictured
        if asked.images[row]
    }
    page.add_packed(f"answers-{number}", orjson.dumps(content))
    compared = [place for place, _ in changes]
    described = {"name": name, "questions": len(asked.rows), "others": compared}
    found.benchmarks.append(described)
    found.rows.append((name, count(len(asked.rows)), *_count(verdict_N, len(VERDICTS))))
    found.num_pictured += len(content["pictures"])


def _describe(run: FinishedRun, others: Sequence[str], found: _Found, page: PageFolder) -> Section:
    compared = {place for item in found.benchmarks for place in item["others"]}
    meta = {
        "benchmarks": found.benchmarks,
        "run": run.name,
        "others": others,
        "perPage": PAGE_QUESTIONS,
        "verdicts": VERDICTS,
        "changes": CHANGES,
    }
    scripts = (
        page.add_data("answers", meta),
        *add_cards(page),
        *map(page.add_asset, ("answers_data.js", "answers_card.js", "answers.js")),
    )
    values = {
        "ready": True,
        "benchmarks": [(item["name"], item["questions"]) for item in found.benchmarks],
        "num_first": min(PAGE_QUESTIONS, found.benchmarks[0]["questions"]),
        "num_pictured": found.num_pictured,
        "others": [(place, name) for place, name in enumerate(others) if place in compared],
        "without": [name for place, name in enumerate(others) if place not in compared],
        "verdicts": VERDICTS,
        "changes": CHANGES,
        "header": _HEADER,
        "rows": found.rows,
        "change_header": _CHANGE_HEADER,
        "change_rows": found.change_rows,
        "notes": list(dict.fromkeys(found.notes)),
        "command": f"prism-tune report {run.run.root} --serve",
    }
    styles = (page.add_asset("cards.css"), page.add_asset("answers.css"))
    return Section("answers", "Answers", "answers.html", values, scripts, styles)


def _count(codes_N: Codes, number: int) -> list[str]:
    counts = np.bincount(codes_N[codes_N >= 0], minlength=number)
    return [count(int(value)) for value in counts]

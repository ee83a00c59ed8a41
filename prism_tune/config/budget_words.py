"""What a selection was asked to keep, in words: for the console, tables, manifest and report."""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import SelectionConfig

_UNITS = {"images": "image records", "rows": "rows", "tokens": "tokens"}
_TEXTS = {
    "own_source": "text-only as a source",
    "drop": "without text-only",
    "rank": "text-only ranked",
}


def budget_key(budget: float | int) -> str:
    """`0.2`, `5000`: a budget in names of folders and keys of records; a count has all digits."""
    return str(budget) if isinstance(budget, int) else f"{budget:g}"


def describe_cut(selection: SelectionConfig) -> str:
    """`30.0% of the image records`, and what else decides."""
    budget = selection.budget
    asked = _percent(budget) if isinstance(budget, float) else f"{budget}"
    return ", ".join([f"{asked} of the {_UNITS[selection.budget_of]}", *_others(selection)])


def _percent(share: float) -> str:
    """`30.0%`, `0.04%`, `1.25%`: one decimal, and more where it takes them."""
    text = f"{100 * share:g}"
    return f"{text}%" if {".", "e"} & set(text) else f"{text}.0%"


def label_cut(selection: SelectionConfig) -> str:
    """What a table's label adds to the budget: nothing where it counts image records alone."""
    counts = "" if selection.budget_of == "images" else f" of {_UNITS[selection.budget_of]}"
    return ", ".join([counts, *_others(selection)])


def _others(selection: SelectionConfig) -> list[str]:
    texts = [_TEXTS[selection.text_only]] if selection.text_only in _TEXTS else []
    named = [
        f"{source} {f'{100 * budget:g} %' if isinstance(budget, float) else f'{budget:,}'}"
        for source, budget in selection.source_budgets.items()
    ]
    marks = {"must keep": selection.must_keep, "must drop": selection.must_drop}
    return [*texts, *named, *(f"{k} {Path(path).name}" for k, path in marks.items() if path)]

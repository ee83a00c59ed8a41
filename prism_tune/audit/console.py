"""An audit's summary on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from prism_tune.run.log import console

_BAR_CHARACTERS = 30
_NUM_SOURCES = 4
_MANY_NUMBERS = 10
"""LLaVA-Pretrain's images lie in 660 folders, 00000 to 00659."""


def print_audit(summary: Mapping[str, Any]) -> None:
    """Findings by reason and by source, the lengths, and what to do."""
    if summary["reasons"]:
        console.print(_tabulate_reasons(summary["reasons"]))
    console.print(_tabulate_sources(summary["per_source"]))
    console.print(_tabulate_lengths(summary["lengths"]))
    for reason, found in summary["reasons"].items():
        console.print(f"{reason}: {found['hint']}", soft_wrap=True)
    alone = summary["num_alone_in_source"]
    if alone:
        console.print(
            f"{alone:,} of {summary['num_image_records']:,} image records cannot be ranked "
            "inside their source: sources of one record; selection.scope=global ranks them, and "
            "so do larger sources (data.source, data.source_names)",
            soft_wrap=True,
        )
    numbered = sum(source.isdecimal() for source in summary["per_source"])
    if numbered >= _MANY_NUMBERS:
        console.print(
            f"{numbered:,} sources are numbers, as folders are called that images were dealt out "
            "to: a selection inside each tells nothing of the records; selection.scope=global "
            "takes them together, data.columns.source names a key that tells them apart",
            soft_wrap=True,
        )
    _print_verdict(summary)


def _tabulate_reasons(reasons: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Findings")
    for heading in ("reason", "policy", "records", "sources"):
        table.add_column(heading, justify="right" if heading == "records" else "left")
    for reason, found in reasons.items():
        by_count = sorted(found["per_source"].items(), key=lambda item: -item[1])
        shown = [f"{source} {count:,}" for source, count in by_count[:_NUM_SOURCES]]
        if len(by_count) > _NUM_SOURCES:
            shown.append(f"{len(by_count) - _NUM_SOURCES} more")
        table.add_row(reason, found["policy"], f"{found['records']:,}", ", ".join(shown))
    return table


def _tabulate_sources(per_source: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(title="Records with findings, by source")
    columns = ("records", "fail", "skip", "keep")
    for heading in ("source", *columns):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for source, counts in per_source.items():
        table.add_row(source, *(f"{counts[name]:,}" for name in columns))
    table.add_section()
    table.add_row("all", *(f"{sum(c[name] for c in per_source.values()):,}" for name in columns))
    return table


def _tabulate_lengths(lengths: Mapping[str, Any]) -> Table:
    table = Table(title="Tokens per record, image tokens included")
    for heading in ("over", "up to", "records", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    most = max([row["records"] for row in lengths["histogram"]], default=0) or 1
    for row in lengths["histogram"]:
        bar = "█" * -(-_BAR_CHARACTERS * row["records"] // most)
        table.add_row(f"{row['over']:,}", f"{row['up_to']:,}", f"{row['records']:,}", bar)
    return table


def _print_verdict(summary: Mapping[str, Any]) -> None:
    lengths = summary["lengths"]
    longer = f"{lengths['num_cut']:,} of them cut to {lengths['max_length']:,} tokens"
    console.print(
        f"{summary['num_usable']:,} of {summary['num_records']:,} records can be used, {longer}; "
        f"{summary['num_images']:,} images; lists in {summary['folder']}",
        soft_wrap=True,
    )
    failing = [reason for reason, found in summary["reasons"].items() if found["policy"] == "fail"]
    if failing:
        keys = " ".join(f"data.policy.{reason}=skip" for reason in failing)
        console.print(
            f"Not ready: mend these records, or leave them out with {keys}", soft_wrap=True
        )

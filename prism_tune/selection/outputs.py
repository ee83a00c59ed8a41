"""What a finished selection leaves behind: scores.parquet, the subset, manifest.json, a table.

Shape legend: N records of the pool.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from prism_tune.config.budget_words import describe_cut
from prism_tune.config.sections import Config, ExportLayout, SelectionConfig
from prism_tune.data.records import Pool, write_subset
from prism_tune.run.folder import SUBSET_SUFFIXES, RunDir, read_object, write_atomic, write_json
from prism_tune.run.log import console
from prism_tune.run.subset_file import name_column
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.source import Evidence
from prism_tune.selection.meter import read_cost
from prism_tune.selection.ranking import Ranking

logger = logging.getLogger(__name__)


def announce_replacement(run: RunDir, selection: SelectionConfig) -> None:
    """Say which finished selection this one takes the place of, while it can still be stopped."""
    path = run.selection / "manifest.json"
    earlier = read_object(path) if path.exists() else {}
    asked = {"scorer": selection.scorer, "cut": describe_cut(selection)}
    if earlier and any(earlier.get(key) != value for key, value in asked.items()):
        logger.info(
            "select: takes the place of the subset of %s, %s (%d records), in %s; with another "
            "`name` both are kept, and what was computed serves both",
            earlier.get("scorer"),
            earlier.get("cut"),
            earlier["num_selected"],
            run.selection,
        )


def write_outputs(
    config: Config,
    run: RunDir,
    pool: Pool,
    ranking: Ranking,
    evidence: Mapping[str, Evidence],
    num_tokens_N: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Write everything and print the table.

    Args:
        config: the experiment.
        run: its folder.
        pool: all records.
        ranking: the verdict on each.
        evidence: that it rests on, by the name of its source.
        num_tokens_N: of each record, as it will be tuned on; they tell what tuning on the whole
            pool would take. None where nothing has counted them.

    Returns:
        What the stage records of its outputs: the subset's SHA-256 and the counts.
    """
    write_scores(run.selection / "scores.parquet", pool, ranking)
    subset_sha256 = _replace_subset(run, pool, np.flatnonzero(ranking.selected_N).tolist())
    further = _replace_further(run, pool, ranking)
    per_source = count_sources(pool, ranking.selected_N)
    outputs = {
        "subset_sha256": subset_sha256,
        "num_pool": len(pool),
        "num_selected": int(ranking.selected_N.sum()),
    }
    manifest = {
        "scorer": config.selection.scorer,
        "keep": config.selection.keep,
        **outputs,
        "num_text_only": int(pool.is_text_only_N.sum()),
        **_count_tokens(num_tokens_N, ranking.selected_N),
        "cut": describe_cut(config.selection),
        "num_reasons": dict(sorted(Counter(ranking.reasons).items())),
        "further_budgets": further,
        "per_source": per_source,
        **describe_skipped([*pool.skipped, *ranking.skipped]),
        "pool_fingerprint": pool.fingerprint,
        **ranking.description,
        "evidence": keep_evidence(run, evidence),
        "timings": read_cost(run),
    }
    write_json(run.selection / "manifest.json", manifest)
    print_sources(per_source, config.selection, run.subset)
    for name, kept in further.items():
        console.print(f"budget {name}: {kept['num_selected']:,} records, {kept['file']}")
    if unranked := ranking.description["unranked"]:
        logger.warning("%s: %s", config.selection.scorer, unranked["text"])
    return outputs


def _count_tokens(
    num_tokens_N: NDArray[np.int64] | None, selected_N: NDArray[np.bool_]
) -> dict[str, Any]:
    if num_tokens_N is None:
        return {}
    selected = int(num_tokens_N[selected_N].sum())
    return {"num_tokens": {"pool": int(num_tokens_N.sum()), "selected": selected}}


def keep_evidence(run: RunDir, evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """Keep the links to what was read in place of the run's earlier ones; what the manifest says.

    A run can so be moved alone.
    """
    shutil.rmtree(run.evidence, ignore_errors=True)
    if run.next_evidence.exists():
        os.replace(run.next_evidence, run.evidence)
    return {
        read.store.kind: {
            "folder": str(read.store.folder),
            "fingerprint": read.store.fingerprint,
            "num_shards": len(read.shards),
            "num_units": read.num_units,
            "num_computed": read.num_computed,
            **found.description,
        }
        for found in evidence.values()
        for read in found.readings
    } | {name: found.description for name, found in evidence.items() if not found.readings}


def _replace_subset(run: RunDir, pool: Pool, kept: list[int]) -> str:
    """Write the subset; what an earlier one left, in another format or for others, goes."""
    path = run.subset_in(pool.format)
    digest = write_subset(pool, kept, path)
    for old in {run.subset_in(pool_format) for pool_format in SUBSET_SUFFIXES} - {path}:
        old.unlink(missing_ok=True)
    for layout in (*get_args(ExportLayout), "shared"):
        shutil.rmtree(run.exports / layout, ignore_errors=True)
    with suppress(OSError):  # there is none, or something else is in it
        run.exports.rmdir()
    return digest


def _replace_further(run: RunDir, pool: Pool, ranking: Ranking) -> dict[str, dict[str, Any]]:
    """Write the subset of each further budget, and remove those of budgets not asked for now."""
    for path in further_subsets(run):
        path.unlink(missing_ok=True)
    written = {}
    for name, selected_N in ranking.further.items():
        path = run.selection / f"subset-{name}{run.subset.suffix}"
        digest = write_subset(pool, np.flatnonzero(selected_N).tolist(), path)
        count = int(selected_N.sum())
        written[name] = {"file": path.name, "num_selected": count, "subset_sha256": digest}
    return written


def further_subsets(run: RunDir) -> list[Path]:
    """The files of further budgets, by the manifest."""
    path = run.selection / "manifest.json"
    further = read_object(path).get("further_budgets", {}) if path.exists() else {}
    return sorted(run.selection / Path(kept["file"]).name for kept in further.values())


def write_scores(path: Path, pool: Pool, ranking: Ranking) -> None:
    """One row per record of the pool: uid, id, source, score, rank, selected, reason, feature, ...

    Score and rank are null where a record has none (text-only, skipped); feature is the key of its
    row of the features, null where it has none; unranked is why the method could not rank it; and
    a column for each further budget, of what it keeps.
    """
    unranked_N = ranking.rank_N == 0
    columns = {
        "uid": pa.array(pool.uids),
        "id": pa.array(pool.ids),
        "source": pa.array(pool.sources),
        "score": pa.array(ranking.scores_N, mask=np.isnan(ranking.scores_N)),
        "rank": pa.array(ranking.rank_N, mask=unranked_N),
        "selected": pa.array(ranking.selected_N),
        "reason": pa.array(ranking.reasons),
        "feature": pa.array(ranking.feature_keys, pa.string()),
        "unranked": pa.array(ranking.unranked, pa.string()),
        **{name_column(name): pa.array(kept_N) for name, kept_N in ranking.further.items()},
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def count_sources(pool: Pool, selected_N: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    """{source: {total, kept}}, by name."""
    totals = Counter(pool.sources)
    kept = Counter(pool.sources[i] for i in np.flatnonzero(selected_N).tolist())
    return {name: {"total": totals[name], "kept": kept[name]} for name in sorted(totals)}


def describe_skipped(skipped: Sequence[Skipped]) -> dict[str, Any]:
    """Counts per reason, and every skipped record with its reason."""
    listed = [
        {"uid": item.uid, "id": item.id, "reason": item.reason, "detail": item.detail}
        for item in skipped
    ]
    return {
        "num_skipped": dict(sorted(Counter(item.reason for item in skipped).items())),
        "skipped": listed,
    }


def print_sources(
    per_source: Mapping[str, Mapping[str, int]], selection: SelectionConfig, path: Path
) -> None:
    """Kept and total per source, on the console."""
    table = Table(title=f"{selection.scorer}, {describe_cut(selection)}, {selection.scope}")
    for header in ("source", "kept", "total", "share"):
        table.add_column(header, justify="left" if header == "source" else "right")
    for name, counts in per_source.items():
        table.add_row(name, *_cells(counts["kept"], counts["total"]))
    kept = sum(counts["kept"] for counts in per_source.values())
    total = sum(counts["total"] for counts in per_source.values())
    table.add_section()
    table.add_row("all", *_cells(kept, total))
    console.print(table)
    console.print(f"subset: {path}", soft_wrap=True)


def _cells(kept: int, total: int) -> tuple[str, str, str]:
    return f"{kept:,}", f"{total:,}", f"{kept / total:.1%}" if total else "-"

"""The selection stage: pool and model in, subset out.

Reads `data.records` and, where the scorer needs evidence, the images and the model. Writes
`runs/<name>/selection/` (scores.parquet, the subset, manifest.json, evidence/), and fills the
stores of evidence below `<output_dir>/evidence/`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool, open_pool
from prism_tune.data.screening import screen_pool
from prism_tune.errors import SharedError, UserError
from prism_tune.models.processor import load_processor, resolve_template
from prism_tune.processes import barrier, from_main, is_main, main_first
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir
from prism_tune.run.ranks import process_group, require_same, require_same_run
from prism_tune.run.stage import Stage, must_run
from prism_tune.run.tracking import log_artifact
from prism_tune.run.writer import one_writer
from prism_tune.schema import Skipped
from prism_tune.selection.budgets import Candidates, check_budgets, name_budget, require_some
from prism_tune.selection.evidence.source import Evidence, Gathering, find_measured
from prism_tune.selection.inputs import (
    find_scorer,
    needs_model,
    resolve_selection,
    stage_inputs,
)
from prism_tune.selection.marks import Marks, read_marks
from prism_tune.selection.meter import meter_selection
from prism_tune.selection.outputs import announce_replacement, further_subsets, write_outputs
from prism_tune.selection.ranking import Ranking, rank_pool
from prism_tune.selection.reference.read import read_config
from prism_tune.selection.reference.warmup import Tune, Warmup, describe_reference, plan_warmup

logger = logging.getLogger(__name__)


@one_writer
def select(config: Config, run: RunDir, *, force: bool = False, tune: Tune | None = None) -> None:
    """Score the pool, cut it to the budget, and write the subset.

    Does nothing where it finished before with the same inputs. Evidence that any run below the same
    `output_dir` has computed is used again, so a change of budget, scope, keep or centering runs no
    model; with `force` the evidence of this pool's records is computed anew. Under torchrun every
    process computes evidence; the main process scores and writes. Records are screened first, as
    `prism-tune audit` does; that is not part of the metered selection. A warm-up that
    `selection.reference` asks for is trained by `tune`, the training stage, where no run has.

    Raises:
        UserError: unknown scorer, unreadable pool or model, broken records whose policy is "fail",
            or a budget that cannot be met.
    """
    config = _resolve_template(resolve_selection(config))
    stage = Stage(run.selection)
    with process_group():
        require_same_run(config)
        pool = main_first(lambda: open_pool(config.data))
        if len(pool) == 0:
            raise SharedError(f"{pool.path}: no usable record in it: nothing to select from")
        marks = read_marks(config.selection, pool)
        candidates = list_candidates(config, pool, marks)
        dropped = marks.leave_out(pool, {})
        check_budgets(config.selection, candidates.of(_others(pool, dropped)))  # refused early
        warmup = plan_warmup(config, pool, marks)
        inputs = stage_inputs(config, pool, warmup)
        require_same(inputs)
        if not from_main(lambda: must_run("select", stage, inputs, force=force)):
            return
        if is_main():
            announce_replacement(run, config.selection)
        processor = _load_processor(config)
        verdict = from_main(lambda: screen_pool(pool, config, processor))
        if verdict.lengths_N is not None:
            tuned_N = np.minimum(verdict.lengths_N, config.data.max_length)
            candidates = replace(candidates, num_tokens_N=tuned_N)
        left_out = marks.leave_out(pool, verdict.skipped)
        check_budgets(config.selection, candidates.of(_others(pool, left_out)))
        if warmup is not None:
            warmup.train(pool, tune)
        read = read_config(config, None if warmup is None else warmup.adapter)
        with meter_selection(run, fingerprint(inputs), force=force) as meter:
            gathering = Gathering(read, pool, meter, run.next_evidence, force)
            evidence, skipped = _gather_evidence(gathering, left_out, warmup)
            if is_main():
                scorer = find_scorer(config.selection.scorer)
                ranking = rank_pool(config, pool, evidence, skipped, scorer, candidates)
                _require_subsets(ranking, config, candidates)
                meter.count(records=len(pool))
                stage.reopen()  # only now: until here an earlier subset stays as it is
                ranking.description.update(describe_reference(read, warmup))
                outputs = write_outputs(
                    config, run, pool, ranking, evidence, candidates.num_tokens_N
                )
                files = _files(run)
                stage.finish(inputs, config=config, files=files, **outputs)
                kept = {"subset_sha256": outputs["subset_sha256"], "pool": pool.fingerprint}
                log_artifact(config.tracking, run, "selection", files, kept)
        barrier()


def find_changes(config: Config, run: RunDir) -> list[str] | None:
    """What a finished selection would run again for; None where none has finished."""
    config = _resolve_template(resolve_selection(config))
    pool = open_pool(config.data)
    warmup = plan_warmup(config, pool, read_marks(config.selection, pool))
    return Stage(run.selection).reasons_to_rerun(stage_inputs(config, pool, warmup))


def _files(run: RunDir) -> list[Path]:
    """What a selection leaves."""
    beside = [run.selection / name for name in ("scores.parquet", "manifest.json")]
    return [run.subset, *further_subsets(run), *beside]


def _require_subsets(ranking: Ranking, config: Config, candidates: Candidates) -> None:
    """Refuse, before an earlier subset goes, one without a record: too few tokens for any."""
    selection = config.selection
    further = {name_budget(budget): budget for budget in selection.budgets}
    require_some(int(ranking.selected_N.sum()), selection.budget, selection, candidates)
    for name, selected_N in ranking.further.items():
        require_some(int(selected_N.sum()), further[name], selection, candidates)


def list_candidates(config: Config, pool: Pool, marks: Marks) -> Candidates:
    """All records of a pool, as they are cut: text-only ones that are ranked like all others."""
    must_keep_N = np.zeros(len(pool), dtype=bool)
    must_keep_N[list(marks.keep)] = True
    beside_N = ~find_measured(config, pool)
    return Candidates(pool.uids, np.array(pool.sources), beside_N, must_keep_N)


def _others(pool: Pool, left_out: Mapping[int, Skipped]) -> NDArray[np.int64]:
    return np.array([n for n in range(len(pool)) if n not in left_out], dtype=np.int64)


def _resolve_template(config: Config) -> Config:
    """As `resolve_template`; `auto` stays where there is no model and the method needs none.

    Raises:
        UserError: it needs it.
    """
    try:
        return resolve_template(config)
    except UserError as error:
        _go_on_without(config, error)
        return config


def _load_processor(config: Config) -> Any | None:
    """The model's processor; None where there is none and the method needs no model.

    Raises:
        UserError: it needs it.
    """
    if config.model.template == "auto":  # has been said
        return None
    try:
        return load_processor(config.model)
    except UserError as error:
        _go_on_without(config, error)
        return None


def _go_on_without(config: Config, error: UserError) -> None:
    if needs_model(config):
        raise error
    if is_main():
        logger.warning(
            "%s\n%s needs no model, so the selection goes on: lengths are not looked at, records "
            "too long for data.max_length are not found, and tokens are not counted",
            error,
            config.selection.scorer,
        )


def _gather_evidence(
    gathering: Gathering, left_out: dict[int, Skipped], warmup: Warmup | None
) -> tuple[dict[str, Evidence], dict[int, Skipped]]:
    """What the scorer reads, by source, and every record that is left out in the end."""
    config = gathering.config
    from_main(lambda: shutil.rmtree(gathering.links, ignore_errors=True))
    evidence: dict[str, Evidence] = {}
    for source in find_scorer(config.selection.scorer).reads(config):
        found = source.compute(gathering, left_out)
        evidence[source.name] = found
        left_out = found.skipped
    readings = [read for found in evidence.values() for read in found.readings]
    gathering.meter.charge(
        {read.store.kind: read.shards for read in readings},
        beside=[] if warmup is None else warmup.cost(),
    )
    barrier()  # the links get another place once the main process writes: all have read by then
    return evidence, left_out

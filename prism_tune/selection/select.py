"""The selection stage: pool and model in, subset out.

Reads `data.records` and, where the scorer needs evidence, the images and the model. Writes
`runs/<name>/selection/` (scores.parquet, subset.json, manifest.json, evidence/), and fills the
stores of evidence below `<output_dir>/evidence/`.
"""

from __future__ import annotations

import shutil

from prism_tune.config.sections import Config
from prism_tune.data.records import open_pool
from prism_tune.data.screening import screen_pool
from prism_tune.models.processor import load_processor
from prism_tune.models.template import resolve_template
from prism_tune.processes import barrier, from_main, is_main, main_first, process_group
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage, must_run
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.source import Evidence, Gathering
from prism_tune.selection.inputs import find_scorer, resolve_selection, stage_inputs
from prism_tune.selection.meter import meter_selection
from prism_tune.selection.outputs import write_outputs
from prism_tune.selection.ranking import rank_pool
from prism_tune.selection.subset import num_kept


def select(config: Config, run: RunDir, *, force: bool = False) -> None:
    """Score the pool, cut it to the budget, and write the subset.

    Does nothing where it finished before with the same inputs. Evidence that any run below the same
    `output_dir` has computed is used again, so a change of budget, scope, keep or centering runs no
    model; with `force` the evidence of this pool's records is computed anew. Under torchrun every
    process computes evidence; the main process scores and writes. Records are screened first, as
    `prism-tune audit` does; that is not part of the metered selection.

    Raises:
        UserError: unknown scorer, unreadable pool or model, broken records whose policy is "fail",
            or a budget that cannot be met.
    """
    config = resolve_template(resolve_selection(config))
    stage = Stage(run.selection)
    with process_group():
        pool = main_first(lambda: open_pool(config.data))
        num_kept(config.selection.budget, int((~pool.is_text_only_N).sum()))  # refused early
        inputs = stage_inputs(config, pool)
        if not from_main(lambda: must_run("select", stage, inputs, force=force)):
            return
        processor = load_processor(config.model)
        verdict = from_main(lambda: screen_pool(pool, config, processor))
        with meter_selection(run, fingerprint(inputs), force=force) as meter:
            gathering = Gathering(config, pool, meter, run.next_evidence, force)
            evidence, skipped = _gather_evidence(gathering, verdict.skipped)
            if is_main():
                scorer = find_scorer(config.selection.scorer)
                ranking = rank_pool(config, pool, evidence, skipped, scorer)
                meter.count(records=len(pool))
                assert verdict.num_tokens_N is not None
                stage.reopen()  # only now: until here an earlier subset stays as it is
                outputs = write_outputs(config, run, pool, ranking, evidence, verdict.num_tokens_N)
                beside = [run.selection / name for name in ("scores.parquet", "manifest.json")]
                files = [run.subset, *beside]
                stage.finish(inputs, config=config, files=files, **outputs)
        barrier()


def _gather_evidence(
    gathering: Gathering, left_out: dict[int, Skipped]
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
    gathering.meter.charge({read.store.kind: read.shards for read in readings})
    return evidence, left_out

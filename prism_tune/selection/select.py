"""The selection stage: pool and model in, subset out.

Reads `data.records` and, where the scorer needs features, the images and the model. Writes
`runs/<name>/selection/`: scores.parquet, subset.json, manifest.json, features/.
"""

from __future__ import annotations

import time

from prism_tune.config.sections import Config
from prism_tune.data.records import open_pool
from prism_tune.data.screening import screen_pool
from prism_tune.models.processor import load_processor
from prism_tune.processes import barrier, from_main, is_main, main_first, process_group
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage, must_run
from prism_tune.selection.evidence.request import Request
from prism_tune.selection.inputs import find_scorer, meter_fingerprint, stage_inputs
from prism_tune.selection.meter import meter_selection
from prism_tune.selection.outputs import write_outputs
from prism_tune.selection.ranking import rank_pool
from prism_tune.selection.subset import num_kept


def select(config: Config, run: RunDir, *, force: bool = False) -> None:
    """Score the pool, cut it to the budget, and write the subset.

    Does nothing where it finished before with the same inputs. Features already in the store are
    used again, so a change of budget, scope, keep or centering runs no model. Under torchrun every
    process computes features; the main process scores and writes. Records are screened first, as
    `prism-tune audit` does; that is not part of the metered selection.

    Raises:
        UserError: unknown scorer, unreadable pool or model, broken records whose policy is "fail",
            a budget that cannot be met, features of other settings in the run folder.
    """
    scorer = find_scorer(config.selection.scorer)
    config = scorer.complete(config)
    stage = Stage(run.selection)
    with process_group():
        pool = main_first(lambda: open_pool(config.data))
        num_kept(config.selection.budget, int((~pool.is_text_only_N).sum()))  # refused early
        inputs = stage_inputs(config, pool)
        if not from_main(lambda: must_run("select", stage, inputs, force=force)):
            return
        if not force:
            scorer.evidence.refuse_other(config, run)
        processor = load_processor(config.model)
        verdict = from_main(lambda: screen_pool(pool, config, processor))
        metered = meter_fingerprint(config, scorer, inputs)
        with meter_selection(run, metered, force=force) as meter:
            main_first(stage.reopen)
            started = time.perf_counter()
            request = Request(config, run, pool, verdict.skipped, meter.count, force)
            table = scorer.evidence.extract(request)
            meter.count({"feature_seconds": time.perf_counter() - started})
            if is_main():
                ranking = rank_pool(config, pool, table, scorer)
                meter.count({"records": len(pool)})
                assert verdict.num_tokens_N is not None
                timings = meter.read()
                outputs = write_outputs(config, run, pool, ranking, timings, verdict.num_tokens_N)
                stage.finish(inputs, config=config, **outputs)
        barrier()

"""The audit: every record and every image of the pool is looked at before a device is paid for.

Reads `data.records`, the images and the model's processor. Writes `runs/<name>/audit/`: audit.json
and one `<reason>.jsonl` per reason found. Select and train judge by the same rules.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from prism_tune.audit.console import print_audit
from prism_tune.audit.summary import (
    ListedFinding,
    count_image_records,
    list_findings,
    summarise_lengths,
    summarise_reasons,
    summarise_sources,
)
from prism_tune.config.depends import fields_of
from prism_tune.config.sections import Config, DataConfig
from prism_tune.data.policy import REASONS, check_policy
from prism_tune.data.records import Pool, open_pool
from prism_tune.data.screening import Findings, is_settled, merge, screen_lengths, screen_records
from prism_tune.models.processor import load_processor, resolve_template
from prism_tune.run.fingerprints import fingerprint, fingerprint_model
from prism_tune.run.folder import RunDir, read_object, write_atomic, write_json
from prism_tune.run.stage import Stage, must_run
from prism_tune.run.timings import StageTimer
from prism_tune.run.writer import one_writer

logger = logging.getLogger(__name__)

_VERSION = 3
"""Of what audit.json says; another number makes it anew."""


@one_writer
def audit(config: Config, run: RunDir, *, force: bool = False) -> bool:
    """Check the pool and say what was found.

    Returns:
        Whether every finding may be skipped or kept under `data.policy`.

    Raises:
        UserError: the pool or the model's processor cannot be read at all.
    """
    check_policy(config.data.policy)
    config = resolve_template(config)
    pool = open_pool(_with_everything(config))
    stage = Stage(run.audit)
    inputs = _stage_inputs(config, pool)
    if must_run("audit", stage, inputs, force=force):
        stage.reopen()
        with StageTimer(
            run, "audit", fingerprint=fingerprint(inputs), device="cpu", restart=force
        ) as timer:
            summary = _examine(config, run, pool)
            timer.tick(records=summary["num_records"], images=summary["num_images"])
        write_json(run.audit / "audit.json", summary)
        stage.finish(inputs, config=config, files=[run.audit / "audit.json"], ok=summary["ok"])
    summary = read_object(run.audit / "audit.json")
    print_audit(summary)
    return bool(summary["ok"])


def find_changes(config: Config, run: RunDir) -> list[str] | None:
    """What a finished audit would run again for; None where none has finished."""
    config = resolve_template(config)
    pool = open_pool(_with_everything(config))
    return Stage(run.audit).reasons_to_rerun(_stage_inputs(config, pool))


def _with_everything(config: Config) -> DataConfig:
    """The pool's config, with nothing refused."""
    return config.data.model_copy(update={"policy": dict.fromkeys(REASONS, "skip")})


def _stage_inputs(config: Config, pool: Pool) -> dict[str, Any]:
    return {
        **fields_of(config, "audit"),
        "pool": pool.fingerprint,
        "images": pool.image_index.fingerprint,
        "model": fingerprint_model(config.model.path, config.model.revision),
        "version": _VERSION,
        "reasons": list(REASONS),  # a release that knows more of them looks again
    }


def _examine(config: Config, run: RunDir, pool: Pool) -> dict[str, Any]:
    """Look at everything, write the lists, and sum up."""
    logger.info("audit: %d records, %d images", len(pool), len(pool.unique_images()))
    found = screen_records(pool)
    policy = config.data.policy
    sound = [n for n in range(len(pool)) if n not in found or not is_settled(found[n], policy)]
    processor = load_processor(config.model)
    lengths_N, too_long = screen_lengths(pool, sound, config, processor)
    findings = list_findings(pool, merge(found, too_long))
    _write_lists(run.audit, findings)
    reasons = summarise_reasons(findings, policy)
    per_source = summarise_sources(pool, findings, policy)
    usable = sum(s["records"] - s["fail"] - s["skip"] for s in per_source.values())
    return {
        "ok": all(of_reason["policy"] != "fail" for of_reason in reasons.values()),
        "num_records": len(pool) + len(pool.skipped),
        "num_usable": usable,
        "num_text_only": int(pool.is_text_only_N.sum()),
        "num_images": len(pool.unique_images()),
        "num_moved": pool.num_moved,
        **count_image_records(pool, findings, policy),
        "reasons": reasons,
        "per_source": per_source,
        "lengths": summarise_lengths(
            lengths_N[lengths_N >= 0], config.data.max_length, _count_uncut(too_long)
        ),
        "folder": str(run.audit),
    }


def _count_uncut(findings: Findings) -> int:
    """Of the records that cannot be encoded, those that are too long."""
    reasons = [item.reason for items in findings.values() for item in items]
    return sum(reason in ("over_long", "no_label") for reason in reasons)


def _write_lists(folder: Path, findings: Sequence[ListedFinding]) -> None:
    """One line a record, in `<reason>.jsonl`; lists of an earlier audit are removed."""
    for path in folder.glob("*.jsonl"):
        path.unlink()
    lines: dict[str, list[bytes]] = {}
    for finding in findings:
        item = {**asdict(finding.item), "source": finding.source}
        lines.setdefault(finding.item.reason, []).append(orjson.dumps(item))
    for reason, of_reason in lines.items():
        write_atomic(folder / f"{reason}.jsonl", b"".join(line + b"\n" for line in of_reason))

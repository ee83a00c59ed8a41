"""A finished selection without a model: drawn records, images, features, scores and verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from prism_tune.config.sections import Config
from prism_tune.data.records import open_pool
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.selection.evidence.store import EvidenceStore

NUM_RECORDS, NUM_IMAGES, WIDTH = 90, 30, 8
SOURCES = ("animals", "charts", "streets")
WORDS = ("zebra", "histogram", "tram", "otter", "axis", "bridge", "finch")


def draw_records(num_records: int = NUM_RECORDS) -> list[dict]:
    """Every tenth without image; three records an image, of sources in turn."""
    records = []
    for number in range(num_records):
        word = WORDS[number % len(WORDS)]
        question = f"What is the {word} number {number} doing?"
        record = {"id": f"record-{number}", "source": SOURCES[number % 3]}
        if number % 10:
            record["image"] = f"{number % NUM_IMAGES}.png"
            question = f"<image>\n{question}"
        turns = [question, f"It waits for {number + 1}.", f"And then, {number}?", "Nobody knows."]
        record["conversations"] = [
            {"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(turns)
        ]
        records.append(record)
    return records


def write_drawn_run(folder: Path, records: list[dict] | None = None) -> RunDir:
    """`folder/runs/drawn`, its pool in `folder/pool` and its images in `folder/pool/images`.

    Half of each source's image records are kept, the lowest scores first; a record's score is its
    number modulo 17 over 16 (so that scores repeat).
    """
    images = folder / "pool" / "images"
    images.mkdir(parents=True)
    for number in range(NUM_IMAGES):
        Image.new("RGB", (48, 36), (number * 8, 255 - number * 8, 120)).save(
            images / f"{number}.png"
        )
    records = draw_records() if records is None else records
    path = folder / "pool" / "pool.json"
    path.write_text(json.dumps(records))
    run = RunDir(folder / "runs" / "drawn")
    run.features.mkdir(parents=True)
    config = Config.model_validate(
        {
            "name": "drawn",
            "output_dir": str(folder / "runs"),
            "model": {"path": str(folder / "no_model")},
            "data": {"records": str(path), "image_dir": str(images)},
            "selection": {"budget": 0.5},
        }
    )
    _write_selection(run, config)
    return run


def _write_selection(run: RunDir, config: Config) -> None:
    pool = open_pool(config.data)
    ranked_N = ~pool.is_text_only_N
    score_N = np.arange(len(pool)) % 17 / 16
    rank_N = np.zeros(len(pool), dtype=np.int64)
    selected_N = ~ranked_N
    sources_N = np.array(pool.sources)
    for source in set(pool.sources):
        rows = np.flatnonzero(ranked_N & (sources_N == source))
        rows = rows[np.argsort(score_N[rows], kind="stable")]
        rank_N[rows] = np.arange(len(rows)) + 1
        selected_N[rows[: len(rows) // 2]] = True
    names = [images[0] if (images := pool.images(row)) else None for row in range(len(pool))]
    keys = sorted({name for name in names if name})
    reasons = np.where(~ranked_N, "text_only", np.where(selected_N, "selected", "below_cut"))
    columns = {
        "uid": pa.array(pool.uids),
        "id": pa.array(pool.ids),
        "source": pa.array(pool.sources),
        "score": pa.array(score_N, mask=~ranked_N),
        "rank": pa.array(rank_N, mask=~ranked_N),
        "selected": pa.array(selected_N),
        "reason": pa.array(reasons.tolist()),
        "feature": pa.array(names, pa.string()),
    }
    pq.write_table(pa.table(columns), run.selection / "scores.parquet")
    values_UD = np.random.default_rng(0).normal(size=(len(keys), WIDTH)).astype(np.float32) + 3
    described = {"failed": {}, "counts": {}, "seconds": 1.0, "device": "cpu", "num_devices": 1}
    store = EvidenceStore(str(run.root.parent), "features", {"model": "drawn"})
    store.begin(prompt="prefix")
    store.write_shard(keys, values_UD, described)
    store.take(keys, run.features)
    sources = {name: pool.sources.count(name) for name in sorted(set(pool.sources))}
    kept = {name: int(selected_N[sources_N == name].sum()) for name in sources}
    manifest = {
        "scorer": "prism",
        "subset_sha256": "0" * 64,
        "num_pool": len(pool),
        "num_selected": int(selected_N.sum()),
        "num_text_only": int((~ranked_N).sum()),
        "per_source": {n: {"total": sources[n], "kept": kept[n]} for n in sources},
        "num_skipped": {},
        "skipped": [],
        "pool_fingerprint": pool.fingerprint,
        "evidence": {"features": {"num_units": len(keys)}},
        "timings": {},
    }
    (run.selection / "manifest.json").write_text(json.dumps(manifest))
    Stage(run.selection).finish({}, config=config)

"""RDS+'s rounds over records held out of each source: by hand, and by the official loop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prism_tune.config.sections import Config
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.states.weighted_states import weigh
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.rds_plus import count_rounds
from prism_tune.selection.scorers.scorer import ScoringContext


def run(rows, uids, sources, scope, **options):
    selection = {"scorer": "rds_plus", "scope": scope, "options": options}
    tree = {"name": "run", "model": {"path": "none"}, "data": {"records": "none.json"}}
    config = SCORERS["rds_plus"].complete(Config.model_validate({**tree, "selection": selection}))
    context = ScoringContext(
        config=config,
        pool=SimpleNamespace(uids=uids, sources=sources),
        records_M=np.arange(len(uids)),
        groups_M=np.array(sources) if scope == "per_source" else None,
        more_rows={"weighted_states": (rows, np.arange(len(rows)))},
    )
    return SCORERS["rds_plus"].score(context)


def test_later_tokens_count_more():
    """Places 1, 2, 3: (1 (6,0) + 2 (0,3) + 3 (2,2)) / 6."""
    assert weigh(torch.tensor([[6.0, 0], [0, 3], [2, 2]])).tolist() == [2.0, 2.0]


def test_rounds_by_hand():
    """Queries (1,0) and (0,1) rank c, a, b, d and d, b, a, c: c and d go first, then a and b."""
    rows = np.array([[4, 3], [3, 4], [5, 1], [0, 2], [9, 0], [0, 7]], dtype=np.float32)
    queries, groups = np.array([4, 5]), np.zeros(4)
    assert count_rounds(rows, np.arange(4), queries, groups).tolist() == [1, 1, 0, 0]
    alone = np.array([0, 0, 1, 1])  # inside {a, b} and {c, d} each is somebody's first
    assert count_rounds(rows, np.arange(4), queries, alone).tolist() == [0, 0, 0, 0]
    assert count_rounds(rows, np.arange(4), queries[:1], groups).tolist() == [1, 2, 0, 3]


def take_turns(cosines_QN):
    """The official loop: each query in turn pops the best of its list, until none is left."""
    lists = [list(np.argsort(-row, kind="stable")) for row in cosines_QN]
    taken, number = {}, 0
    while len(taken) < cosines_QN.shape[1]:
        for ranked in lists:
            taken.setdefault(int(ranked.pop(0)), number)
        number += 1
    return taken


def test_scores_are_the_rounds_of_the_official_loop_in_any_order_of_the_pool():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 5)).astype(np.float32)
    rows[3] = np.nan
    uids, sources = [f"u{n}" for n in range(60)], ["a"] * 40 + ["b"] * 20
    scored = run(rows, uids, sources, "global", num_heldout=3)
    assert scored.diagnostics["num_heldout"] == {"a": 3, "b": 2}
    held = scored.unranked["held_out"]
    assert (held.sum(), scored.unranked["no_score"].nonzero()[0].tolist()) == (5, [3])
    left = np.flatnonzero(np.isfinite(scored.values_M))
    assert len(left) == 60 - 5 - 1
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = take_turns(units[held] @ units[left].T)
    assert {n: scored.values_M[left[n]] for n in range(len(left))} == expected

    order = rng.permutation(60)
    moved = run(rows[order], [uids[n] for n in order], [sources[n] for n in order], "global",
                num_heldout=3)  # fmt: skip
    np.testing.assert_array_equal(moved.values_M, scored.values_M[order])


def test_sources_too_small_for_queries_are_refused():
    rows = np.eye(9, dtype=np.float32)
    with pytest.raises(UserError, match="no source has 10 records"):
        run(rows, list("abcdefghi"), ["s"] * 9, "per_source")


def test_rows_are_those_of_the_definition(workplace):
    asked = {"selection__scorer": "rds_plus", "selection__text_only": "rank"}
    asked |= {"selection__budget_of": "rows", "selection__scope": "global"}
    result = workplace.select(**asked)
    assert result.manifest["num_selected"] == 13
    rows = StoredRows([read_shard(path) for path in workplace.shards("weighted_states")])
    config = workplace.config()
    model, processor = load_model(config.model, dtype=torch.float32), load_processor(config.model)
    pool = open_pool(config.data)
    example = TuningDataset(pool, range(len(pool)), processor, "vicuna_v1", 2048)[5]
    inputs = {k: v if k == "pixel_values" else v[None] for k, v in example.items()}
    with torch.no_grad():
        states_LD = model(**inputs, output_hidden_states=True).hidden_states[-1][0].numpy()
    places = np.arange(1, len(states_LD) + 1)
    expected = np.average(states_LD, axis=0, weights=places)
    found = rows[slice(0, len(rows.keys))]
    nearest = found[np.abs(found - expected).sum(axis=1).argmin()]
    np.testing.assert_allclose(nearest, expected, rtol=1e-4, atol=1e-5)
    alone = workplace.select(**asked, **workplace.elsewhere(), selection__tokens_per_batch=1)
    assert alone.manifest["subset_sha256"] == result.manifest["subset_sha256"]

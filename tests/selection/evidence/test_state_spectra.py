"""DataTailor's numbers against the singular values of the full model's own states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.states.state_spectra import measure_spectrum


def rows_by_definition(workplace):
    """Of every record, text-only ones too: entropy, largest share, the last token's state."""
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, range(len(pool)), processor, "vicuna_v1", 2048)
    states = []
    last = model.model.language_model.layers[-1]
    last.register_forward_hook(
        lambda _, inputs, output: states.append(
            (output[0] if isinstance(output, tuple) else output).numpy()
        )
    )
    found = []
    for number in range(len(pool)):
        inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples[number].items()}
        states.clear()
        with torch.no_grad():
            model(**inputs)
        matrix = states[0].reshape(-1, 32).astype(np.float64)
        p = np.linalg.svd(matrix, compute_uv=False)
        p /= p.sum()
        found.append([-(p * np.log(p)).sum(), p.max(), *matrix[-1]])
    return np.array(found)


def test_rows_are_those_of_the_definition(workplace):
    asked = {
        "selection__scorer": "datatailor",
        "selection__text_only": "rank",
        "selection__budget_of": "rows",
        "selection__scope": "global",
    }
    result = workplace.select(**asked)
    rows = StoredRows([read_shard(path) for path in workplace.shards("state_spectra")])
    assert rows.shape == (26, 34)
    found = rows[slice(0, 26)]
    for row in rows_by_definition(workplace):
        nearest = found[np.abs(found - row).sum(axis=1).argmin()]
        np.testing.assert_allclose(nearest, row, rtol=1e-4, atol=1e-4)
    assert sum(result.manifest["quotas"].values()) == result.manifest["num_selected"] == 13
    kept = {name: counts["kept"] for name, counts in result.manifest["per_source"].items()}
    assert kept == result.manifest["quotas"]
    alone = workplace.select(**asked, **workplace.elsewhere(), selection__tokens_per_batch=1)
    assert alone.manifest["subset_sha256"] == result.manifest["subset_sha256"]


@pytest.mark.parametrize(
    ("states", "entropy", "largest"),
    [([[3, 0, 0], [0, 1, 0]], 0.5623, 0.75), ([[0, 1], [1, 0], [0, 0]], 0.6931, 0.5)],
)
def test_spectra_by_hand(states, entropy, largest):
    """Singular values 3, 1 and 1, 1."""
    found = measure_spectrum(torch.tensor(states, dtype=torch.float32))
    assert found.tolist() == pytest.approx([entropy, largest], abs=5e-5)


def test_a_row_of_rank_one_and_rows_that_are_no_numbers():
    one = measure_spectrum(torch.ones(5, 3))
    assert one.tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert measure_spectrum(torch.full((2, 2), torch.inf)).isnan().all()
    assert measure_spectrum(torch.zeros(2, 2)).isnan().all()

"""Sketches of gradients against the gradients themselves, record by record."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.encoding import RecordDataset
from prism_tune.selection.evidence.gradients import backward, sketches
from prism_tune.selection.evidence.gradients.sketches import (
    GradientSketches,
    SketchOptions,
    draw_signs,
    gradient_sketches,
    sketch,
    split_dimension,
    squared_norms,
)
from prism_tune.selection.evidence.source import Gathering
from prism_tune.selection.meter import SelectionMeter
from prism_tune.selection.reference.read import load_adapted, read_config

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LORA = ("lora_A", "lora_B")


def load(config):
    return load_adapted(config, dtype=torch.float32, device=CPU)


def exact_gradients(config, model, images, wanted):
    """(N, all numbers) of some records' own losses, by torch, in one piece."""
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, images, processor, "vicuna_v1", config.data.max_length)
    named = dict(model.model.language_model.named_parameters())
    chosen = [parameter for name, parameter in named.items() if wanted(name)]
    model.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    rows = []
    for number in range(len(images)):
        inputs = {
            key: value if key == "pixel_values" else value[None]
            for key, value in examples[number].items()
        }
        found = torch.autograd.grad(model(**inputs).loss, chosen)
        rows.append(torch.cat([gradient.flatten() for gradient in found]).numpy())
    return np.array(rows, dtype=np.float64)


@pytest.fixture
def read(workplace, adapter):
    """The config that evidence is read with, of a target with an adapter."""
    config = workplace.config(selection__reference__adapter=str(adapter))
    return read_config(config)


def in_attention(name):
    return "self_attn" in name and name.endswith("proj.weight")


@pytest.mark.parametrize(
    ("adapted", "modules", "wanted"),
    [
        (True, "all", lambda name: any(part in name for part in LORA)),
        (True, "attention", lambda name: "attn" in name and any(part in name for part in LORA)),
        (False, "attention", in_attention),
    ],
)
def test_inner_products_are_those_of_the_gradients_on_average(
    workplace, read, adapted, modules, wanted
):
    """Norms exactly; products within four standard errors over the seeds, and nearer with more."""
    config = read if adapted else workplace.config()
    model, processor, images = load(config), load_processor(config.model), [0, 1, 3, 4]
    exact_NG = exact_gradients(config, model, images, wanted)
    true_NN = exact_NG @ exact_NG.T
    scale = np.sqrt(np.outer(np.diag(true_NN), np.diag(true_NN)))
    records = RecordDataset(open_pool(config.data), images, config, processor)
    batch = [records[n] for n in range(len(images))]

    def run(dimension, seed=0):
        runner = GradientSketches(model, processor, modules, dimension, seed)
        return runner.run_batch(batch)[0].numpy().astype(np.float64)

    runs = [run(256, seed) for seed in range(24)]
    norms = [rows[:, 0] for rows in runs]
    np.testing.assert_allclose(norms[0], np.linalg.norm(exact_NG, axis=1), rtol=1e-4)
    assert all((one == norms[0]).all() for one in norms)
    errors = np.array([rows[:, 1:] @ rows[:, 1:].T - true_NN for rows in runs]) / scale
    deviation = errors.std(axis=0, ddof=1)
    assert (np.abs(errors.mean(axis=0)) <= 4 * deviation / len(runs) ** 0.5 + 1e-9).all()
    assert deviation.max() < 0.5  # the root of 2/16 + 2/16, where one module has all
    wide = run(4096)[:, 1:]
    assert np.abs((wide @ wide.T - true_NN) / scale).max() < 0.5


def test_with_identities_a_sketch_is_the_gradient():
    """The flattened product, and the norm whichever way it is taken."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5, 4, generator=generator)
    gradients = torch.randn(3, 5, 6, generator=generator)
    found = sketch(inputs, gradients, torch.eye(4), torch.eye(6))
    expected = torch.einsum("bli,blo->bio", inputs, gradients).flatten(1)
    torch.testing.assert_close(found, expected)
    by_product = squared_norms(inputs, gradients)
    by_grams = squared_norms(inputs[:, :2], gradients[:, :2])
    torch.testing.assert_close(by_product, expected.square().sum(dim=1))
    first_two = torch.einsum("bli,blo->bio", inputs[:, :2], gradients[:, :2]).flatten(1)
    torch.testing.assert_close(by_grams, first_two.square().sum(dim=1))


def test_rotations_keep_the_products_as_they_are():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5, 4, generator=generator)
    gradients = torch.randn(3, 5, 6, generator=generator)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in (4, 6))
    found = sketch(inputs, gradients, left, right)
    exact = sketch(inputs, gradients, torch.eye(4), torch.eye(6))
    torch.testing.assert_close(found @ found.T, exact @ exact.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dimension", "factors"), [(64, (8, 8)), (4096, (64, 64)), (8192, (64, 128)), (5120, (64, 80))]
)
def test_the_dimension_is_two_factors_near_each_other(dimension, factors):
    assert split_dimension(dimension) == factors


def test_signs_are_drawn_by_the_modules_name():
    draw = {"factors": (2, 3), "seed": 0}
    left, right = draw_signs("layers.0.q", (5, 7), CPU, **draw)
    assert (left.shape, right.shape) == ((2, 5), (3, 7))
    assert left.abs().unique().tolist() == pytest.approx([2**-0.5])
    again, _ = draw_signs("layers.0.q", (5, 7), CPU, **draw)
    assert torch.equal(left, again)
    assert not torch.equal(left, draw_signs("layers.1.q", (5, 7), CPU, **draw)[0])


def gather(config, workplace, tokens=16384):
    selection = config.selection.model_copy(update={"tokens_per_batch": tokens})
    config = config.model_copy(update={"selection": selection})
    gathering = Gathering(
        config, open_pool(config.data), SelectionMeter(None), workplace.root / "l"
    )
    found = gradient_sketches(SketchOptions(dimension=64)).compute(gathering, {})
    values = found.values_UD[slice(0, found.values_UD.shape[0])]
    return found, values[found.row_N[found.row_N >= 0]]


def test_batches_change_nothing_and_what_is_there_is_read(workplace, read, monkeypatch):
    _, together = gather(read, workplace)
    assert together.shape == (24, 65)
    elsewhere = read.model_copy(update={"output_dir": str(workplace.root / "elsewhere")})
    _, alone = gather(elsewhere, workplace, tokens=1)
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(sketches, "GradientSketches", None)
    found, again = gather(read, workplace)
    assert (again == together).all()
    assert found.readings[0].num_computed == 0


def test_a_deep_graph_takes_few_records_at_a_time(workplace, read, monkeypatch):
    """Through four layers, 360 tokens to a piece: two records, where a batch would take all."""
    whole = gather(read, workplace)[1]
    monkeypatch.setattr(backward, "GRAPH_TOKENS", 4 * 360)
    run, seen = backward.BackwardPass.run, []

    def watch(self, piece):
        seen.append(len(piece) * max(len(unit.pooled_L) for unit in piece))
        return run(self, piece)

    monkeypatch.setattr(backward.BackwardPass, "run", watch)
    elsewhere = read.model_copy(update={"output_dir": str(workplace.root / "elsewhere")})
    np.testing.assert_allclose(gather(elsewhere, workplace)[1], whole, rtol=1e-3, atol=1e-5)
    assert len(seen) > 1
    assert max(seen) <= 360


def test_an_adapter_beside_the_attention_says_what_to_choose(workplace, read):
    model = load(read)
    for name, module in model.model.language_model.named_modules():
        if name.endswith("self_attn"):
            for part in ("q_proj", "v_proj"):
                setattr(module, part, getattr(module, part).base_layer)
    with pytest.raises(UserError, match=r"selection.options.modules: attention: .* choose `all`"):
        GradientSketches(model, load_processor(read.model), "attention", 64)

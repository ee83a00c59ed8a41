"""Every family's own inputs through the shallow model: equal to the full model's hidden states."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny_families import TINY_FAMILIES
from support.tiny_processors import TINY_PROCESSORS, build_family

from prism_tune.config.sections import ModelConfig, TrainingConfig
from prism_tune.data.conversation import image_token
from prism_tune.errors import UserError
from prism_tune.models.families import parts
from prism_tune.models.load import load_shallow
from prism_tune.models.processor import load_processor
from prism_tune.models.tuning import prepare_tuning
from prism_tune.selection.evidence.encoding import encode
from prism_tune.selection.evidence.gradients.norms import GradientNorms
from prism_tune.selection.evidence.gradients.sketches import GradientSketches
from prism_tune.selection.evidence.prompts import Prompt
from prism_tune.selection.evidence.shallow import Extractor
from prism_tune.selection.evidence.states.attention_outputs import AttentionOutputs
from prism_tune.selection.evidence.states.state_spectra import StateSpectra
from prism_tune.selection.evidence.states.weighted_states import WeightedStates
from prism_tune.selection.evidence.whole_model import AnswerLosses

pytestmark = pytest.mark.slow

NOT_RECORD_BY_RECORD = {
    "qwen3_vl_moe": "layers.*.self_attn.*",  # experts see the tokens of all records at once
    "qwen3_5": "layers.*.mlp.*",  # linear attention has numbers beside its linear layers
    "qwen3_5_moe": "layers.2.self_attn.*",
}
LINEAR = ("qwen3_5", "qwen3_5_moe")  # their first layers attend linearly
SIZES = [(60, 40), (56, 56), (30, 90)]
NUM_LAYERS = 3
FAMILY_INPUTS = {
    "llava_next": {"pixel_values", "image_sizes"},
    "llava_onevision": {"pixel_values", "image_sizes", "batch_num_images"},
    **{
        name: {"pixel_values", "image_grid_thw", "mm_token_type_ids"}
        for name in TINY_FAMILIES
        if name.startswith(("qwen", "glm"))
    },
    "mistral3": {"pixel_values", "image_sizes"},
    "pixtral": {"pixel_values", "image_sizes"},
    "aya_vision": {"pixel_values"},
    "vipllava": {"pixel_values"},
    "gemma3": {"pixel_values", "token_type_ids"},
    "internvl": {"pixel_values"},
    "smolvlm": {"pixel_values", "pixel_attention_mask"},
}


def draw(size):
    noise = np.random.default_rng(size[0]).integers(0, 255, (size[1], size[0], 3))
    return Image.fromarray(noise.astype(np.uint8))


def encode_images(processor):
    """One unit for each size, with one more text each time."""
    token = image_token(processor)
    prompts = [f"USER: {token}\nwhat?" + " why?" * n for n in range(len(SIZES))]
    return [
        encode(Prompt(text), [draw(size)], processor)
        for text, size in zip(prompts, SIZES, strict=True)
    ]


def hidden_states(model, unit):
    """Mean over the image tokens of what goes into every layer of the full model, and comes out.

    (layers + 1, D). Transformers' `hidden_states` are the same, but for Qwen3-VL: they are taken
    before the deepstack features are added, which the next layer reads.
    """
    inputs = {
        key: value[None] if value.shape == unit.pooled_L.shape else value
        for key, value in unit.inputs.items()
    }
    decoder, states = parts(model).language_model, []
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: states.append(
                (args[0] if args else kwargs["hidden_states"]).clone()
            ),
            with_kwargs=True,
        )
        for layer in decoder.layers
    ]
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    states.append(output.hidden_states[-1])
    for hook in hooks:
        hook.remove()
    if "deepstack_visual_indexes" not in model.config.vision_config.to_dict():
        for state, own in zip(states, output.hidden_states, strict=True):
            torch.testing.assert_close(state, own, rtol=0, atol=0)
    is_image = unit.inputs["input_ids"] == model.config.image_token_id
    return torch.stack([state[0, is_image].mean(dim=0) for state in states])


@pytest.mark.parametrize("family", TINY_PROCESSORS)
def test_every_layer_of_every_family_equals_the_full_model(family, tmp_path):
    model, processor = build_family(family)
    model.save_pretrained(tmp_path)
    units = encode_images(processor)
    assert units[0].inputs.keys() - {"input_ids", "attention_mask"} == FAMILY_INPUTS[family]
    counts = [int(unit.pooled_L.sum()) for unit in units]
    assert min(counts) > 0
    if family not in ("gemma3", "vipllava"):
        assert len(set(counts)) > 1  # images of different sizes have different numbers of tokens
    expected = torch.stack([hidden_states(model, unit) for unit in units])

    for depth in range(1, NUM_LAYERS + 1):
        shallow = load_shallow(ModelConfig(path=str(tmp_path)), depth, dtype=torch.float32)
        layers = tuple(range(depth + 1))
        extractor = Extractor(shallow, processor, layers, "mean")
        together = extractor.run_batch(units)
        for layer in layers:
            torch.testing.assert_close(
                together[layer], expected[:, layer], rtol=1e-4, atol=1e-5, msg=f"{depth} {layer}"
            )
        assert extractor.estimate_flops(units) > 0


@pytest.mark.parametrize("family", TINY_PROCESSORS)
def test_the_inside_of_every_family_is_read_in_batches_or_refused(family, tmp_path):
    """COINCIDE's and DataTailor's rows and instructed features: alone as in a padded batch."""
    model, processor = build_family(family)
    model.save_pretrained(tmp_path)
    config = ModelConfig(path=str(tmp_path), attn_implementation="eager")
    shallow = load_shallow(config, NUM_LAYERS, dtype=torch.float32)
    units = [with_text_behind(unit) for unit in encode_images(processor)]
    spectra = StateSpectra(shallow, processor)
    assert_alike(spectra, units)
    assert_alike(WeightedStates(shallow, processor), units)
    if family in LINEAR:
        with pytest.raises(UserError, match=r"options.layers: layer 0 .* has no self-attention"):
            AttentionOutputs(shallow, processor, (0, 2))
        with pytest.raises(UserError, match=r"selection.layer: layer 0 .* no self-attention"):
            Extractor(shallow, processor, (1,), "instruction").run_batch(units)
        return
    assert_alike(AttentionOutputs(shallow, processor, (0, 2)), units)
    assert_alike(Extractor(shallow, processor, (1, 3), "instruction"), units)


def with_text_behind(unit):
    """The unit with all tokens behind its last image token marked."""
    behind = torch.arange(len(unit.pooled_L)) > int(unit.pooled_L.nonzero().max())
    return dataclasses.replace(unit, instruction_L=behind)


def assert_alike(runner, units):
    together = runner.run_batch(units)
    alone = [runner.run_batch([unit]) for unit in units]
    for number, rows in enumerate(together):
        assert rows.isfinite().all()
        expected = torch.cat([of_unit[number] for of_unit in alone])
        torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llava_next", "smolvlm"])
def test_the_stage_runs_on_families_whose_processor_loads_here(family, workplace, tmp_path):
    model, processor = build_family(family)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded = load_processor(ModelConfig(path=str(tmp_path / "model")))
    assert type(loaded) is type(processor)
    result = workplace.select(model__path=tmp_path / "model")
    assert result.manifest["num_selected"] == 14
    assert result.manifest["evidence"]["features"]["prompt"] == "prefix"
    assert result.manifest["evidence"]["features"]["num_units"] == 16


@pytest.mark.parametrize("family", TINY_PROCESSORS)
def test_losses_and_gradients_of_every_family_are_those_of_its_own_loss(family):
    """In one batch, against one record at a time through the model with its labels."""
    model, processor = build_family(family)
    model.eval()
    units = [with_labels(unit, 2 + n) for n, unit in enumerate(encode_images(processor))]
    losses = AnswerLosses(model, processor).run_batch(units)[0]
    pattern = None
    if family in NOT_RECORD_BY_RECORD:
        with pytest.raises(UserError, match="cannot be taken record by record"):
            GradientNorms(model, processor, None)
        pattern = (NOT_RECORD_BY_RECORD[family],)
    norms = GradientNorms(model, processor, pattern).run_batch(units)[0]
    chosen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for unit, (nll, _, _, turn_nll, count), norm in zip(
        units, losses.tolist(), norms[:, 0].tolist(), strict=True
    ):
        inputs = {
            key: value[None] if value.shape == unit.pooled_L.shape else value
            for key, value in unit.inputs.items()
        }
        loss = model(**inputs).loss
        gradients = torch.autograd.grad(loss, chosen)
        expected = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        assert (nll, count) == pytest.approx((loss.item(), int(unit.pooled_L.sum())), rel=1e-4)
        assert norm == pytest.approx(expected, rel=1e-3)
        assert turn_nll == pytest.approx(nll, rel=1e-5)  # of one turn


@pytest.mark.parametrize("family", TINY_PROCESSORS)
def test_sketched_gradients_of_every_family_are_those_of_its_own_loss(family):
    """Of the matrices of a LoRA, in one batch, against one record at a time: the norms."""
    model, processor = build_family(family)
    training = TrainingConfig(tuning="lora", lora={"r": 2, "lora_alpha": 4}, deepspeed=None)
    tuned = prepare_tuning(model, training, weights_dtype=torch.float32)
    torch.manual_seed(0)
    chosen = []
    for name, parameter in tuned.named_parameters():
        if "lora_" in name and "expert" not in name:
            chosen.append(parameter.data.normal_(std=0.1) if "lora_B" in name else parameter)
    model = tuned.get_base_model().eval()
    units = [with_labels(unit, 2 + n) for n, unit in enumerate(encode_images(processor))]
    rows = GradientSketches(model, processor, "all", 64).run_batch(units)[0]
    watched = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(watched) == len(chosen) > 0
    for unit, norm in zip(units, rows[:, 0].tolist(), strict=True):
        inputs = {
            key: value[None] if value.shape == unit.pooled_L.shape else value
            for key, value in unit.inputs.items()
        }
        gradients = torch.autograd.grad(model(**inputs).loss, watched, allow_unused=True)
        flat = [gradient.flatten() for gradient in gradients if gradient is not None]
        assert norm == pytest.approx(torch.cat(flat).norm().item(), rel=1e-3)


@pytest.mark.parametrize("family", TINY_PROCESSORS)
def test_losses_without_images_are_those_of_the_model_without_images(family):
    """Alone, so that no image is shown at all, and in a batch with records that have some."""
    model, processor = build_family(family)
    model.eval()
    texts = ["USER: what? why?", "USER: is it?"]
    units = [with_labels(encode(Prompt(text), [], processor), 3) for text in texts]
    assert not [key for unit in units for key in unit.inputs if key.startswith("pixel")]
    seeing = [with_labels(unit, 2) for unit in encode_images(processor)]
    losses = AnswerLosses(model, processor)
    expected = [
        model(**{key: value[None] for key, value in unit.inputs.items()}).loss.item()
        for unit in units
    ]
    assert losses.run_batch(units)[0][:, 0].tolist() == pytest.approx(expected, rel=1e-4)
    mixed = losses.run_batch([units[0], *seeing, units[1]])[0][:, 0].tolist()
    assert [mixed[0], mixed[-1]] == pytest.approx(expected, rel=1e-4)
    assert losses.estimate_flops(units) < losses.estimate_flops([*units, *seeing])


def with_labels(unit, num_labels):
    """The unit with its last tokens as the answer."""
    labels = torch.full_like(unit.inputs["input_ids"], -100)
    labels[-num_labels:] = unit.inputs["input_ids"][-num_labels:]
    return dataclasses.replace(
        unit, inputs={**unit.inputs, "labels": labels}, pooled_L=labels != -100
    )

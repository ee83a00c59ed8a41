"""One LoRA step of each other family: tiny random checkpoints, inputs as its processor makes them.

Where every batch is text only, the dummy image has to give projector and vision path their part in
the backward pass, and to change nothing.
"""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from support.tiny import draw_image
from support.tiny_processors import TINY_PROCESSORS, build_family

from prism_tune.config.sections import TrainingConfig
from prism_tune.data.collator import Collator
from prism_tune.data.labels import IGNORED_LABEL, select_labelled
from prism_tune.models.tuning import parameter_part, prepare_tuning, tuned_parts

pytestmark = pytest.mark.slow

LORA = {"lora": {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0}}
FAMILIES = sorted(TINY_PROCESSORS)


def encode(processor, text, image=None):
    """An example as the dataset gives it: token inputs without batch axis, labels on the end."""
    given = f"{processor.image_token}\n{text}" if image is not None else text
    inputs = processor(
        images=[image] if image is not None else None, text=[given], return_tensors="pt"
    )
    tokens = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    example = {key: value[0] if key in tokens else value for key, value in inputs.items()}
    labels = torch.full_like(example["input_ids"], IGNORED_LABEL)
    labels[-4:] = example["input_ids"][-4:]
    return {**example, "labels": labels}


@pytest.fixture(params=FAMILIES)
def tuned(request, tmp_path):
    """The family's model ready for LoRA, its processor, and an example with an image."""
    model, processor = build_family(request.param)
    draw_image(tmp_path / "image.png", 3)
    image = Image.open(tmp_path / "image.png").convert("RGB")
    adapted = prepare_tuning(model, TrainingConfig(**LORA), weights_dtype=torch.float32)
    adapted.train()
    return adapted, processor, encode(processor, "what shape is it? a square", image)


def test_a_lora_step_trains_the_decoder_and_the_projector_alone(tuned):
    model, processor, example = tuned
    batch = Collator(processor)([example, encode(processor, "is 4 even? yes")])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss = model(**batch).loss
    keep, labels = select_labelled(batch["labels"])  # as the trainer does
    selected = model(**batch, logits_to_keep=keep, shift_labels=labels).loss
    torch.testing.assert_close(selected, loss)
    selected.backward()
    optimizer.step()
    assert math.isfinite(loss.item())
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    found = tuned_parts(model)
    assert {parameter_part(name, found) for name in moved} == {"language_model", "projector"}
    decoder = {name for name in moved if parameter_part(name, found) == "language_model"}
    assert decoder
    assert all("lora_" in name for name in decoder)


def test_the_dummy_image_of_a_text_batch_changes_nothing_and_reaches_the_projector(tuned):
    model, processor, _ = tuned
    examples = [encode(processor, "is 4 even? yes it is"), encode(processor, "why? no")]
    with_dummy = Collator(processor)(examples)
    assert "pixel_values" in with_dummy
    bare = {
        key: torch.nn.utils.rnn.pad_sequence(
            [example[key] for example in examples],
            batch_first=True,
            padding_value=IGNORED_LABEL if key == "labels" else 0,
        )
        for key in examples[0]
    }
    loss = model(**with_dummy).loss
    torch.testing.assert_close(loss, model(**bare).loss, rtol=1e-5, atol=1e-6)
    loss.backward()
    found = tuned_parts(model)
    projector = [
        value
        for name, value in model.named_parameters()
        if value.requires_grad and parameter_part(name, found) == "projector"
    ]
    assert projector
    assert all(value.grad is not None for value in projector)

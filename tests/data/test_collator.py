from __future__ import annotations

import pickle

import pytest
import torch
from support.tiny import build_processor, build_tokenizer
from transformers import AutoModelForImageTextToText

from prism_tune.data.collator import Collator, PackingCollator, first_tokens

IMAGE = 3


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def example(ids, num_labels=1, images=None):
    ids_L = torch.tensor(ids)
    labels_L = ids_L.clone()
    labels_L[:-num_labels] = -100
    built = {"input_ids": ids_L, "attention_mask": torch.ones_like(ids_L), "labels": labels_L}
    return built if images is None else {**built, "pixel_values": images}


def pixels(value, count=1):
    return torch.full((count, 3, 28, 28), float(value), dtype=torch.float64)


def test_mixed_batch_literally(processor):
    batch = Collator(processor)(
        [
            example([7, IMAGE, IMAGE, IMAGE, IMAGE, 8], images=pixels(1)),
            example([9, 10, 11], 2),
            example([IMAGE] * 4 + [12], images=pixels(2)),
        ]
    )
    assert batch["input_ids"].tolist() == [
        [7, 3, 3, 3, 3, 8],
        [9, 10, 11, 0, 0, 0],
        [3, 3, 3, 3, 12, 0],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert batch["labels"].tolist() == [
        [-100, -100, -100, -100, -100, 8],
        [-100, 10, 11, -100, -100, -100],
        [-100, -100, -100, -100, 12, -100],
    ]
    assert batch["pixel_values"].shape == (2, 3, 28, 28)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1, 2]


def test_text_only_batch_gets_a_dummy_behind_the_shortest(processor):
    batch = Collator(processor, torch.bfloat16)([example([7, 8, 9, 10, 11]), example([12, 13])])
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10, 11, 0], [12, 13, 3, 3, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [
        [-100, -100, -100, -100, 11, -100],
        [-100, 13, -100, -100, -100, -100],
    ]
    assert batch["pixel_values"].shape == (1, 3, 28, 28)
    assert batch["pixel_values"].dtype == torch.bfloat16


def test_the_dummy_changes_neither_loss_nor_gradient(processor, tiny_llava_dir):
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava_dir)
    examples = [example([7, 8, 9, 10, 11], 3), example([12, 13, 14], 2)]
    with_dummy = Collator(processor)(examples)
    without = {key: with_dummy[key][:, :5] for key in ("input_ids", "attention_mask", "labels")}
    without["input_ids"] = without["input_ids"].masked_fill(without["attention_mask"] == 0, 0)
    norms, losses = [], []
    for batch in (with_dummy, without):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        weight = model.model.language_model.layers[0].mlp.up_proj.weight
        norms.append(weight.grad.norm().item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    projector = model.model.multi_modal_projector.linear_1.weight
    model.zero_grad()
    model(**with_dummy).loss.backward()
    assert projector.grad is not None
    assert projector.grad.abs().sum() == 0


def test_family_extras_are_concatenated_by_key(processor):
    first = {
        **example([5, 6]),
        "pixel_values": torch.ones(4, 2),
        "image_grid_thw": torch.tensor([[1, 2, 2]]),
    }
    second = {
        **example([7]),
        "pixel_values": torch.zeros(6, 2),
        "image_grid_thw": torch.tensor([[1, 2, 3]]),
    }
    for built, kinds in ((first, [0, 1]), (second, [0])):
        built["mm_token_type_ids"] = torch.tensor(kinds)
    batch = Collator(processor)([first, second])
    assert batch["pixel_values"].shape == (10, 2)
    assert batch["image_grid_thw"].tolist() == [[1, 2, 2], [1, 2, 3]]
    assert batch["mm_token_type_ids"].tolist() == [[0, 1], [0, 0]]


def test_tiles_are_padded_to_the_most(processor):
    first = {**example([5]), "pixel_values": torch.ones(1, 2, 3, 4, 4)}
    second = {**example([6]), "pixel_values": torch.ones(1, 5, 3, 4, 4)}
    pixel_values = Collator(processor)([first, second])["pixel_values"]
    assert pixel_values.shape == (2, 5, 3, 4, 4)
    assert pixel_values.sum((2, 3, 4)).tolist() == [[48, 48, 0, 0, 0], [48] * 5]


def test_it_travels_to_worker_processes(processor):
    batch = pickle.loads(pickle.dumps(Collator(processor)))([example([7])])
    assert batch["input_ids"].tolist() == [[7, 3, 3, 3, 3]]


def test_a_packed_row_literally(processor):
    batch = PackingCollator(processor)(
        [
            example([7, IMAGE, IMAGE, IMAGE, IMAGE, 8], images=pixels(1)),
            example([9, 10, 11], 3),
            example([IMAGE] * 4 + [12], images=pixels(2)),
        ]
    )
    assert batch["input_ids"].tolist() == [[7, 3, 3, 3, 3, 8, 9, 10, 11, 3, 3, 3, 3, 12]]
    assert batch["attention_mask"].tolist() == [[1] * 14]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 3, 4]]
    # 9 begins a record: the end of the one before it must not learn to predict it.
    assert batch["labels"].tolist() == [[-100] * 5 + [8, -100, 10, 11] + [-100] * 4 + [12]]
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1, 2]
    assert first_tokens(batch).nonzero()[:, 1].tolist() == [0, 6, 9]


def test_the_dummy_of_a_packed_row_of_text_is_a_record_of_its_own(processor):
    batch = PackingCollator(processor)([example([7, 8, 9]), example([12, 13])])
    assert batch["input_ids"].tolist() == [[7, 8, 9, 12, 13, 3, 3, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1] * 5 + [0] * 4]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 9, -100, 13] + [-100] * 4]
    assert batch["pixel_values"].shape == (1, 3, 28, 28)


def test_records_of_a_padded_batch_begin_in_the_first_column(processor):
    batch = Collator(processor)([example([7, 8, 9]), example([12, 13])])
    assert first_tokens(batch).nonzero().tolist() == [[0, 0], [1, 0]]

"""Tokens, images and records as the meter counts them."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from prism_tune.training.meter import Meter

IMAGE = 3


def count(batch):
    meter = Meter(None, image_token_id=IMAGE, flops_per_token=0.0)
    meter.add_batch({key: torch.tensor(value) for key, value in batch.items()})
    meter.read(Accelerator(cpu=True))
    return meter.totals


def test_padding_and_the_dummy_image_are_not_counted():
    ids = [[7, IMAGE, IMAGE, 8, IMAGE, IMAGE], [9, 10, IMAGE, IMAGE, 0, 0]]
    mask = [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]
    counted = count({"input_ids": ids, "attention_mask": mask})
    assert counted == {"tokens": 8, "images": 2, "records": 2}


def test_images_of_neighbours_in_a_packed_row_are_told_apart():
    batch = {
        "input_ids": [[7, IMAGE, IMAGE, IMAGE, IMAGE, 8, 9, IMAGE, IMAGE]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 0, 0, 1]],
        "attention_mask": [[1, 1, 1, 1, 1, 1, 1, 0, 0]],
    }
    assert count(batch) == {"tokens": 7, "images": 2, "records": 3}

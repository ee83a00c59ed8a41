"""The mix dealt out, and the pool with faults, over sources drawn for the test."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from prism_tune.quickstart import faulty_pool
from prism_tune.quickstart.faulty_pool import plant_faults
from prism_tune.quickstart.mix import (
    Share,
    build_captions,
    build_questions,
    build_records,
    draw_mix,
    list_images,
)
from prism_tune.quickstart.sources.charts import draw_charts
from prism_tune.quickstart.sources.counting import draw_scenes
from prism_tune.quickstart.sources.facts import draw_facts

SHARES = {
    "charts": Share(draw_charts, num_test=3, num_pool=30, num_captions=2, num_spare=5),
    "counting": Share(draw_scenes, num_test=4, num_pool=34, num_captions=3),
    "facts": Share(draw_facts, num_test=5, num_pool=6),
}


@pytest.fixture(scope="module")
def mix():
    return draw_mix({}, SHARES)


def test_no_picture_is_in_two_parts(mix):
    parts = [list(list_images(part)) for part in (mix.test, mix.pool, mix.captions, mix.spare)]
    assert [len(part) for part in parts] == [7, 64, 5, 5]
    flat = [image for part in parts for image in part]
    assert len({path for path, _ in flat}) == len({content for _, content in flat}) == 81
    asked = [e.asked.question for part in (mix.test, mix.pool) for e in part["facts"].values()]
    assert len(set(asked)) == 11


def test_records_are_llava_data_and_text_only_ones_have_no_image(mix):
    records = build_records(mix.pool)
    assert Counter(record["source"] for record in records) == {
        "charts": 30,
        "counting": 34,
        "facts": 6,
    }
    chart, fact = records[0], records[-1]
    assert chart["id"] == "charts-0003-0"
    assert chart["image"] == "charts/charts-0003.png"
    assert [turn["value"].count("<image>\n") for turn in chart["conversations"]] == [1, 0, 0, 0]
    assert fact.keys() == {"id", "source", "conversations"}
    assert [turn["from"] for turn in fact["conversations"]] == ["human", "gpt"]


def test_captions_say_what_is_shown_and_have_no_question_of_the_pool(mix):
    captions = build_captions(mix.captions)
    assert len(captions) == 5
    said = {record["conversations"][1]["value"] for record in captions}
    assert said == {e.caption for named in mix.captions.values() for e in named.values()}
    assert not any("?" in text for text in said)


def test_held_out_questions_are_a_benchmark_of_ones_own(mix):
    first, *_ = build_questions(mix.test["counting"])
    example = mix.test["counting"]["counting-0000"]
    assert first == {
        "question_id": "counting-0000",
        "image": "counting/counting-0000.png",
        "question": example.asked.question,
        "answer": example.asked.answer,
    }
    assert "image" not in build_questions(mix.test["facts"])[0]


@pytest.fixture(scope="module")
def faulty(mix):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faulty_pool, "NUM_IMAGES", 4)
        return plant_faults(mix)


def test_the_pool_with_faults_says_of_each_record_what_is_wrong(mix, faulty):
    assert Counter(item["kind"] for item in faulty.planted.values()) == {
        **{"exact": 12, "recoded": 12, "cropped": 12},
        **{"wrong": 4, "blank": 4, "mismatched": 4, "over": 5},
    }
    records = {record["id"]: record for record in faulty.records}
    # Of 64 pictures 32, of 6 text-only records 3; copies and what there is too much of.
    assert len(records) == len(faulty.records) == 32 + 3 + 36 + 5
    original = {record["id"]: record for record in build_records(mix.pool)}
    content = dict(list_images(mix.pool)) | dict(list_images(mix.spare)) | faulty.images
    assert {record["image"] for record in records.values() if "image" in record} <= set(content)
    for key, item in faulty.planted.items():
        record = records[key]
        if item["of"]:
            assert record["conversations"] == original[item["of"]]["conversations"]
            assert item["of"] in records
        if item["kind"] == "exact":
            assert content[record["image"]] == content[original[item["of"]]["image"]]
        if item["kind"] == "wrong":
            pairs = zip(record["conversations"], original[key]["conversations"], strict=True)
            same = [ours == theirs for ours, theirs in pairs]
            assert same == [True, False] * (len(same) // 2)
        if item["kind"] == "blank":
            picture = np.asarray(Image.open(io.BytesIO(content[record["image"]])))
            assert len(np.unique(picture)) == 1
        if item["kind"] == "mismatched":
            assert not record["image"].startswith(f"{record['source']}/")
            assert record["conversations"] == original[key]["conversations"]


def test_the_faults_are_the_same_at_every_call(mix, faulty, monkeypatch):
    monkeypatch.setattr(faulty_pool, "NUM_IMAGES", 4)
    again = plant_faults(mix)
    assert (again.records, again.planted, again.images) == (
        faulty.records,
        faulty.planted,
        faulty.images,
    )

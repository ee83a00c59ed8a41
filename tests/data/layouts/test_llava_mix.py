"""`data.source: llava_mix`: records as llava_v1_5_mix665k.json has them, and their datasets."""

from __future__ import annotations

import json

import pytest

from prism_tune.config.load import load_config
from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool, write_subset
from prism_tune.errors import ConfigError

PHRASE = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
COCO = "coco/train2017/000000033471.jpg"


def make(image, *pairs, **extra):
    """A record in the official schema: id, image (where it has one), conversations."""
    turns = []
    for question, answer in pairs:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    name = {"image": image} if image else {}
    return {"id": "000000033471", **name, "conversations": turns, **extra}


CONVERSATION = make(
    COCO,
    ("<image>\nWhat are the colors of the bus in the image?", "The bus is white and red."),
    ("What feature can be seen on the back of the bus?", "An advertisement."),
    ("Is the bus driving down the street?", "It is driving down a street full of people."),
)
CAPTION = make(COCO, ("Write a detailed description of the given image.\n<image>", "A city bus."))
VQAV2 = make(
    COCO,
    (f"<image>\nIs the bus moving?{PHRASE}", "Yes"),
    ("What color is it?", "White"),
    ("How many people are there?", "6"),
)
LATER_PHRASE = make(
    COCO, ("<image>\nIs it day?", "Yes"), ("Cold?", "No"), (f"What color is it?{PHRASE}", "White")
)
OKVQA = make(COCO, (f"<image>\nWhat is this bus called?{PHRASE}", "Double decker"))
OKVQA_OF_TWO = make(
    COCO,
    (f"<image>\nWhat is this bus called?{PHRASE}", "Double decker"),
    (f"Which country is it of?{PHRASE}", "England"),
)
AOKVQA = make(
    COCO,
    (f"<image>\nWhat is the man by the bags awaiting?\nA. skateboarder\nB. train{LETTER}", "B"),
    (f"What is he holding?\nA. bag\nB. fish{LETTER}", "A"),
    (f"Is it raining?{PHRASE}", "No"),
)
REGIONS = make(
    COCO,
    (
        "<image>\nPlease provide a short description for this region: [0.0, 0.2, 0.3, 0.9].",
        "The man in red",
    ),
    (
        "Please provide the bounding box coordinate of the region this sentence describes: bus.",
        "[0.1, 0.2, 0.8, 0.9]",
    ),
)
BOX_AT_THE_END = make(
    COCO,
    (
        " Please provide the bounding box coordinate of the region this sentence describes: bus."
        "\n<image>",
        "[0.1, 0.2, 0.8, 0.9]",
    ),
)
QUOTED = make(
    COCO, ("<image>\nWho says: Please provide a short description for this region?", "Nobody.")
)
SAYS_SO = make(
    COCO, ("<image>\nWhat is written?", "Answer the question using a single word or phrase.")
)
REGION_OF_VG = make(
    "vg/VG_100K_2/2.jpg",
    ("<image>\nPlease provide a short description for this region: [0.0, 0.2, 0.3, 0.9].", "A cup"),
)
GQA = make("gqa/images/2354786.jpg", (f"<image>\nIs the sky dark?{PHRASE}", "Yes"))
OCR = make("ocr_vqa/images/689852649.jpg", (f"<image>\nWho wrote this book?{PHRASE}", "Wendy"))
TEXTVQA = make(
    "textvqa/train_images/011e7e629fb9ae7b.jpg",
    ("Provide a one-sentence caption for the provided image.\n<image>", "A stone."),
)
TEXT = make(None, (f"Who wrote Hamlet?{PHRASE}", "Shakespeare"))

DATASETS = [
    (CONVERSATION, "llava"),
    (CAPTION, "llava"),
    (QUOTED, "llava"),
    (SAYS_SO, "llava"),
    (VQAV2, "vqav2"),
    (LATER_PHRASE, "vqav2"),
    (OKVQA, "okvqa"),
    (OKVQA_OF_TWO, "okvqa"),
    (AOKVQA, "aokvqa"),
    (REGIONS, "refcoco"),
    (BOX_AT_THE_END, "refcoco"),
    (REGION_OF_VG, "vg"),
    (GQA, "gqa"),
    (OCR, "ocr_vqa"),
    (TEXTVQA, "textvqa"),
    (TEXT, "text"),
]


def open_mix(tmp_path, records, **config):
    path = tmp_path / "llava_v1_5_mix665k.json"
    path.write_text(json.dumps(records))
    return open_pool(DataConfig(records=str(path), **{"source": "llava_mix", **config}))


def test_every_dataset_is_told(tmp_path):
    records, names = zip(*DATASETS, strict=True)
    assert open_mix(tmp_path, records).sources == list(names)


def test_absolute_paths_into_the_image_folder(tmp_path):
    record = {**OKVQA, "image": str(tmp_path / COCO)}
    assert open_mix(tmp_path, [record], image_dir=str(tmp_path)).sources == ["okvqa"]


def test_datasets_are_renamed_and_joined(tmp_path):
    names = {"okvqa": "vqa", "vqav2": "vqa", "coco": "never"}
    pool = open_mix(tmp_path, [VQAV2, OKVQA, AOKVQA], source_names=names)
    assert pool.sources == ["vqa", "vqa", "aokvqa"]


def test_a_field_of_ones_own_wins(tmp_path):
    """As TIVE's `dataset`, which its authors wrote in by hand."""
    own = {**VQAV2, "dataset": "by hand"}
    pool = open_mix(tmp_path, [own, VQAV2, {**TEXT, "dataset": ""}], columns={"source": "dataset"})
    assert pool.sources == ["by hand", "vqav2", "text"]


def test_the_pool_is_converted_anew_and_the_subset_is_as_the_file_has_it(tmp_path):
    records = [VQAV2, OKVQA, TEXT]
    by_field = open_mix(tmp_path, records, source="field")
    by_dataset = open_mix(tmp_path, records)
    assert by_field.sources == ["coco", "coco", "text"]
    assert by_dataset.sources == ["vqav2", "okvqa", "text"]
    assert by_field.fingerprint != by_dataset.fingerprint
    assert by_field.uids == by_dataset.uids
    for pool in (by_field, by_dataset):
        path = tmp_path / f"{pool.fingerprint}.json"
        write_subset(pool, [0, 2], path)
        assert json.loads(path.read_text()) == [VQAV2, TEXT]


def test_a_record_that_cannot_be_used_counts_to_its_dataset_where_its_turns_can_be_read(tmp_path):
    """Without turns nothing tells the datasets of `coco` apart."""
    unanswered = make(COCO, (f"<image>\nIs it day?{PHRASE}", ""))
    turnless = {"id": "1", "image": COCO}
    policy = {"empty_answer": "skip", "no_conversations": "skip"}
    pool = open_mix(tmp_path, [VQAV2, unanswered, turnless], policy=policy)
    assert pool.skipped_sources == ["okvqa", "coco"]


def test_another_value_is_refused_with_the_three(tmp_path):
    (tmp_path / "own.yaml").write_text("{name: a, model: {path: m}, data: {records: p.json}}")
    with pytest.raises(ConfigError, match="expected 'field', 'image_folder' or 'llava_mix'"):
        load_config(str(tmp_path / "own.yaml"), ["data.source=llava-mix"])


def test_presets_of_the_mix_are_over_datasets_and_no_other_is():
    for name in ("llava15_7b_lora", "published/datatailor", "published/tive", "tables/main"):
        assert load_config(f"preset:{name}").data.source == "llava_mix"
    for name in ("tables/visionflan", "quickstart", "llama3_8b_align"):
        assert load_config(f"preset:{name}").data.source == "field"

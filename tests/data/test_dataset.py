from __future__ import annotations

import json

import pytest
import torch
from support.tiny import CHAT_TEMPLATE, build_processor, build_tokenizer, draw_image
from support.tiny_processors import TINY_PROCESSORS

from prism_tune.config.sections import DataConfig
from prism_tune.data.dataset import TuningDataset, check_label_share
from prism_tune.data.labels import expand_spans, mask_labels
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError

IMAGE = 3
LINE = 204


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def make(question, answer, *more, image=("a.png",)):
    texts = (question, answer, *more)
    roles = ["human", "gpt"] * (len(texts) // 2)
    turns = [{"from": role, "value": text} for role, text in zip(roles, texts, strict=True)]
    return {"id": "1", "conversations": turns, "image": list(image)}


def build(tmp_path, processor, *records, template="chatml", max_length=512):
    for index, name in enumerate(["a.png", "b.png"]):
        draw_image(tmp_path / name, index)
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(records))
    pool = open_pool(DataConfig(records=str(path)))
    return TuningDataset(pool, range(len(pool)), processor, template, max_length)


def encode(processor, text):
    return processor.tokenizer.encode(text, add_special_tokens=False)


def labelled(processor, example):
    """The decoded answers: runs of labelled tokens."""
    runs, previous = [], None
    for number, label in enumerate(example["labels"].tolist()):
        if label == -100:
            continue
        assert label == example["input_ids"][number]
        runs[-1:] = [runs[-1] + [label]] if previous == number - 1 else [*runs[-1:], [label]]
        previous = number
    return [processor.tokenizer.decode(run) for run in runs]


def test_literal_tokens_and_labels(tmp_path, processor):
    example = build(tmp_path, processor, make("<image>\nis it?", "yes"))[0]
    expected = [4, 90, 88, 74, 87, LINE, IMAGE, IMAGE, IMAGE, IMAGE, LINE, 78, 88, 283, 36, 5, LINE]
    expected += [4, 70, 88, 88, 78, 88, 89, 70, 83, 89, LINE, 267, 88, 5, LINE]
    assert example["input_ids"].tolist() == expected
    assert example["labels"].tolist() == [-100] * 28 + [267, 88, 5, -100]
    assert example["attention_mask"].tolist() == [1] * 32
    assert example["pixel_values"].shape == (1, 3, 28, 28)


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        ("vicuna_v1", [" a red  circle\n</s>", " no</s>"]),
        ("chatml", ["a red  circle\n<|im_end|>", "no<|im_end|>"]),
        ("plain", ["a red  circle\n\n", "no\n"]),
        ("processor", ["a red  circle\n<|im_end|>", "no<|im_end|>"]),
    ],
)
def test_only_answers_and_end_tokens_are_labelled(tmp_path, processor, template, answers):
    record = make("what?\n<image>", "a red  circle\n", "is it red? no", "no")
    example = build(tmp_path, processor, record, template=template)[0]
    found = labelled(processor, example)
    assert "".join(found) == "".join(answers)


def test_llama3_spans(tmp_path):
    tokenizer = build_tokenizer()
    names = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    processor = build_processor(tokenizer)
    example = build(tmp_path, processor, make("<image>\nx?", "red"), template="llama3")[0]
    assert labelled(processor, example) == ["red<|eot_id|>"]


def test_phi_spans(tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    processor = build_processor(tokenizer)
    example = build(tmp_path, processor, make("<image>\nx?", "red"), template="phi")[0]
    assert labelled(processor, example) == [" red<|endoftext|>"]


def test_two_images_shift_the_spans_twice(tmp_path, processor):
    record = make("<image><image>same?", "no", "<image>?", "é", image=["a.png", "b.png", "a.png"])
    example = build(tmp_path, processor, record)[0]
    assert (example["input_ids"] == IMAGE).sum() == 12
    assert example["pixel_values"].shape == (3, 3, 28, 28)
    assert labelled(processor, example) == ["no<|im_end|>", "é<|im_end|>"]


def test_text_only_has_no_pixels(tmp_path, processor):
    example = build(tmp_path, processor, make("hi?", "yes", image=()))[0]
    assert set(example) == {"input_ids", "attention_mask", "labels"}
    assert labelled(processor, example) == ["yes<|im_end|>"]


def test_lengths_and_modality(tmp_path, processor, monkeypatch):
    records = [make("<image>\nx?", "y"), make("hi there", "yes " * 9, image=())]
    records.append(make("<image><image>", "b", image=["a.png", "b.png"]))
    dataset = build(tmp_path, processor, *records)
    lengths = [len(dataset[number]["input_ids"]) for number in range(3)]
    monkeypatch.setattr("prism_tune.data.dataset.open_image", lambda _: pytest.fail("decoded"))
    assert dataset.lengths_N.tolist() == lengths
    assert dataset.has_image_N.tolist() == [True, False, True]


def test_long_records_are_cut_behind_the_image(tmp_path, processor):
    dataset = build(tmp_path, processor, make("<image>\nx?", "yes " * 30), max_length=40)
    example = dataset[0]
    assert [len(example[key]) for key in ("input_ids", "labels", "attention_mask")] == [40] * 3
    assert (example["input_ids"] == IMAGE).sum() == 4
    assert dataset.find_unusable([0]) == {}


@pytest.mark.parametrize(
    ("record", "reason", "part"),
    [
        (
            make("<image>" + "x " * 20 + "<image>", "yes", image=["a.png", "b.png"]),
            "over_long",
            "the last image's end at",
        ),
        (make("<image>" + "x " * 20, "yes"), "no_label", "the answer begins beyond the limit"),
    ],
)
def test_records_that_cannot_be_cut(tmp_path, processor, record, reason, part, monkeypatch):
    good = make("<image>\nx?", "y")
    dataset = build(tmp_path, processor, good, record, max_length=40)
    with pytest.raises(UserError, match=r"pool\.json: record 1 \(id '1'\): \d+ tokens.*" + part):
        dataset[1]
    assert {n: item.reason for n, item in dataset.find_unusable([0, 1]).items()} == {1: reason}
    usable = dataset.part([0])
    with monkeypatch.context() as patch:
        patch.setattr("prism_tune.data.dataset.estimate_lengths", lambda *_: pytest.fail("again"))
        assert usable.lengths_N.tolist() == [len(dataset[0]["input_ids"])]
    assert usable.indices == [0]


def test_missing_image_names_the_record(tmp_path, processor):
    dataset = build(tmp_path, processor, make("<image>", "y", image=["gone.png"]))
    with pytest.raises(UserError, match=r"record 0 \(id '1'\): .*gone\.png: no such image file"):
        dataset[0]


def test_template_that_does_not_fit_is_refused(tmp_path, processor):
    with pytest.raises(UserError, match=r"llama3 ends answers"):
        build(tmp_path, processor, make("<image>", "y"), template="llama3")


def test_mask_labels_by_touch():
    ids_L = torch.tensor([1, 10, 11, 12, 13, 14, 2])
    offsets = [(0, 0), (0, 4), (4, 6), (7, 7), (7, 9), (9, 11), (0, 0)]
    labels_L = mask_labels(ids_L, offsets, [(5, 9)])
    assert labels_L.tolist() == [-100, -100, 11, 12, 13, -100, -100]


def test_expand_spans_moves_what_stands_behind():
    spans = [(0, 2), (9, 11), (18, 20)]  # of "ab<image>cd<image>ef"
    moves = [
        {"span": (2, 9), "replacement": "<image>" * 3},
        {"span": (11, 18), "replacement": "<row><image>"},
    ]
    assert expand_spans(spans, [moves], 2) == [(0, 2), (23, 25), (37, 39)]
    with pytest.raises(UserError, match="reports 0 of 2 expanded image tokens"):
        expand_spans(spans, None, 2)


def test_label_share_has_to_be_plausible(caplog):
    example = {"labels": torch.tensor([-100, -100, -100, 5])}
    nothing = {"labels": torch.tensor([-100] * 8)}
    assert check_label_share([example, example]) == 0.75
    with pytest.raises(UserError, match="none of the 2 records looked at has a token with loss"):
        check_label_share([nothing, nothing])
    with caplog.at_level("WARNING", logger="prism_tune"):
        check_label_share([example, nothing])
    assert "1 of the 2 records looked at have no token with loss" in caplog.text
    with pytest.raises(UserError, match=r"0\.0% of the tokens carry no loss"):
        check_label_share([{"labels": torch.tensor([1, 2])}])


@pytest.mark.parametrize(
    ("num_masked", "num_labels", "is_plausible"),
    [(1, 19, True), (1, 20, False), (200, 1, True), (2000, 2, True)],
)
def test_short_answers_are_plausible_and_unmasked_prompts_are_not(
    num_masked, num_labels, is_plausible
):
    example = {"labels": torch.tensor([-100] * num_masked + [5] * num_labels)}
    if is_plausible:
        assert check_label_share([example]) == pytest.approx(num_masked / (num_masked + num_labels))
    else:
        with pytest.raises(UserError, match=r"expected 5 % or more"):
            check_label_share([example])


def test_a_records_own_system_line_is_read_and_counted(tmp_path, processor):
    record = {**make("<image>\nx?", "y"), "system": "Be brief."}
    dataset = build(tmp_path, processor, record, make("<image>\nx?", "y"))
    example = dataset[0]
    decoded = processor.tokenizer.decode(example["input_ids"])
    assert decoded.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>")
    assert labelled(processor, example) == ["y<|im_end|>"]
    assert dataset.lengths_N.tolist() == [len(example["input_ids"]), len(dataset[1]["input_ids"])]
    assert dataset.lengths_N[0] > dataset.lengths_N[1]


@pytest.mark.parametrize("template", ["chatml", "vicuna_v1", "processor"])
def test_an_answer_without_loss_has_no_labels(tmp_path, processor, template):
    record = make("<image>\nx?", "yes", "y?", "no")
    record["conversations"][1]["loss"] = False
    dataset = build(tmp_path, processor, record, template=template)
    (learnt,) = labelled(processor, dataset[0])
    assert learnt.strip().startswith("no")


@pytest.mark.parametrize("family", TINY_PROCESSORS)
def test_every_familys_own_template_renders_system_lines(tmp_path, family):
    processor = TINY_PROCESSORS[family]()
    processor.chat_template = CHAT_TEMPLATE.replace("<image>", processor.image_token)
    records = [{**make("<image>\nx?", "y"), "system": "Be brief."}, make("<image>\nx?", "y")]
    dataset = build(tmp_path, processor, *records, template="processor", max_length=4096)
    own, other = dataset[0], dataset[1]
    assert "Be brief." in processor.tokenizer.decode(own["input_ids"])
    assert (
        own["labels"][own["labels"] != -100].tolist()
        == other["labels"][other["labels"] != -100].tolist()
    )
    assert dataset.lengths_N.tolist() == [len(own["input_ids"]), len(other["input_ids"])]

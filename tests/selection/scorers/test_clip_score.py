"""clip_score against the encoder itself, on a tiny random CLIP and a tiny random SigLIP."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from support.tiny_encoders import TEXT_LENGTH, save_encoder
from transformers import AutoModel, AutoProcessor

from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.features.shards import StoredRows
from prism_tune.selection.evidence.embeddings import dual_encoder, image_text
from prism_tune.selection.evidence.source import Gathering
from prism_tune.selection.meter import SelectionMeter
from prism_tune.selection.scorers import SCORERS

pytestmark = pytest.mark.slow


@pytest.fixture(params=["clip", "siglip"])
def encoder(request, tmp_path):
    return save_encoder(request.param, tmp_path / request.param)


@pytest.fixture
def clip(tmp_path):
    return save_encoder("clip", tmp_path / "clip")


def options(encoder):
    return {"selection__scorer": "clip_score", "selection__options": f"{{model: {encoder}}}"}


def cosine_by_definition(folder, image, text):
    """One image and one text through the whole model, as its own documentation does."""
    model = AutoModel.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    is_clip = model.config.model_type == "clip"
    inputs = processor(
        images=[image],
        text=[text],
        truncation=True,
        max_length=TEXT_LENGTH[model.config.model_type],
        padding=True if is_clip else "max_length",
        return_tensors="pt",
    )
    if not is_clip:
        inputs.pop("attention_mask", None)
    with torch.no_grad():
        outputs = model(**inputs)
    return torch.cosine_similarity(outputs.image_embeds, outputs.text_embeds).item()


def test_scores_are_the_encoders_cosines(workplace, encoder):
    records = workplace.records()
    records[0]["conversations"] += [
        {"from": "human", "value": "and why is it so, if one may ask?"},
        {"from": "gpt", "value": "because it was drawn like this " * 5},
    ]
    records[1]["image"] = ["1.png", "2.png"]
    records[1]["conversations"][0]["value"] = "<image>\n<image>\nwhich?"
    workplace.write_records(records)
    result = workplace.select(**options(encoder))
    scored = {row["id"]: row["score"] for row in result.scores if row["rank"]}
    assert len(scored) == 24
    for record in records[:6]:
        if "image" in record:
            turns = [turn["value"].replace("<image>", " ") for turn in record["conversations"]]
            text = " ".join(" ".join(turns).split())
            names = record["image"] if isinstance(record["image"], list) else [record["image"]]
            images = [Image.open(workplace.images / name) for name in names]
            expected = [cosine_by_definition(encoder, image, text) for image in images]
            assert scored[record["id"]] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert len({round(score, 5) for score in scored.values()}) > 8


def test_another_encoder_under_the_same_name_selects_anew(workplace, clip, caplog):
    workplace.select(**options(clip))
    path = clip / "config.json"
    path.write_text(path.read_text().replace("{", '{"logit_scale_init_value": 1.0,', 1))
    with caplog.at_level("INFO", logger="prism_tune"):
        workplace.select(**options(clip))
    assert "runs again (changed: content of selection.options.model)" in caplog.text


def test_the_questions_alone_can_be_read(workplace, clip):
    asked = {**options(clip), "selection__options": f"{{model: {clip}, text: question}}"}
    result = workplace.select(**asked)
    records = {record["id"]: record for record in workplace.records()}
    for name in ("shape-0", "colour-2"):
        text = records[name]["conversations"][0]["value"].removeprefix("<image>\n")
        image = Image.open(workplace.images / records[name]["image"])
        scored = next(row["score"] for row in result.scores if row["id"] == name)
        assert scored == pytest.approx(cosine_by_definition(clip, image, text), abs=1e-5)


def test_the_best_aligned_are_kept_unless_asked_otherwise(workplace, clip):
    for keep, best_first in ((None, True), ("low", False)):
        asked = {} if keep is None else {"selection__keep": keep}
        result = workplace.select(**options(clip), **asked, selection__scope="global")
        ranked = sorted((r for r in result.scores if r["rank"]), key=lambda row: -row["score"])
        assert [row["selected"] for row in ranked] == [best_first] * 12 + [not best_first] * 12
        assert result.manifest["keep"] == (keep or "high")


def test_each_distinct_image_and_text_is_encoded_once(workplace, clip, monkeypatch):
    first = workplace.select(**options(clip))
    found = first.manifest["evidence"]
    # 24 records on 16 images; the shape questions differ, the colour questions have two answers.
    assert found["image_embeddings"]["num_computed"] == 16
    assert found["text_embeddings"]["num_computed"] == 16 + 2
    assert first.manifest["timings"]["num_images"] == 16
    assert first.manifest["timings"]["flops_estimate"] > 0
    monkeypatch.setattr(dual_encoder.DualEncoder, "model", None)
    second = workplace.select(**options(clip), selection__budget=0.25)
    assert second.manifest["num_selected"] == 6 + 2
    small = {row["uid"] for row in second.scores if row["selected"]}
    assert small < {row["uid"] for row in first.scores if row["selected"]}


def test_batches_and_the_pools_order_change_nothing(workplace, encoder):
    first = workplace.select(**options(encoder))
    workplace.write_records(workplace.records()[::-1])
    other = workplace.select(
        **options(encoder), **workplace.elsewhere(), selection__tokens_per_batch=1
    )
    expected = {row["uid"]: row["score"] for row in first.scores if row["rank"]}
    scored = {row["uid"]: row["score"] for row in other.scores if row["rank"]}
    assert scored == pytest.approx(expected, abs=1e-5)
    kept = [{row["uid"] for row in r.scores if row["selected"]} for r in (first, other)]
    assert kept[0] == kept[1]


def test_an_unreadable_image_obeys_the_policy(workplace, clip):
    (workplace.images / "3.png").unlink()
    with pytest.raises(UserError, match=r"image_missing: .*shape-3"):
        workplace.select(**options(clip))
    result = workplace.select(**options(clip), data__policy__image_missing="skip")
    assert result.manifest["num_skipped"] == {"image_missing": 1}


def test_the_encoder_has_to_be_named_and_be_one(workplace, tiny_llava_dir):
    with pytest.raises(ConfigError, match="`model` is missing"):
        workplace.select(selection__scorer="clip_score")
    with pytest.raises(UserError, match="is a 'llava'; expected one of clip, siglip"):
        workplace.select(**options(tiny_llava_dir))
    with pytest.raises(UserError, match="no CLIP or SigLIP with a processor at"):
        workplace.select(**options(workplace.root / "nothing"))


def test_embeddings_are_read_a_block_at_a_time_and_nothing_changes(workplace, clip, monkeypatch):
    asked = {**options(clip), "selection__options": f"{{model: {clip}, text: question}}"}
    workplace.write_records(
        [
            {
                **record,
                "conversations": [
                    turn if n else {**turn, "value": "<image>\nwhat?"}
                    for n, turn in enumerate(record["conversations"])
                ],
            }
            if "image" in record
            else record
            for record in workplace.records()
        ]
    )
    expected = workplace.select(**asked).scores
    read, sizes = StoredRows.__getitem__, []

    def measure(self, rows):
        found = read(self, rows)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(StoredRows, "__getitem__", measure)
    monkeypatch.setattr(image_text, "_BLOCK_ROWS", 3)
    assert workplace.select(**asked, name="in_blocks").scores == expected
    assert max(sizes) == 3  # of the 16 images


@pytest.mark.parametrize("scorer", ["clip_score", "self_filter_static"])
def test_only_the_main_process_makes_a_matrix_of_embeddings(workplace, clip, monkeypatch, scorer):
    config = workplace.config(**{**options(clip), "selection__scorer": scorer})
    workplace.select(**{**options(clip), "selection__scorer": scorer})  # what ranks share is there
    source = SCORERS[scorer].reads(config)[-1]
    pool = open_pool(config.data)
    made = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        links = workplace.root / f"links-{rank}"
        made.append(source.compute(Gathering(config, pool, SelectionMeter(None), links), {}))
    main, other = made
    assert main.values_UD is not None
    assert main.description == {"num_texts_cut": 0}
    assert other.values_UD is None
    assert other.description == {}
    assert other.row_N.tolist() == main.row_N.tolist()
    assert other.skipped == main.skipped
    assert [len(reading.files) for reading in other.readings] == [1, 1]

"""The stage end to end: tiny LLaVA, drawn images."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from prism_tune.data import image_index
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.processor import load_processor
from prism_tune.run.timings import read_timings
from prism_tune.selection import select as select_module
from prism_tune.selection.evidence import shallow as extractor

pytestmark = pytest.mark.slow


@pytest.fixture
def no_model(monkeypatch):
    """Call it to make any further loading of a model an error."""

    def forbid():
        def fail(*args, **options):
            raise AssertionError("a model was loaded")

        monkeypatch.setattr(extractor, "load_shallow", fail)

    return forbid


def uids(result):
    return {row["uid"] for row in result.scores if row["selected"]}


def assert_same_selection(one, other):
    assert one.subset == other.subset
    assert [row["feature"] for row in one.scores] == [row["feature"] for row in other.scores]
    scores = [[row["score"] for row in result.scores] for result in (one, other)]
    # Units of other batches differ in the last bit.
    np.testing.assert_allclose(*np.array(scores, dtype=float), rtol=1e-12)


def test_outputs(workplace, capsys):
    result = workplace.select()
    # 24 image records and 2 text-only ones: half of 24, and both of the others.
    assert result.manifest["num_pool"] == 26
    assert result.manifest["num_selected"] == 14
    assert result.manifest["per_source"] == {
        "colour": {"total": 8, "kept": 4},
        "shape": {"total": 16, "kept": 8},
        "text": {"total": 2, "kept": 2},
    }
    assert result.manifest["num_skipped"] == {}
    assert result.manifest["evidence"]["features"]["prompt"] == "prefix"
    assert result.manifest["evidence"]["features"]["num_computed"] == 16
    content = result.run.subset.read_bytes()
    assert hashlib.sha256(content).hexdigest() == result.manifest["subset_sha256"]
    wanted = {row["id"] for row in result.scores if row["selected"]}
    assert [r for r in workplace.records() if r["id"] in wanted] == result.subset
    printed = capsys.readouterr().out
    assert "colour" in printed
    assert "53.8%" in printed


def test_the_manifest_says_what_the_selection_cost(workplace):
    manifest = workplace.select().manifest
    cost = manifest["timings"]
    assert (cost["num_attempts"], cost["num_images"]) == (1, 16)
    assert cost["device_seconds"] == cost["wall_seconds"] > 0  # one process
    assert cost["images_per_second"] == pytest.approx(16 / cost["wall_seconds"], rel=1e-2)
    assert cost["flops_estimate"] > 2 * cost["num_tokens"] > 0
    assert len(manifest["pool_fingerprint"]) == 32
    assert len(manifest["evidence"]["features"]["fingerprint"]) == 64
    assert manifest["anisotropy"].keys() >= {"mean_cosine_raw", "mean_cosine_centred"}


def test_the_manifest_says_what_tuning_on_the_whole_pool_would_take(workplace):
    """Tokens as the model will see them, and layers of the model that is not loaded whole."""
    result, config = workplace.select(), workplace.config()
    pool = open_pool(config.data)
    processor = load_processor(config.model)
    lengths = estimate_lengths(pool, range(len(pool)), processor, config.model.template)
    kept = [length for uid, length in zip(pool.uids, lengths, strict=True) if uid in uids(result)]
    assert result.manifest["num_tokens"] == {"pool": sum(lengths), "selected": sum(kept)}
    assert result.manifest["evidence"]["features"]["num_model_layers"] == 4


def test_scores_name_rank_and_reason_of_every_record(workplace):
    scores = workplace.select().scores
    assert [row["id"] for row in scores] == [record["id"] for record in workplace.records()]
    for row in scores:
        if row["source"] == "text":
            assert (row["reason"], row["selected"], row["score"], row["rank"]) == (
                *("text_only", True),
                *(None, None),
            )
        else:
            assert row["reason"] == ("selected" if row["selected"] else "below_cut")
    ranked = sorted((r for r in scores if r["source"] == "shape"), key=lambda row: row["rank"])
    assert [row["rank"] for row in ranked] == list(range(1, 17))
    values = [row["score"] for row in ranked]
    assert values == sorted(values)
    assert [row["selected"] for row in ranked] == [True] * 8 + [False] * 8


def test_records_that_share_an_image_share_the_score_globally(workplace):
    scores = {row["id"]: row["score"] for row in workplace.select(selection__scope="global").scores}
    assert scores["shape-4"] == scores["colour-4"]
    assert scores["shape-4"] != scores["shape-6"]


def test_order_of_the_pool_does_not_change_the_subset(workplace):
    first = uids(workplace.select())
    workplace.write_records(workplace.records()[::-1])
    assert uids(workplace.select(name="turned")) == first


def test_batch_size_does_not_change_the_subset(workplace):
    first = workplace.select()
    other = workplace.select(**workplace.elsewhere(), selection__tokens_per_batch=1)
    assert other.manifest["subset_sha256"] == first.manifest["subset_sha256"]


def test_finished_stage_is_skipped(workplace, no_model, monkeypatch):
    workplace.select()
    no_model()
    monkeypatch.setattr(select_module, "screen_pool", None)
    workplace.select()


@pytest.mark.parametrize(
    "change",
    [
        {"selection__budget": 3},
        {"selection__scope": "global"},
        {"selection__keep": "high"},
        {"selection__centering": "none"},
    ],
)
def test_rescoring_does_not_touch_the_model(workplace, no_model, change):
    first = workplace.select()
    no_model()
    second = workplace.select(**change)
    assert uids(second) != uids(first)
    assert second.manifest["evidence"]["features"]["num_computed"] == 0


def test_force_computes_anew_and_forgets_the_earlier_time(workplace):
    workplace.select()
    again = workplace.select(force=True)
    assert again.manifest["evidence"]["features"]["num_computed"] == 16
    assert [e["evidence"] for e in read_timings(again.run)] == ["features", None]


def test_smaller_budget_is_nested(workplace):
    small = workplace.select(selection__budget=0.1)
    large = workplace.select(selection__budget=0.3)
    assert uids(small) < uids(large)


@pytest.mark.parametrize("scorer", ["random", "length"])
def test_other_scorers_need_no_model(workplace, no_model, scorer):
    no_model()
    result = workplace.select(selection__scorer=scorer)
    assert result.manifest["num_selected"] == 14


@pytest.mark.parametrize("scorer", ["prism", "random"])
def test_every_scorer_leaves_out_the_same_records(workplace, scorer):
    """Otherwise a baseline would choose from another pool than the method it is compared with."""
    break_image(workplace, "missing")
    records = workplace.records()
    records[4]["conversations"][0]["value"] = "<image>" + "long " * 2000
    workplace.write_records([*records, records[0], records[3]])
    policy = {f"data__policy__{r}": "skip" for r in ("image_missing", "no_label", "duplicate")}
    result = workplace.select(selection__scorer=scorer, **policy)
    assert result.manifest["num_skipped"] == {"duplicate": 2, "image_missing": 1, "no_label": 1}
    assert not any(row["selected"] for row in result.scores if row["reason"] in policy)
    assert result.manifest["num_selected"] == 13  # half of 22 images, and two of text


def test_duplicates_and_odd_images_are_kept_by_default(workplace):
    image = workplace.images / "3.png"
    Image.open(image).save(image, format="JPEG")
    workplace.write_records([*workplace.records(), workplace.records()[0]])
    assert workplace.select().manifest["num_skipped"] == {}
    with pytest.raises(UserError, match=r"1 bad record\n  image_wrong_type: .*shape-3"):
        workplace.select(data__policy__image_wrong_type="fail")
    with pytest.raises(UserError, match=r"1 bad record\n  duplicate: .*record 26"):
        workplace.select(data__policy__duplicate="fail")


def test_images_are_read_once_for_all_runs(workplace, monkeypatch):
    workplace.select(selection__scorer="random")
    monkeypatch.setattr(image_index, "examine_image", lambda *_: pytest.fail("read"))
    workplace.select(selection__scorer="random", name="second")
    workplace.select(name="third")


def test_other_pictures_are_selected_from_anew(workplace, caplog):
    """As files of the same names: in another folder, or in place of the old ones."""
    first = workplace.select()
    others = workplace.root / "others"
    shutil.copytree(workplace.images, others)
    for number in range(8):
        image = Image.open(others / f"{number}.png")
        ImageOps.invert(image.convert("RGB")).save(others / f"{number}.png")
    with caplog.at_level(logging.INFO):
        second = workplace.select(data__image_dir=str(others))
    assert "select: runs again (changed: images)" in caplog.text
    fresh = workplace.select(name="fresh", data__image_dir=str(others))
    assert_same_selection(second, fresh)
    assert [r["feature"] for r in second.scores] != [r["feature"] for r in first.scores]
    shutil.copy(others / "12.png", workplace.images / "12.png")  # touched, and the same
    caplog.clear()
    with caplog.at_level(logging.INFO):
        third = workplace.select()
        shutil.copy(others / "3.png", workplace.images / "5.png")
        workplace.select()
    assert_same_selection(third, first)
    assert caplog.text.count("select: runs again (changed: images)") == 2


def test_the_same_pictures_elsewhere_are_the_same_selection(workplace, caplog):
    workplace.select()
    shutil.copytree(workplace.images, workplace.root / "moved")
    with caplog.at_level(logging.INFO):
        workplace.select(data__image_dir=str(workplace.root / "moved"))
    assert "select: already finished with the same inputs, skipped" in caplog.text


@pytest.mark.parametrize(
    "override",
    [
        {"data__columns__conversations": "other_turns"},
        {"data__columns__text": "other"},
        {"data__columns__id": "other_id"},
        {"data__source": "image_folder"},
        {"data__source_names__shape": "form"},
    ],
)
def test_records_read_otherwise_are_selected_from_anew(workplace, override, caplog):
    """The answer column, say: the file is the same, what is read of it is not."""
    records = workplace.records()
    for number, record in enumerate(records):
        record["other_id"] = f"other-{number}"
        for turn in record["conversations"]:
            turn["other"] = f"{turn['value']} really"
        record["other_turns"] = [
            {"from": turn["from"], "value": turn["other"]} for turn in record["conversations"]
        ]
    workplace.write_records(records)
    workplace.select()
    with caplog.at_level(logging.INFO):
        changed = workplace.select(**override)
    assert "select: runs again (changed: pool)" in caplog.text
    assert_same_selection(workplace.select(**override, name="fresh"), changed)


def test_random_depends_on_the_seed_alone(workplace):
    one = workplace.select(selection__scorer="random")
    workplace.write_records(workplace.records()[::-1])
    same = workplace.select(selection__scorer="random", name="turned")
    other = workplace.select(selection__scorer="random", name="seed1", seed=1)
    assert uids(one) == uids(same)
    assert uids(one) != uids(other)


def test_length_counts_answer_tokens(workplace):
    records = [r for r in workplace.records() if r["source"] == "shape"]
    records[0]["conversations"][1]["value"] = "yes " * 30
    workplace.write_records(records)
    result = workplace.select(
        selection__scorer="length", selection__keep="high", selection__budget=1
    )
    assert result.subset == records[:1]
    assert result.scores[0]["score"] >= 30


def test_unknown_scorer_names_the_known(workplace):
    with pytest.raises(ConfigError, match="prism, alignment, random, length"):
        workplace.select(selection__scorer="prysm")


def test_too_deep_layer_is_refused(workplace):
    with pytest.raises(UserError, match="4 decoder layers"):
        workplace.select(selection__layer=5)


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_broken_image_fails_by_default_and_names_the_record(workplace, how):
    break_image(workplace, how)
    with pytest.raises(UserError, match=rf"image_{how}[\s\S]*shape-3"):
        workplace.select()


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_broken_image_is_skipped_and_listed_where_the_policy_says_so(workplace, how):
    break_image(workplace, how)
    result = workplace.select(**{f"data__policy__image_{how}": "skip"})
    assert result.manifest["num_skipped"] == {f"image_{how}": 1}
    assert result.manifest["skipped"][0]["id"] == "shape-3"
    row = next(row for row in result.scores if row["id"] == "shape-3")
    assert (row["selected"], row["reason"], row["score"]) == (False, f"image_{how}", None)
    # 23 image records are left: half of 23, rounded half up, and two of text.
    assert result.manifest["num_selected"] == 14


def break_image(workplace, how):
    path = workplace.images / "3.png"
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(("budget", "message"), [(25, "24 image records"), (0.001, "keeps none")])
def test_impossible_budget_is_refused_before_any_computing(workplace, no_model, budget, message):
    no_model()
    with pytest.raises(UserError, match=message):
        workplace.select(selection__budget=budget)


def test_text_only_pool_is_kept_whole(workplace, no_model):
    workplace.write_records([r for r in workplace.records() if "image" not in r])
    assert workplace.select(selection__scorer="random").manifest["num_selected"] == 2
    assert workplace.select(name="prism").manifest["num_selected"] == 2


def test_joint_features_differ_between_questions_on_one_image(workplace):
    result = workplace.select(selection__features="joint", selection__scope="global")
    scores = {row["id"]: row["score"] for row in result.scores}
    assert result.manifest["evidence"]["features"]["num_units"] == 24
    assert scores["shape-4"] != scores["colour-4"]


def test_stage_says_what_changed(workplace, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("prism_tune"), "propagate", True)
    workplace.select()
    with caplog.at_level(logging.INFO, logger="prism_tune"):
        workplace.select(selection__budget=0.25)
    assert "changed: selection.budget" in caplog.text


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_subset_is_named_by_the_format_of_its_pool(workplace, suffix):
    """And it takes the place of one that a pool of another format left."""
    before = workplace.select(name="run", selection__scorer="random")
    assert before.run.subset.name == "subset.json"
    (before.run.exports / "trl").mkdir(parents=True)  # of that subset
    path, records = workplace.pool.with_suffix(suffix), workplace.records()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    run = workplace.run_dir()
    config = workplace.config(data__records=path, selection__scorer="random")
    select_module.select(config, run)
    assert [found.name for found in run.selection.glob("subset.*")] == [f"subset{suffix}"]
    assert not run.exports.exists()
    if suffix == ".parquet":
        kept = [row["id"] for row in pq.read_table(run.subset).to_pylist()]
    else:
        kept = [json.loads(line)["id"] for line in run.subset.read_text().splitlines()]
    assert kept == [record["id"] for record in before.subset]


def test_a_selection_that_fails_leaves_the_finished_one_as_it_is(workplace, monkeypatch):
    finished = workplace.select()
    monkeypatch.setattr(extractor, "load_shallow", lambda *_, **__: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):  # noqa: PT011 - the fault has no words
        workplace.select(selection__layer=2)
    after = workplace.read(finished.run)
    assert (after.subset, after.manifest) == (finished.subset, finished.manifest)
    assert select_module.Stage(finished.run.selection).config().selection.layer == 1
    assert not any(entry["finished"] for entry in read_timings(finished.run)[-1:])


@pytest.mark.parametrize("name", ["subset.json", "scores.parquet"])
@pytest.mark.parametrize("damage", ["delete", "cut"])
def test_outputs_that_are_gone_or_cut_are_written_again(workplace, no_model, caplog, name, damage):
    finished = workplace.select()
    no_model()
    path = finished.run.selection / name
    content = path.read_bytes()
    path.unlink() if damage == "delete" else path.write_bytes(content[:100])
    with caplog.at_level("INFO", logger="prism_tune"):
        again = workplace.select()
    assert f"select: runs again (not as it left them: {name})" in caplog.messages
    assert again.subset == finished.subset
    assert path.read_bytes() == content

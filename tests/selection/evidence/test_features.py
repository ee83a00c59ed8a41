"""Extraction against the full model, the store's promises, prefix and fallback."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from prism_tune.config.sections import ModelConfig
from prism_tune.data.images import open_image
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.features.shards import read_shard
from prism_tune.models.load import load_model, load_shallow
from prism_tune.models.processor import load_processor
from prism_tune.run.folder import read_json
from prism_tune.selection.evidence import shallow as extractor_module
from prism_tune.selection.evidence import store as feature_store
from prism_tune.selection.evidence.encoding import encode
from prism_tune.selection.evidence.features import compute_features
from prism_tune.selection.evidence.prefix_check import prefix_is_exact
from prism_tune.selection.evidence.prompts import build_prompt
from prism_tune.selection.evidence.runner import Batches
from prism_tune.selection.evidence.shallow import Extractor, pool_positions
from prism_tune.selection.evidence.source import Gathering
from prism_tune.selection.meter import SelectionMeter


def extract(workplace, *, force=False, **overrides):
    config = workplace.config(**overrides)
    links = workplace.run_dir(**overrides).next_evidence
    pool = open_pool(config.data)
    return compute_features(Gathering(config, pool, SelectionMeter(None), links, force), {})


def shard_of(evidence):
    """The only shard, its rows and what it says of itself."""
    ((shard, share),) = evidence.readings[0].shards
    assert share == 1
    return load_file(shard.path)["rows"], read_shard(shard.path)


def layer_rows(workplace, layer):
    """Of a run that asks for one layer that is there already."""
    table = extract(workplace, selection__layer=layer)
    assert table.readings[0].num_computed == 0
    return table


def hidden_states_of_full_model(workplace, index, kind):
    """Mean over the image tokens of every hidden state, by the whole model, head and all."""
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    processor = load_processor(config.model)
    pool = open_pool(config.data)
    prompt = build_prompt(pool[index], kind, "vicuna_v1", processor)
    images = [open_image(path) for path in pool.image_paths(index)]
    inputs = processor(images=images, text=[prompt.text], return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    return [state[0, is_image].mean(dim=0).numpy() for state in states]


@pytest.mark.parametrize("kind", ["prefix", "whole"])
def test_every_layer_equals_the_full_models_hidden_state(workplace, kind):
    """k = 0 is the embeddings, k = L is behind the final norm; whole prompts give the same."""
    expected = hidden_states_of_full_model(workplace, 0, kind)
    assert len(expected) == 5
    extract(workplace, selection__options="{layers: [0, 1, 2, 3, 4]}")
    for layer in range(5):
        table = layer_rows(workplace, layer)
        row = table.values_UD[slice(0, 16)][table.row_N[0]]
        np.testing.assert_allclose(row, expected[layer], rtol=1e-4, atol=1e-5)


def test_several_layers_in_one_pass(workplace):
    one_pass = extract(workplace, selection__options="{layers: [0, 4]}")
    assert one_pass.description["layers"] == [0, 1, 4]
    for layer in (0, 1, 4):
        alone = extract(workplace, **workplace.elsewhere(f"alone{layer}"), selection__layer=layer)
        together = layer_rows(workplace, layer)
        np.testing.assert_allclose(
            together.values_UD[slice(0, 16)], alone.values_UD[slice(0, 16)], rtol=1e-5, atol=1e-6
        )


def test_a_pass_computes_what_one_of_its_layers_lacks(workplace):
    extract(workplace)
    more = extract(workplace, selection__layer=2, selection__options="{layers: [1]}")
    assert more.readings[0].num_computed == 16
    assert len(workplace.shards()) == 2  # layer 1 has kept its own


def test_bad_list_of_layers_is_refused(workplace):
    with pytest.raises(ConfigError, match=r"selection\.options\.layers"):
        extract(workplace, selection__options="{layers: deep}")


def test_each_distinct_image_is_computed_once(workplace):
    (workplace.images / "copy.png").write_bytes((workplace.images / "5.png").read_bytes())
    records = workplace.records()
    records.append({**records[0], "id": "copied", "image": "copy.png"})
    workplace.write_records(records)
    table = extract(workplace)
    assert shard_of(table)[1].counts["images"] == 16
    five = next(i for i, r in enumerate(records) if r["id"] == "shape-5")
    assert table.row_N[-1] == table.row_N[five]
    assert table.row_N.tolist().count(-1) == 2


def test_text_before_the_image_is_part_of_the_prefix(workplace):
    records = workplace.records()[:1]
    late = {**records[0], "id": "late"}
    question = {"from": "human", "value": "what is this?\n<image>"}
    late["conversations"] = [question, *late["conversations"][1:]]
    workplace.write_records([*records, late])
    assert extract(workplace, data__image_place="keep").readings[0].num_units == 2
    assert extract(workplace).readings[0].num_units == 1  # to the front, as LLaVA has it


def test_tokens_counted_are_the_prefix_only(workplace):
    counts = shard_of(extract(workplace))[1].counts
    processor = load_processor(workplace.config().model)
    pool = open_pool(workplace.config().data)
    prompt = build_prompt(pool[0], "prefix", "vicuna_v1", processor)
    assert prompt.text.endswith("USER: <image>")
    num_tokens = len(encode(prompt, [open_image(pool.image_paths(0)[0])], processor).pooled_L)
    assert counts["tokens"] == 16 * num_tokens
    assert counts["flops"] > 0


def test_joint_pools_image_and_question_but_not_answer(workplace):
    pool = open_pool(workplace.config().data)
    processor = load_processor(workplace.config().model)
    prompt = build_prompt(pool[0], "joint", "vicuna_v1", processor)
    encoded = encode(prompt, [open_image(pool.image_paths(0)[0])], processor)
    ids = encoded.inputs["input_ids"][encoded.pooled_L]
    assert processor.tokenizer.decode(ids) == "<image>" * 4 + "what shape is image 0?"
    assert prompt.text.endswith("what shape is image 0?")


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [5.0, 30.0], [9.0, 90.0]]])
    mask = torch.tensor([[False, True, True, False]])
    assert pool_positions(hidden, mask, "mean").tolist() == [[4.0, 25.0]]
    assert pool_positions(hidden, mask, "last").tolist() == [[5.0, 30.0]]


def test_bfloat16_is_pooled_in_float32():
    hidden = torch.ones(1, 1024, 1, dtype=torch.bfloat16)
    hidden[0, 0] = 2
    mask = torch.ones(1, 1024, dtype=torch.bool)
    assert pool_positions(hidden, mask, "mean").item() == 1025 / 1024


def make_extractor(workplace):
    config: ModelConfig = workplace.config().model
    processor = load_processor(config)
    model = load_shallow(config, 2, dtype=torch.float32)
    return Extractor(model, processor, (2,), "mean"), processor


def encode_some(workplace, processor, num_records=5):
    pool = open_pool(workplace.config().data)
    indices = [i for i in range(len(pool)) if not pool.is_text_only_N[i]][:num_records]
    return [
        encode(
            build_prompt(pool[i], "whole", "vicuna_v1", processor),
            [open_image(path) for path in pool.image_paths(i)],
            processor,
        )
        for i in indices
    ]


def test_padding_and_batching_do_not_change_a_feature(workplace):
    extractor, processor = make_extractor(workplace)
    batch = encode_some(workplace, processor)
    assert len({len(unit.pooled_L) for unit in batch}) > 1
    (together,) = extractor.run_batch(batch)
    alone = torch.cat([extractor.run_batch([unit])[0] for unit in batch])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_out_of_memory_halves_the_batch_and_goes_on(workplace):
    extractor, processor = make_extractor(workplace)
    batch = encode_some(workplace, processor)
    (expected,) = extractor.run_batch(batch)
    batches = Batches(1000)

    def run_small_only(units):
        if len(units) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return extractor.run_batch(units)

    (found,) = batches.run(run_small_only, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert batches.tokens_per_batch == 250

    def never(units):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="out of memory with one record"):
        batches.run(never, batch)


def check_prefix(workplace, extractor, processor):
    pool = open_pool(workplace.config().data)
    records = [i for i in range(8) if not pool.is_text_only_N[i]]
    return prefix_is_exact(extractor, pool, records, "vicuna_v1", processor)


def test_prefix_is_enough_for_causal_attention(workplace):
    assert check_prefix(workplace, *make_extractor(workplace))


def see_everything(model):
    """Make attention bidirectional, as prefix language models have it over their prompt."""
    decoder = model.language_model
    for layer in decoder.layers:
        layer.self_attn.is_causal = False
    forward = decoder.forward

    def without_mask(*args, **options):
        embeds = options["inputs_embeds"]
        length = embeds.shape[1]
        options["attention_mask"] = torch.zeros(len(embeds), 1, length, length)
        return forward(*args, **options)

    decoder.forward = without_mask
    return model


def test_model_that_sees_the_question_falls_back_to_whole_prompts(workplace, monkeypatch):
    load = extractor_module.load_shallow
    monkeypatch.setattr(
        extractor_module, "load_shallow", lambda *a, **o: see_everything(load(*a, **o))
    )
    table = extract(workplace, selection__layer=2)
    assert table.description["prompt"] == "whole"
    assert table.readings[0].num_units == 24


def test_a_pool_of_text_alone_decides_nothing_for_the_next_one(workplace, monkeypatch):
    """The same model below the same folder: with no image there is nothing to compare."""
    load = extractor_module.load_shallow
    monkeypatch.setattr(
        extractor_module, "load_shallow", lambda *a, **o: see_everything(load(*a, **o))
    )
    records = workplace.records()
    workplace.write_records([record for record in records if "image" not in record])
    extract(workplace, selection__layer=2)
    workplace.write_records(records)
    assert extract(workplace, selection__layer=2).description["prompt"] == "whole"


class KilledError(Exception):
    pass


def test_killed_run_resumes_at_the_last_finished_shard(workplace, monkeypatch):
    monkeypatch.setattr(feature_store, "UNITS_PER_SHARD", 3)
    whole = extract(workplace, **workplace.elsewhere())
    write = feature_store.EvidenceStore.write_shard

    def kill_fourth(store, *arguments):
        if len(store.shards()) == 3:
            raise KilledError
        write(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store.EvidenceStore, "write_shard", kill_fourth)
        with pytest.raises(KilledError):
            extract(workplace)
    assert len(workplace.shards()) == 3
    resumed = extract(workplace)
    assert resumed.readings[0].num_computed == 3 + 3 + 1
    names = [[p.name for p in workplace.shards(output_dir=d)] for d in ("runs", "elsewhere")]
    assert names[0] == names[1]
    np.testing.assert_array_equal(resumed.row_N, whole.row_N)
    np.testing.assert_array_equal(resumed.values_UD[slice(0, 16)], whole.values_UD[slice(0, 16)])


def test_crash_while_writing_leaves_no_shard(workplace, monkeypatch):
    def crash(*args, **options):
        save_file(*args, **options)
        raise KilledError

    monkeypatch.setattr(feature_store, "save_file", crash)
    with pytest.raises(KilledError):
        extract(workplace)
    monkeypatch.undo()
    assert workplace.shards() == []


def test_grown_pool_computes_new_images_only(workplace):
    records = workplace.records()
    workplace.write_records([r for r in records if r.get("image") not in ("3.png", "4.png")])
    extract(workplace)
    workplace.write_records(records)
    table = extract(workplace)
    assert table.readings[0].num_computed == 2
    assert (table.row_N >= 0).sum() == 24


def test_changed_image_file_is_computed_anew(workplace):
    before = extract(workplace)
    (workplace.images / "3.png").write_bytes((workplace.images / "4.png").read_bytes())
    after = extract(workplace)
    records = workplace.records()
    three, four = (
        next(i for i, r in enumerate(records) if r["id"] == f"shape-{n}") for n in (3, 4)
    )
    assert before.row_N[three] != before.row_N[four]
    assert after.row_N[three] == after.row_N[four]
    assert after.readings[0].num_computed == 0


@pytest.mark.parametrize(
    "change",
    [
        {"selection__pooling": "last"},
        {"selection__dtype": "bfloat16"},
        {"selection__layer": 2},
        {"selection__features": "joint"},
        {"model__image_aspect_ratio": "processor"},
    ],
)
def test_features_of_other_settings_lie_beside_one_another(workplace, change):
    before = extract(workplace)
    other = extract(workplace, **change)
    assert other.readings[0].num_computed > 0
    again = extract(workplace)
    assert again.readings[0].num_computed == 0
    assert again.readings[0].store.folder == before.readings[0].store.folder
    assert other.readings[0].store.folder != before.readings[0].store.folder
    assert extract(workplace, **change).readings[0].num_computed == 0


def test_a_model_that_moved_is_the_same_and_one_that_changed_is_another(
    workplace, tiny_llava_dir, tmp_path
):
    extract(workplace)
    other = shutil.copytree(tiny_llava_dir, tmp_path / "other")
    assert extract(workplace, model__path=other).readings[0].num_computed == 0
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, other / "model.safetensors")
    assert extract(workplace, model__path=other).readings[0].num_computed == 16


def test_force_computes_this_pools_features_anew_and_leaves_the_others(workplace, monkeypatch):
    monkeypatch.setattr(feature_store, "UNITS_PER_SHARD", 4)
    records = workplace.records()
    extract(workplace)
    first = {path: path.stat().st_mtime_ns for path in workplace.shards()}
    workplace.write_records(records[:2])  # one image
    forced = extract(workplace, force=True)
    assert forced.readings[0].num_computed == 1
    kept = [path for path in workplace.shards() if first.get(path) == path.stat().st_mtime_ns]
    assert len(kept) == 3
    workplace.write_records(records)
    assert extract(workplace).readings[0].num_computed == 3


def test_the_store_says_what_its_rows_depend_on(workplace):
    manifest = read_json(extract(workplace).readings[0].store.manifest)
    assert manifest["depends_on"].keys() == {
        *("model", "model.attn_implementation", "model.trust_remote_code", "model.template"),
        *("model.image_aspect_ratio", "model.image_backend"),
        *("selection.features", "selection.layer"),
        *("selection.pooling", "selection.dtype", "version"),
    }
    assert (manifest["kind"], manifest["prompt"]) == ("features", "prefix")
    assert manifest["preprocessing"]["crop_size"] == {"height": 28, "width": 28}


def test_stored_rows_are_read_across_shards(workplace, monkeypatch):
    monkeypatch.setattr(feature_store, "UNITS_PER_SHARD", 3)
    values = extract(workplace).values_UD
    everything = values[slice(0, 16)]
    assert everything.shape == (16, 32)
    pieces = [values[slice(start, start + 4)] for start in range(0, 16, 4)]
    np.testing.assert_array_equal(np.concatenate(pieces), everything)


def test_worker_processes_give_the_same_features(workplace):
    alone = extract(workplace)
    helped = extract(workplace, **workplace.elsewhere(), data__num_workers=2)
    np.testing.assert_array_equal(alone.values_UD[slice(0, 16)], helped.values_UD[slice(0, 16)])

"""prism_tune as a library: what it offers, what it returns, and the run folder it leaves."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from support.evaluation_runs import draw_benchmarks
from typer.testing import CliRunner

import prism_tune as pt
from prism_tune.api import configure
from prism_tune.cli.app import app
from prism_tune.config.sections import Config
from prism_tune.run.folder import read_json
from prism_tune.run.stage import Stage
from prism_tune.selection.export.layouts import export_run

PACKAGE = Path(pt.__file__).parent
ON_FEATURES = [
    "prism",
    "kernel_prism",
    "kernel_repulsion",
    "leverage",
    "kcenter",
    "kmeanspp",
    "semdedup",
    "presel",
    "d2",
    "alignment",
    "random",
]


@pytest.fixture(scope="module")
def pool(drawn_pool):
    return pt.open_pool(drawn_pool, image_dir=drawn_pool.parent / "images", num_workers=0)


@pytest.fixture(scope="module")
def subset(pool, tiny_llava_dir, tmp_path_factory):
    """A finished selection by `random`: a third of 24 image records, and 2 of text only."""
    runs = tmp_path_factory.mktemp("runs")
    return pt.select(pool, model=tiny_llava_dir, scorer="random", budget=1 / 3, output_dir=runs)


def test_the_import_is_light_and_its_names_are_typed():
    code = "import sys, prism_tune; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "pyarrow", "pydantic"} & set(shown.stdout.split()) == set()
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    typed = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    offered = {name: f"prism_tune.{where}.{name}" for name, where in pt._LIBRARY.items()}
    assert typed == offered
    assert set(offered) <= set(dir(pt))
    assert (PACKAGE / "py.typed").exists()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'prism_tune' has no attribute 'selekt'"):
        pt.selekt  # noqa: B018


def test_no_offered_name_is_a_room():
    """`import prism_tune.audit` would put the room in the function's place."""
    assert not {path.name for path in PACKAGE.iterdir()} & set(pt._LIBRARY)


def test_a_subset_has_records_scores_and_reasons(pool, subset):
    assert repr(subset) == "Subset(10 of 26 records, random)"
    assert len(subset) == len(subset.indices) == 10
    assert subset.scores.shape == (len(pool),)
    assert np.isnan(subset.scores).tolist() == pool.is_text_only_N.tolist()
    assert [record.uid for record in subset] == [pool.uids[i] for i in subset.indices]
    assert subset[0] == pool[int(subset.indices[0])]
    assert subset.ids == [pool.ids[i] for i in subset.indices]
    assert [reason for reason in subset.reasons if reason == "text_only"] == ["text_only"] * 2
    kept = np.flatnonzero(~np.isnan(subset.scores[subset.indices]))
    assert subset.scores[subset.indices][kept].max() < np.nanmax(subset.scores)


def test_it_leaves_the_run_folder_of_the_command_line(subset, tmp_path):
    config = subset.run.selection / "config.yaml"
    done = CliRunner().invoke(app, ["select", str(config), f"output_dir={tmp_path}"])
    assert done.exit_code == 0, done.output
    other = tmp_path / subset.run.root.name
    files = {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()}
    assert files == {
        str(path.relative_to(subset.run.root))
        for path in subset.run.root.rglob("*")
        if path.is_file() and "exports" not in path.parts
    }
    assert "log.txt" in files
    for name in ("subset.json", "scores.parquet"):
        assert (other / "selection" / name).read_bytes() == (
            subset.run.selection / name
        ).read_bytes()
    records = [Stage(folder / "selection").record() for folder in (other, subset.run.root)]
    assert records[0]["inputs"] == records[1]["inputs"]


def test_the_command_line_and_the_library_skip_what_the_other_finished(subset, pool, caplog):
    before = (subset.run.selection / "stage.json").stat().st_mtime_ns
    with caplog.at_level("INFO", logger="prism_tune"):
        again = pt.select(subset.config)
        same = pt.select(
            pool,
            model=subset.config.model.path,
            scorer="random",
            budget=np.float64(1 / 3),
            output_dir=Path(subset.config.output_dir),
        )
    assert again.run == same.run == subset.run
    assert caplog.messages.count("select: already finished with the same inputs, skipped") == 2
    assert (subset.run.selection / "stage.json").stat().st_mtime_ns == before


def test_other_settings_are_another_run(pool, subset, tiny_llava_dir):
    """So that a loop over budgets does not overwrite the subsets that it has made."""
    config = subset.config
    smaller = pt.select(config, budget=2, name="smaller")
    settings = {"scorer": "random", "output_dir": config.output_dir}
    other = pt.select(pool, model={"path": str(tiny_llava_dir)}, budget=2, **settings)
    assert smaller.run.root.name == "smaller"
    assert other.run != subset.run
    assert smaller.ids == other.ids
    assert set(other.ids) < set(subset.ids)


def test_what_is_wrong_with_a_setting_is_said(pool):
    with pytest.raises(pt.ConfigError, match=r"unknown key `bugdet`"):
        pt.select(pool, model="m", bugdet=0.2)
    with pytest.raises(pt.ConfigError, match=r"`selection\.budget` = 2\.0: expected a fraction"):
        pt.select(pool, model="m", budget=2.0)
    with pytest.raises(pt.ConfigError, match="`model` is missing"):
        pt.select(pool)
    with pytest.raises(pt.ConfigError, match=r"unknown key `colums`; did you mean `columns`"):
        pt.open_pool("pool.json", colums={})
    with pytest.raises(pt.UserError, match="no such file"):
        pt.open_pool("absent.json")


CONFIG = Config.model_validate(
    {
        "name": "mine",
        "model": {"path": "m", "template": "chatml"},
        "data": {"records": "pool.json"},
        "selection": {"scorer": "kernel_repulsion", "options": {"beta": 4.0, "gamma": 1.0}},
        "training": {"hf": {"learning_rate": 1e-4, "max_steps": 9}, "freeze": ["projector"]},
        "evaluation": {"data": {"pope": {"annotations": "pope", "limit": 3}}},
    }
)


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ({"hf": {"max_steps": 5}}, "training.hf", {"learning_rate": 1e-4, "max_steps": 5}),
        ({"training.hf.max_steps": 5}, "training.hf", {"learning_rate": 1e-4, "max_steps": 5}),
        ({"hf.max_steps": 5}, "training.hf", {"learning_rate": 1e-4, "max_steps": 5}),
        ({"training": {"hf": {"bf16": True}}}, "training.hf.learning_rate", 1e-4),
        ({"freeze": ["vision_tower"]}, "training.freeze", ["vision_tower"]),
        ({"options.beta": 2.0}, "selection.options", {"beta": 2.0, "gamma": 1.0}),
        ({"options": {"beta": 2.0}}, "selection.options", {"beta": 2.0, "gamma": 1.0}),
        ({"scorer": "d2", "options": {"gamma": 2}}, "selection.options", {"gamma": 2}),
        ({"scorer": "d2", "selection.options.gamma": 2}, "selection.options", {"gamma": 2}),
        ({"evaluation.data.pope.limit": 2}, "evaluation.data.pope.annotations", "pope"),
        ({"evaluation.data.pope": {"limit": 2}}, "evaluation.data.pope.limit", 2),
        ({"evaluation.data": {"gqa": {"annotations": Path("g")}}}, "evaluation.data.pope.limit", 3),
        ({"reference": {"model": Path("r")}}, "selection.reference.model", "r"),
        ({"reference.warmup.share": 0.5}, "selection.reference.warmup.share", 0.5),
        ({"model": {"path": "other"}}, "model.template", "auto"),
    ],
)
def test_settings_are_keys_of_any_depth_and_go_into_what_is_there(settings, key, value):
    before = CONFIG.model_dump()
    found = configure(CONFIG, **settings).model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert CONFIG.model_dump() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"training.hff.max_steps": 5},
            r"unknown key `training\.hff`; did you mean `training\.hf`",
        ),
        ({"seed.deep": 5}, r"`seed` = \{'deep': 5\}: expected"),
        ({"evaluation.data.pope.limt": 5}, r"`evaluation\.data\.pope\.limt`; did you mean"),
        ({"selection": None}, "`selection` = None: expected"),
    ],
)
def test_a_deep_key_that_is_wrong_is_said_in_full(settings, message):
    with pytest.raises(pt.ConfigError, match=message):
        configure(CONFIG, **settings)


def test_keys_in_full_are_the_short_ones(pool, tmp_path):
    """Also where the library looks at them itself: `random` needs no model."""
    short = pt.select(pool, scorer="random", budget=3, output_dir=tmp_path)
    keys = {"selection.scorer": "random", "selection.budget": 3}
    assert pt.select(pool, output_dir=tmp_path, **keys).run == short.run


def test_scores_take_the_place_of_another_scorers_options(pool, tmp_path):
    matrix = np.random.default_rng(3).normal(size=(len(pool), 6)).astype(np.float32)
    settings = {"scorer": "kernel_repulsion", "options": {"beta": 4.0}, "output_dir": tmp_path}
    first = pt.select(pool, features=matrix, budget=6, **settings)
    again = pt.select(first.config, scores=np.arange(len(pool)), name="scored")
    assert list(again.config.selection.options) == ["path"]
    assert again.config.selection.scorer == "file"


def test_a_subset_is_saved_as_it_stands_or_for_a_trainer(subset, tmp_path):
    subset.save(tmp_path / "subset.json")
    assert (tmp_path / "subset.json").read_bytes() == subset.run.subset.read_bytes()
    subset.save(tmp_path / "lines.jsonl")
    lines = (tmp_path / "lines.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == read_json(tmp_path / "subset.json")
    subset.save(tmp_path / "mine.json", "llamafactory")
    assert read_json(tmp_path / "dataset_info.json")["mine"]["formatting"] == "sharegpt"
    with pytest.raises(pt.UserError, match=r"expected a name in \.json or \.jsonl, or one of the"):
        subset.save(tmp_path / "subset.parquet")


def test_a_record_over_several_lines_is_one_line_of_json_lines(tmp_path, tiny_llava_dir):
    turns = [{"from": "human", "value": "a\nb"}, {"from": "gpt", "value": " c  d"}]
    records = [{"id": "1", "conversations": turns, "n": 1 << 70}]
    (tmp_path / "pool.json").write_text(json.dumps(records, indent=2))
    found = pt.select(
        pt.open_pool(tmp_path / "pool.json"),
        model=tiny_llava_dir,
        scorer="random",
        output_dir=tmp_path,
    )
    found.save(tmp_path / "lines.jsonl")
    (line,) = (tmp_path / "lines.jsonl").read_text().splitlines()
    assert json.loads(line) == records[0]


def test_a_record_without_id_is_called_by_its_place_in_the_pool(tmp_path):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    lines = [json.dumps({"conversations": turns, "n": n}) for n in range(4)]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    (tmp_path / "drop.txt").write_text("0\n2\n")
    subset = pt.select(
        pt.open_pool(tmp_path / "pool.jsonl"),
        scorer="random",
        must_drop=tmp_path / "drop.txt",
        output_dir=tmp_path,
    )
    assert subset.ids == [record.id for record in subset] == ["1", "3"]
    subset.save(tmp_path / "mine.json", "llava")
    export_run(subset.run, "messages", tmp_path / "mine.jsonl")
    for path in ("mine.json", "mine.jsonl"):
        assert pt.open_pool(tmp_path / path).ids == ["1", "3"]
    assert subset.to_dataset()["id"] == ["1", "3"]


def test_a_dataset_has_decoded_images(pool, subset):
    rows = subset.to_dataset()
    assert rows.column_names == ["id", "source", "images", "messages"]
    assert rows["id"] == subset.ids
    first = next(n for n, record in enumerate(subset) if record.images)
    assert rows[first]["images"][0].size == (40, 32)
    assert rows[first]["messages"][0]["content"][0] == {"type": "image", "text": None}


FORMS = {
    "array": np.asarray,
    "tensor": torch.from_numpy,
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("form", FORMS)
def test_features_of_ones_own_need_no_model(pool, tmp_path, form):
    """And the run can be repeated from its config, by the command line too."""
    matrix = np.random.default_rng(3).normal(size=(len(pool), 6)).astype(np.float32)
    options = {"scorer": "kcenter", "budget": 6, "output_dir": tmp_path}
    subset = pt.select(pool, features=FORMS[form](matrix), **options)
    assert len(subset) == 6 + 2
    given = Path(subset.config.selection.features_file)
    assert given.parent == tmp_path / "given"
    np.testing.assert_allclose(np.load(given), matrix)
    config = str(subset.run.selection / "config.yaml")
    done = CliRunner().invoke(app, ["select", config, "name=again"])
    assert done.exit_code == 0, done.output
    again = tmp_path / "again" / "selection" / "subset.json"
    assert again.read_bytes() == subset.run.subset.read_bytes()


def test_a_memory_map_is_read_where_it_is(pool, tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(3).normal(size=(len(pool), 6)))
    options = {"budget": 6, "output_dir": tmp_path}
    mapped = np.load(tmp_path / "mine.npy", mmap_mode="r")
    subset = pt.select(pool, features=mapped, **options)
    assert subset.config.selection.features_file == str(tmp_path / "mine.npy")
    named = pt.select(pool, features=tmp_path / "mine.npy", **options)
    assert (named.run, named.ids) == (subset.run, subset.ids)
    turned = pt.select(pool, features=mapped[::-1], **options)
    assert Path(turned.config.selection.features_file).parent == tmp_path / "given"


def test_a_memory_map_without_header_is_kept(pool, tmp_path):
    """`np.memmap` writes numbers alone, whatever the file is called."""
    matrix = np.random.default_rng(3).normal(size=(len(pool), 6)).astype(np.float32)
    shape = {"dtype": np.float32, "shape": matrix.shape}
    written = np.memmap(tmp_path / "mine.npy", mode="w+", **shape)
    written[:] = matrix
    for mapped in (written, np.memmap(tmp_path / "mine.npy", mode="r", **shape)):
        subset = pt.select(pool, features=mapped, budget=6, output_dir=tmp_path)
        given = Path(subset.config.selection.features_file)
        assert given.parent == tmp_path / "given"
        assert np.load(given).tolist() == matrix.tolist()


def test_a_memory_map_that_was_changed_in_memory_is_kept_as_it_is(pool, tmp_path):
    matrix = np.random.default_rng(3).normal(size=(len(pool), 6)) + 100
    np.save(tmp_path / "mine.npy", matrix)
    mapped = np.load(tmp_path / "mine.npy", mmap_mode="c")
    mapped -= 100
    subset = pt.select(pool, features=mapped, budget=6, output_dir=tmp_path)
    given = Path(subset.config.selection.features_file)
    assert np.load(given).tolist() == (matrix - 100).tolist()
    assert np.load(tmp_path / "mine.npy").tolist() == matrix.tolist()


def test_a_memory_map_whose_file_has_been_replaced_is_kept_as_it_is(pool, tmp_path):
    values = np.arange(len(pool), dtype=np.float64)
    np.save(tmp_path / "mine.npy", values)
    mapped = np.load(tmp_path / "mine.npy", mmap_mode="r")
    np.save(tmp_path / "other.npy", -values)
    (tmp_path / "other.npy").replace(tmp_path / "mine.npy")
    subset = pt.select(pool, scores=mapped, budget=6, output_dir=tmp_path)
    assert np.load(subset.config.selection.options["path"]).tolist() == values.tolist()


def test_scores_of_ones_own(pool, tmp_path):
    values = np.arange(len(pool), dtype=np.float64)
    subset = pt.select(pool, scores=values, budget=3, scope="global", output_dir=tmp_path)
    images = np.flatnonzero(~pool.is_text_only_N)
    assert set(subset.indices) == {*images[-3:], *np.flatnonzero(pool.is_text_only_N)}
    low = pt.select(pool, scores=values, budget=3, scope="global", keep="low", output_dir=tmp_path)
    assert set(images[:3]) <= set(low.indices)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"features": [[1.0, 2.0]]},
            r"features: 1 rows, but .*\.json has 26 records; give",
        ),
        ({"features": [1.0]}, "features: expected rows and columns of numbers"),
        ({"scores": [[1.0]]}, "scores: expected one number a row"),
    ],
)
def test_numbers_that_do_not_fit_the_pool(pool, tmp_path, given, message):
    with pytest.raises(pt.UserError, match=message):
        pt.select(pool, **given, output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def features_ND():
    return np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_every_selector_on_features_chooses_rows(features_ND, scorer):
    chosen = pt.select_rows(features_ND, scorer=scorer, budget=10)
    assert len(chosen.indices) == 10
    assert sorted(chosen.rank_N[chosen.indices].tolist()) == list(range(1, 11))
    assert chosen.scores_N.shape == (40,)
    fewer = pt.select_rows(features_ND, scorer=scorer, budget=0.1)
    assert len(fewer.indices) == 4
    if scorer != "d2":  # whose picks are of the budget's own graph walk
        assert set(fewer.indices) < set(chosen.indices)


@pytest.mark.parametrize(("scorer", "named"), [("prism", True), ("random", False)])
def test_rows_that_say_nothing_are_counted(features_ND, scorer, named):
    features_ND = features_ND.copy()
    features_ND[3] = np.nan
    groups = ["a"] * 39 + ["b"]
    found = pt.select_rows(features_ND, scorer=scorer, budget=8, groups=groups).diagnostics
    assert found["unranked"] == ({"feature_not_finite": 1, "alone": 1} if named else {})


def test_rows_that_are_all_the_same_are_no_choice():
    same = np.ones((10, 4), dtype=np.float32)
    with pytest.raises(pt.UserError, match=r"features of all rows are the same \(10 rows\)"):
        pt.select_rows(same, budget=3)
    assert len(pt.select_rows(same, scorer="random", budget=3).indices) == 3


def test_rows_in_any_form(features_ND, tmp_path):
    np.save(tmp_path / "features.npy", features_ND)
    forms = (
        np.load(tmp_path / "features.npy", mmap_mode="r"),
        np.asfortranarray(features_ND),
        features_ND.tolist(),
        torch.from_numpy(features_ND).requires_grad_(),
    )
    wanted = pt.select_rows(features_ND, scorer="kernel_repulsion", budget=8).indices.tolist()
    for form in forms:
        chosen = pt.select_rows(form, scorer="kernel_repulsion", budget=8)
        assert chosen.indices.tolist() == wanted
    half = torch.from_numpy(features_ND).bfloat16()
    assert len(pt.select_rows(half, budget=8).indices) == 8
    assert len(pt.select_rows(features_ND.astype(np.float16), budget=8).indices) == 8
    assert len(pt.select_rows((features_ND * 100).astype(np.int32), budget=8).indices) == 8


def test_rows_in_groups_keep_their_shares(features_ND):
    groups = ["a"] * 30 + ["b"] * 10
    chosen = pt.select_rows(features_ND, budget=0.2, groups=groups)
    assert [sum(n < 30 for n in chosen.indices), len(chosen.indices)] == [6, 8]


@pytest.mark.parametrize(
    "settings",
    [
        {"scorer": "presel"},
        {"scorer": "kernel_repulsion", "options": {"quota_power": 0.5}},
    ],
)
def test_methods_that_look_at_sources_take_the_groups_for_them(features_ND, settings):
    groups = ["a"] * 30 + ["b"] * 10
    chosen = pt.select_rows(features_ND, budget=8, groups=groups, **settings)
    assert len(chosen.indices) == 8
    assert {groups[n] for n in chosen.indices} == {"a", "b"}
    assert len(pt.select_rows(features_ND, budget=8, **settings).indices) == 8


def test_quotas_are_of_the_groups_and_cut_over_all(features_ND):
    groups = ["a"] * 30 + ["b"] * 10
    features_ND = np.concatenate([np.repeat(features_ND[:1], 30, axis=0), features_ND[30:]])
    options = {"quota_power": 1.0}
    chosen = pt.select_rows(
        features_ND, scorer="kernel_repulsion", budget=8, groups=groups, options=options
    )
    shares = chosen.diagnostics["quota_shares"]
    assert list(shares) == ["a", "b"]
    assert shares["b"] > 0.75
    assert sum(n >= 30 for n in chosen.indices) == round(8 * shares["b"])


def test_groups_have_no_say_where_the_scope_is_global(features_ND):
    groups = ["a"] * 30 + ["b"] * 10
    alone = pt.select_rows(features_ND, budget=8)
    together = pt.select_rows(features_ND, budget=8, groups=groups, scope="global")
    assert together.indices.tolist() == alone.indices.tolist()


def test_labels_of_several_kinds(features_ND):
    named = ["1"] * 30 + ["b"] * 10
    wanted = pt.select_rows(features_ND, budget=8, groups=named).indices.tolist()
    mixed = pt.select_rows(features_ND, budget=8, groups=[1] * 30 + ["b"] * 10)
    assert mixed.indices.tolist() == wanted


def test_ids_decide_not_places(features_ND):
    ids = [f"id-{n}" for n in range(40)]
    order = np.random.default_rng(1).permutation(40)
    wanted = {ids[n] for n in pt.select_rows(features_ND, scorer="random", ids=ids).indices}
    shuffled = pt.select_rows(features_ND[order], scorer="random", ids=[ids[n] for n in order])
    assert {ids[order[n]] for n in shuffled.indices} == wanted


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        ([[1.0, 2.0], [3.0]], {}, "not a table of numbers"),
        ([["a", "b"]], {}, "expected rows and columns of numbers, got the shape"),
        ([1.0, 2.0], {}, r"got the shape \(2,\)"),
        (np.zeros((0, 3)), {}, r"got the shape \(0, 3\)"),
        ([[1.0]], {"scorer": "perplexity"}, "perplexity: reads answer_losses, which a matrix"),
        ([[1.0]], {"scorer": "length"}, "length: reads the answers' tokens"),
        ([[1.0]], {"scorer": "prismm"}, "unknown scorer 'prismm'"),
        ([[1.0]], {"ids": ["a", "b"]}, "ids: 2 for 1 rows of features"),
        ([[1.0], [2.0]], {"ids": ["a", "a"]}, "ids: some occur twice"),
        ([[1.0], [2.0]], {"groups": ["b", None]}, r"groups: row 1 has no label \(None\); give"),
        ([[1.0], [2.0]], {"groups": [float("nan"), "b"]}, r"groups: row 0 has no label \(nan\)"),
        (
            [[1.0], [2.0]],
            {"must_keep": "/nope", "budgets": [0.1], "keep": "low"},
            "select_rows: budgets, must_keep: nothing that rows of a matrix can obey; beside "
            "scorer and budget it takes scope, centering, keep, options; the rest needs a pool",
        ),
        ([[1.0]], {"source_budgets": {"a": 2}}, "select_rows: source_budgets: nothing that rows"),
        ([[1.0]], {"features_file": "/nope.npy"}, "select_rows: features_file: nothing that rows"),
        ([[1.0]], {"reference": {"model": "m"}}, "select_rows: reference: nothing that rows"),
        ([[1.0]], {"options": {"layers": [2]}}, r"select_rows: options\.layers: nothing that rows"),
        ([[1.0]], {"bugdet": 2}, r"unknown key `selection\.bugdet`; did you mean"),
        ([[1.0]], {"budget": 1.5}, r"`selection\.budget` = 1\.5: expected a fraction"),
        ([[1.0], [2.0]], {"scorer": "alignment"}, "two features side by side, got 1 columns"),
        ([[1.0], [2.0]], {"scorer": "d2", "options": {"difficulty": "el2n"}}, "answer_losses"),
    ],
)
def test_what_no_rows_can_be_chosen_from(features, settings, message):
    with pytest.raises(pt.UserError, match=message):
        pt.select_rows(features, **settings)


def test_a_program_that_logs_for_itself_is_left_alone(subset):
    """Neither its console nor where messages go is changed."""
    logger = logging.getLogger("prism_tune")

    def shown():
        kept = [handler for handler in logger.handlers if not isinstance(handler, MemoryHandler)]
        return kept, logger.propagate

    before = shown()
    pt.select(subset.config)
    assert shown() == before


@pytest.mark.slow
def test_the_other_stages_run_in_the_subsets_folder(subset, tmp_path):
    quickstart = draw_benchmarks(tmp_path)
    data = {
        "quickstart": {
            "annotations": str(quickstart / "test.json"),
            "image_dir": str(quickstart / "images"),
        }
    }
    assert pt.audit_pool(subset.config)
    steps = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    checkpoint = pt.train(subset, tuning="projector", deepspeed=None, hf=steps, template="chatml")
    assert (checkpoint / "model.safetensors").exists()
    results = pt.evaluate(
        subset,
        tuning="projector",
        template="chatml",
        benchmarks=["quickstart"],
        **{"evaluation.data": data},
    )
    assert results["quickstart"]["num_examples"] == 12
    assert {path.name for path in subset.run.root.iterdir() if path.is_dir()} == {
        "audit",
        "selection",
        "training",
        "evaluation",
    }


def test_a_folder_at_home_is_one_and_the_same(pool, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    features = np.random.default_rng(0).normal(size=(len(pool), 4))
    subset = pt.select(pool, features=features, budget=4, output_dir="~/runs")
    assert subset.run.root.parent == tmp_path / "home" / "runs"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("given", [{"scorer": "random"}, {"selection": {"scorer": "random"}}])
def test_what_reads_no_model_needs_none_however_it_is_given(pool, tmp_path, given):
    assert len(pt.select(pool, budget=4, output_dir=tmp_path, **given).ids) == 6


def test_what_a_record_is_armed_with_does_not_count(pool, tiny_llava_dir, tmp_path):
    """A run folder may be a stranger's: none of it is obeyed unless the caller gives it."""
    model = {"path": str(tiny_llava_dir), "trust_remote_code": True}
    armed = {
        "serve_command": f"touch {tmp_path}/ran {{port}}",
        "backend": "openai",
        "training.hf": {"push_to_hub": True, "max_steps": 3},
        "compare": {"rows": [{"name": "theirs", "model": {"trust_remote_code": True}}]},
    }
    options = {"scorer": "random", "budget": 4, "output_dir": tmp_path / "runs"}
    subset = pt.select(pool, model=model, **options, **armed)
    found = pt.Subset(subset.run).config
    assert found.model.trust_remote_code is False
    assert found.training.hf == {"max_steps": 3}
    assert found.compare.rows == ({"name": "theirs", "model": {}},)
    mine = draw_benchmarks(tmp_path)
    data = {"annotations": str(mine / "test.json"), "image_dir": str(mine / "images")}
    asked = {"benchmarks": ["quickstart"], "evaluation.data": {"quickstart": data}}
    with pytest.raises(pt.ConfigError, match=r"^evaluation\.base_url: missing"):
        pt.evaluate(subset, tuning="none", **asked)
    assert not (tmp_path / "ran").exists()
    assert configure(found, **{"training.hf.push_to_hub": True}).training.hf["push_to_hub"]

"""Which runs a comparison consists of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.tiny import draw_image

from prism_tune.compare.files import look_at_files_again, look_at_folder
from prism_tune.compare.grid_cells import plan_before, plan_cells
from prism_tune.config.load import load_config, render_config
from prism_tune.errors import ConfigError
from prism_tune.run.folder import RunDir, write_json

TWO = {"selectors": ["random", "prism"], "budgets": [0.25, 4], "seeds": [0, 1]}


def plan(path, *overrides):
    config = load_config(path, overrides)
    return plan_cells(config, RunDir(path.parent / "runs/tiny"))


def test_cells_come_seed_by_seed_with_the_whole_pool_first(write_config):
    cells = plan(write_config({**TWO, "whole_pool": True}))
    assert [cell.config.name for cell in cells] == [
        "whole_pool-seed0",
        "random-0.25-seed0",
        "prism-0.25-seed0",
        "random-4-seed0",
        "prism-4-seed0",
        "whole_pool-seed1",
        "random-0.25-seed1",
        "prism-0.25-seed1",
        "random-4-seed1",
        "prism-4-seed1",
    ]
    assert [cell.verbs[0] for cell in cells[4:6]] == ["select", "train"]


def test_budgets_of_millions_and_of_millionths_have_folders_of_their_own(write_config, tmp_path):
    budgets = [1000000, 1000001, 5000, 0.05, 1e-05]
    cells = plan(write_config({"selectors": ["random"], "budgets": budgets}))
    assert [cell.config.name for cell in cells] == [
        "random-1000000-seed0",
        "random-1000001-seed0",
        "random-5000-seed0",
        "random-0.05-seed0",
        "random-1e-05-seed0",
    ]
    saved = tmp_path / "cell.yaml"
    for cell in cells:
        saved.write_text(render_config(cell.config))
        assert load_config(saved) == cell.config


ROWS = {
    "rows": ["prism", {"name": "pool", "training": {"records": "pool"}}],
    "variants": ["{}_small", {"name": "big_{}", "model": {"template": "phi"}, "model_name": "Big"}],
    "seeds": [0, 2],
    "metrics": [],
}


def test_rows_in_every_variant_are_runs_of_their_own(write_config):
    path = write_config(ROWS, evaluation={"benchmarks": []})
    cells = plan(path)
    assert [cell.run.root.name for cell in cells] == [
        f"{name}-seed{seed}"
        for seed in (0, 2)
        for name in ("prism_small", "pool_small", "big_prism", "big_pool")
    ]
    base = load_config(path)
    assert {str(cell.run.root.parent) for cell in cells} == {base.output_dir}
    last = cells[-1].config
    assert (last.training.records, last.model.template, last.seed) == ("pool", "phi", 2)
    assert (last.model.path, last.model_name, last.compare) == (base.model.path, "Big", None)
    assert [cell.verbs for cell in cells[:2]] == [("select", "train"), ("train",)]
    chosen = plan_cells(base, RunDir(path.parent / "runs/tiny"), ["big*", "nobody"])
    assert {cell.selector for cell in chosen} == {"big_prism", "big_pool"}


def test_a_row_that_two_grids_have_is_one_run_with_two_records(write_config, tmp_path):
    """The language table asks the main table's runs other questions."""
    path = write_config(ROWS)
    one, other = (
        plan_cells(load_config(path, overrides), RunDir(tmp_path / "runs" / grid))[0]
        for grid, overrides in (("main", []), ("language", ["evaluation.batch_size=2"]))
    )
    assert one.run == other.run
    one.finish(None)
    assert (one.state(), other.state()) == ("finished", None)
    other.finish(None)
    assert (one.state(), other.state()) == ("finished", "finished")


def test_what_has_changed_is_named(write_config):
    path = write_config(TWO)
    plan(path)[0].finish(None)
    assert plan(path)[0].changed() == []
    assert plan(path, "selection.layer=2")[0].changed() == ["subset"]
    assert plan(path, "training.lora.r=8")[0].changed() == ["model"]
    assert plan(path, "evaluation.batch_size=3")[0].changed() == ["answers"]
    assert plan(path, "tracking.project=x", "data.num_workers=1")[0].changed() == []


def test_other_pictures_under_the_same_names_are_a_change(write_config, drawn_pool, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(drawn_pool.parent, own)
    overrides = [f"data.records={own / drawn_pool.name}", f"data.image_dir={own}/images"]
    path = write_config(TWO)
    plan(path, *overrides)[0].finish(None)
    assert plan(path, *overrides)[0].state() == "finished"
    picture = next(file for file in (own / "images").rglob("*.*") if file.is_file())
    draw_image(picture, 77)
    look_at_files_again()
    assert plan(path, *overrides)[0].changed() == ["subset", "model"]


@pytest.mark.parametrize(
    ("selector", "file"),
    [
        ({"scorer": "file", "options": {"path": "{}/scores.npy"}}, "scores.npy"),
        ({"scorer": "clip_score", "options": {"model": "{}/clip"}}, "clip/config.json"),
    ],
)
def test_other_scores_or_another_encoder_under_the_same_name_are_a_change(
    write_config, tmp_path, selector, file
):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    options = {key: value.format(tmp_path) for key, value in selector["options"].items()}
    path = write_config({"selectors": [{**selector, "options": options}, "random"]})
    for cell in plan(path):
        cell.finish(None)
    (tmp_path / file).write_text('{"other": 1}')
    look_at_files_again()
    of_file, of_random = plan(path)[:2]
    assert of_file.changed() == ["subset"]
    assert (of_file.state(), of_random.state()) == (None, "finished")


def test_another_picture_of_a_question_is_a_change(write_config, questions, tmp_path):
    own = tmp_path / "pictures"
    shutil.copytree(questions["image_dir"], own)
    data = {"quickstart": {**questions, "image_dir": str(own)}}
    path = write_config(TWO, evaluation={"benchmarks": ["quickstart"], "data": data})
    cell = plan(path)[0]
    cell.finish(None)
    (own / "notes.txt").write_text("no picture")
    look_at_files_again()
    assert plan(path)[0].state() == "finished"
    picture = next(file for file in own.rglob("*.*") if file.suffix in (".png", ".jpg"))
    draw_image(picture, 77)
    look_at_files_again()
    assert plan(path)[0].changed() == ["pictures of the questions"]
    # A release that did not look at these pictures has left a record that still holds.
    record = json.loads((cell.folder / "cell.json").read_text())
    del record["inputs"]["pictures of the questions"]
    write_json(cell.folder / "cell.json", record)
    assert plan(path)[0].state() == "finished"


def test_pictures_below_a_linked_folder_count_and_loops_end(tmp_path):
    """As images are laid out from other disks: link -> elsewhere, and elsewhere/back -> here."""
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    own.mkdir()
    elsewhere.mkdir()
    draw_image(own / "a.png", 1)
    (own / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(own)
    before = look_at_folder(str(own))
    (elsewhere / "b.png").write_bytes(b"new")
    look_at_files_again()
    assert look_at_folder(str(own)) != before


def test_what_cells_start_from_comes_first_where_they_need_it(write_config, tmp_path):
    start = tmp_path / "start.yaml"
    begin = load_config(write_config(TWO, name="begin", training={"records": "pool"}))
    start.write_text(render_config(begin.model_copy(update={"compare": None})))
    path = write_config({**TWO, "before": [str(start)]})
    run = RunDir(tmp_path / "runs/tiny")
    assert plan_before(load_config(path), run, plan(path)) == []  # they start elsewhere
    own = f"model.path={tmp_path}/runs/begin/training/final"
    (first,) = plan_before(load_config(path, [own]), run, plan(path, own))
    assert (first.config.name, first.verbs) == ("begin", ("audit", "train"))


def test_a_cell_is_the_config_with_its_own_selection_seed_and_folder(write_config, tmp_path):
    path = write_config(
        {
            "selectors": [
                "random",
                {"name": "sharp", "scorer": "kernel_prism", "options": {"alpha": 2.0}},
                {"scorer": "length", "keep": "high"},
            ],
            "seeds": [7],
        },
        selection={"scorer": "leverage", "options": {"ridge": 0.1}, "layer": 3, "scope": "global"},
    )
    base = load_config(path)
    random, sharp, length = (cell.config for cell in plan(path))
    assert (sharp.selection.scorer, sharp.selection.options) == ("kernel_prism", {"alpha": 2.0})
    assert (length.selection.scorer, length.selection.keep) == ("length", "high")
    assert length.selection.options == {}  # leverage's are not for others
    assert {c.selection.layer for c in (random, sharp, length)} == {3}
    assert {c.selection.scope for c in (random, sharp, length)} == {"global"}
    assert {c.selection.budget for c in (random, sharp, length)} == {0.30}
    assert (sharp.seed, sharp.compare, sharp.training) == (7, None, base.training)
    saved = tmp_path / "cell.yaml"
    saved.write_text(render_config(sharp))
    assert load_config(saved) == sharp  # so that every verb takes it


def test_an_outcome_holds_until_the_config_or_a_file_changes(write_config, questions, tmp_path):
    annotations = tmp_path / "test.json"
    annotations.write_text('[{"question_id": 1}]')
    data = {"quickstart": {**questions, "annotations": str(annotations)}}
    path = write_config(TWO, evaluation={"benchmarks": ["quickstart"], "data": data})
    plan(path)[0].finish(None)
    plan(path)[1].finish("out of luck")
    assert [cell.state() for cell in plan(path)[:3]] == ["finished", "failed", None]
    assert plan(path)[1].error() == "out of luck"
    assert plan(path, "compare.seeds=[0]", "compare.budgets=[0.25]")[0].state() == "finished"
    assert plan(path, "training.lora.r=8")[0].state() is None
    annotations.write_text(json.dumps([{"question_id": 2}]))
    assert plan(path)[0].state() == "finished"  # files are looked at once in a call
    look_at_files_again()
    assert plan(path)[0].state() is None


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({**TWO, "baseline": "length"}, "compare.baseline: 'length' is none of"),
        ({**TWO, "selectors": ["random", "random"]}, "compare.selectors: two are the same"),
        ({**TWO, "seeds": [3, 3]}, "compare.seeds: two are the same"),
        ({**TWO, "budgets": [0.3, 0.3]}, "compare.budgets: two are the same"),
        ({**TWO, "budgets": [0.3, 0.30000001]}, "compare.budgets: two are the same"),
        ({**TWO, "selectors": ["random", {"keep": "high"}]}, "compare.selectors[1]: expected"),
        (
            {**TWO, "selectors": ["random", {"scorer": "prism", "laier": 2}]},
            "compare.selectors[1]: unknown key `laier`; did you mean `layer`",
        ),
        (
            {**TWO, "selectors": ["random", {"scorer": "prism", "name": "../../up"}]},
            "compare.selectors[1]: `name` = '../../up': expected letters, digits",
        ),
        (
            {**TWO, "metrics": ["quickstart"]},
            "compare.metrics: 'quickstart': expected <benchmark>.<metric>",
        ),
        (
            {**TWO, "metrics": ["quickstart.accuracy", "pope.accuracy"]},
            "compare.metrics: pope.accuracy: pope is not in evaluation.benchmarks of "
            "random-0.25-seed0 (quickstart)",
        ),
        ({**TWO, "tables": {"mian": ["*"]}}, "compare.tables: no table 'mian'; there are main, "),
    ],
)
def test_mistakes_are_named(write_config, compare, message):
    with pytest.raises(ConfigError) as error:
        plan(write_config(compare))
    assert message in str(error.value)


def test_a_config_without_the_section_is_refused(write_config):
    config = load_config(write_config(TWO)).model_copy(update={"compare": None})
    with pytest.raises(ConfigError, match="compare: no such section"):
        plan_cells(config, RunDir(Path("runs/tiny")))


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"selectors": []}, "compare: expected either `selectors` or `rows`"),
        ({**TWO, **ROWS}, "compare: expected either `selectors` or `rows`"),
        ({**TWO, "metrics": []}, "compare.metrics: expected what selectors are compared by"),
        (
            {**ROWS, "metrics": ["quickstart.accuracy"]},
            "compare.metrics: quickstart.accuracy: expected none (`[]`) beside `rows`, for "
            "selectors are compared by them; `compare.tables` puts rows side by side",
        ),
        ({**ROWS, "rows": ["a", "a"]}, "compare.rows: two are the same"),
        ({**ROWS, "rows": [{"training": {}}]}, "compare.rows[0]: expected a name"),
        ({**ROWS, "variants": ["x", "y"]}, "compare.variants: a name needs `{}`"),
        (
            {**ROWS, "rows": [{"name": "a", "selection": {"laier": 2}}]},
            "row a_small of compare.rows: unknown key `selection.laier`; did you mean",
        ),
    ],
)
def test_mistakes_in_rows_are_named(write_config, compare, message):
    with pytest.raises(ConfigError) as error:
        plan(write_config(compare))
    assert message in str(error.value)

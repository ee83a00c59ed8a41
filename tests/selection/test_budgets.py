"""What a budget counts, whom it has no say on, and several of them at once.

The drawn pool has 16 `shape`, 8 `colour` and 2 text-only records.
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.sections import SelectionConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.run.folder import read_json
from prism_tune.selection.budgets import Candidates, check_budgets, cut_pool, most_of_groups
from prism_tune.selection.export.layouts import export_run
from prism_tune.selection.finished import Subset
from prism_tune.selection.rooms import Counting, find_rooms
from prism_tune.selection.subset import most_taken

pytestmark = pytest.mark.slow


def kept(result):
    return [row["id"] for row in result.scores if row["selected"]]


def count_sources(result):
    return dict(Counter(row["source"] for row in result.scores if row["selected"]))


def choose(workplace, **options):
    changes = {f"selection__{key}": value for key, value in options.items()}
    return workplace.select(**{"selection__scorer": "random", **changes})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"shape": 8, "colour": 4, "text": 2}),
        ({"text_only": "drop"}, {"shape": 8, "colour": 4}),
        ({"text_only": "own_source"}, {"shape": 8, "colour": 4, "text": 1}),
        ({"budget_of": "rows"}, {"shape": 7, "colour": 4, "text": 2}),
        ({"budget_of": "rows", "text_only": "drop"}, {"shape": 9, "colour": 4}),
        ({"budget_of": "rows", "text_only": "own_source"}, {"shape": 8, "colour": 4, "text": 1}),
        ({"budget_of": "rows", "text_only": "rank"}, {"shape": 8, "colour": 4, "text": 1}),
        ({"budget_of": "rows", "budget": 5}, {"shape": 2, "colour": 1, "text": 2}),
        ({"source_budgets": "{colour: 2}"}, {"shape": 8, "colour": 2, "text": 2}),
        ({"source_budgets": "{colour: 0}"}, {"shape": 8, "text": 2}),
        ({"source_budgets": "{colour: 1.0, shape: 0.25}"}, {"shape": 4, "colour": 8, "text": 2}),
        (
            {"source_budgets": "{text_only: 2}", "text_only": "own_source"},
            {"shape": 8, "colour": 4, "text": 2},
        ),
        (
            {"source_budgets": "{text_only: 1}", "text_only": "own_source"},
            {"shape": 8, "colour": 4, "text": 1},
        ),
        (
            {"source_budgets": "{text_only: 0}", "text_only": "own_source"},
            {"shape": 8, "colour": 4},
        ),
        (
            {"source_budgets": "{shape: 0.25}", "budget_of": "rows", "text_only": "drop"},
            {"shape": 4, "colour": 5},
        ),
    ],
)
def test_what_is_counted(workplace, options, expected):
    assert count_sources(choose(workplace, **options)) == expected


@pytest.mark.parametrize("scope", ["per_source", "global"])
def test_tokens_are_counted_as_they_are_tuned_on(workplace, scope):
    records = workplace.records()
    for number, record in enumerate(records):
        record["conversations"][1]["value"] = "red " * (1 + 7 * number)
    workplace.write_records(records)
    small, large = (
        workplace.select(
            name=f"b{budget}",
            selection__scorer="random",
            selection__budget_of="tokens",
            selection__budget=budget,
            selection__scope=scope,
        )
        for budget in (0.4, 0.6)
    )
    for result, share in ((small, 0.4), (large, 0.6)):
        tokens = result.manifest["num_tokens"]
        assert share * tokens["pool"] - 300 < tokens["selected"] <= share * tokens["pool"]
    assert set(kept(small)) < set(kept(large))


@pytest.mark.parametrize(("budget", "images"), [(0.2, 92_372), (0.1, 25_842), (0.075, 9_209)])
def test_rows_of_llava_665k_as_published_shares_count_them(budget, images):
    """624,610 image records and 40,688 of text: 20 % of the rows leave 14.8 % of the images."""
    is_text_only_N = np.arange(665_298) >= 624_610
    ((_, room),) = find_rooms(budget, Counting("rows"), is_text_only_N)
    assert room == images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_of": "rows", "budget": 0.05}, "text-only records that are kept beside are 2"),
        (
            {"budget_of": "rows", "text_only": "drop", "budget": 1.0},
            "1.0 are 26 records, but without the text-only records there are 24",
        ),
        ({"budget_of": "rows", "budget": 27}, "27 asked, but the pool has 26 records"),
        ({"budget_of": "tokens", "budget": 0.000001}, "keeps none of the .* tokens"),
        ({"budgets": "[0.2, 25]"}, r"selection\.budgets: 25 asked, but .* has 24 image records"),
        ({"source_budgets": "{color: 2}"}, "no source `color` in the pool; did you mean `colour`"),
        ({"source_budgets": "{text: 1}"}, "all text-only, which selection.text_only=keep keeps"),
        ({"source_budgets": "{colour: 9}"}, "source_budgets.colour: 9 asked, but .* has 8 image"),
        ({"source_budgets": "{colour: 1.5}"}, "source_budgets"),
        ({"budget_of": "words"}, "budget_of"),
        ({"budget_of": "tokens", "budget": 3, "text_only": "drop"}, "keep none of the 26 rec"),
        (
            {"budget_of": "tokens", "budgets": "[3]", "text_only": "own_source"},
            "a budget of 3 and",
        ),
        (
            {"source_budgets": "{text_only: 3}", "text_only": "own_source"},
            r"source_budgets\.text_only: 3 asked, but the pool has 2 records",
        ),
        (
            {"source_budgets": "{shape: 0, colour: 0}", "text_only": "drop"},
            "keep none of the 26 records that can be used, 2 of them text-only",
        ),
    ],
)
def test_what_cannot_be_met_is_refused(workplace, options, message):
    with pytest.raises(UserError, match=message):
        choose(workplace, **options)


@pytest.mark.parametrize("budget_of", ["images", "rows"])
def test_a_count_of_text_only_records_keeps_so_many(budget_of):
    """With no image record beside them too, where a count is no share of anything."""
    pool = Candidates(
        [f"u{n}" for n in range(100)],
        np.full(100, "chat"),
        np.ones(100, dtype=bool),
        np.zeros(100, dtype=bool),
    )
    common = {"text_only": "own_source", "budget_of": budget_of, "keep": "low"}
    for budgets, expected in [
        ({"budget": 5}, 5),
        ({"budget": 0.05}, 5),
        ({"source_budgets": {"text_only": 5}}, 5),
        ({"source_budgets": {"text_only": 100}}, 100),
    ]:
        selection = SelectionConfig(**common, **budgets)
        check_budgets(selection, pool)
        cut = cut_pool(selection, pool, np.arange(100.0), selection.budget)
        assert cut.selected_N.sum() == expected
    with pytest.raises(UserError, match="500 asked, but the pool has 100 records"):
        check_budgets(SelectionConfig(**common, budget=500), pool)


@pytest.mark.parametrize("budget_of", ["images", "rows", "tokens"])
@pytest.mark.parametrize("text_only", ["keep", "own_source", "drop"])
def test_pools_of_text_alone_and_of_nothing(workplace, budget_of, text_only):
    """Kept, cut, or refused; an empty subset is never written."""
    records = [record for record in workplace.records() if "image" not in record]
    workplace.write_records(records)
    options = {"budget_of": budget_of, "text_only": text_only, "budget": 0.5}
    if text_only == "drop":
        with pytest.raises(UserError, match="keep none of the 2 records"):
            choose(workplace, **options)
    else:
        assert len(kept(choose(workplace, **options))) == {"keep": 2, "own_source": 1}[text_only]
    workplace.write_records([])
    with pytest.raises(UserError, match="no usable record in it: nothing to select from"):
        choose(workplace, **options)


def test_several_budgets_are_nested_and_leave_the_subset_as_it_is(workplace):
    alone = choose(workplace).run.subset.read_bytes()
    result = choose(workplace, budgets="[0.1, 0.25, 3, 1.0]")
    assert result.run.subset.read_bytes() == alone
    files = result.manifest["further_budgets"]
    assert {name: of["num_selected"] for name, of in files.items()} == {
        "0.1": 4, "0.25": 8, "3": 5, "1.0": 26,
    }  # fmt: skip
    sets = {}
    for name, of in files.items():
        records = json.loads((result.run.selection / of["file"]).read_text())
        sets[name] = {record["id"] for record in records}
    assert sets["0.1"] < sets["3"] < sets["0.25"] < set(kept(result)) < sets["1.0"]
    other = choose(workplace, budgets="[0.25]")
    assert [path.name for path in sorted(other.run.selection.glob("subset-*"))] == [
        files["0.25"]["file"]
    ]


def test_what_a_selection_replaces_is_its_own(workplace):
    """Notes of a user's beside the subset stay, and are no part of it."""
    run = choose(workplace, scorer="random", budgets="[0.25]").run
    notes = ("subset.md", "subset-notes.txt", "subset-0.3-mine.json", "exports/notes.txt")
    (run.exports / "llava").mkdir(parents=True)
    for name in notes:
        (run.selection / name).write_text("mine")
    choose(workplace, scorer="random", budgets="[0.75]", budget=0.1)
    assert [(run.selection / name).read_text() for name in notes] == ["mine"] * 4
    assert [path.name for path in run.exports.iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in run.selection.glob("subset*.json")) == [
        *("subset-0.3-mine.json", "subset-0.75.json", "subset.json")
    ]
    assert not set(notes) & set(read_json(run.selection / "stage.json")["files"])


def test_each_budget_goes_out_for_other_trainers(workplace, tmp_path):
    """By `--as` all of them, by `subset export --budget` and in Python any one."""
    run = choose(workplace, scorer="random", budgets="[0.25, 3]").run
    of_budget = {
        name: [record["id"] for record in read_json(run.selection / f"subset-{name}.json")]
        for name in ("0.25", "3")
    }
    export_run(run, "llava")
    folder = run.exports / "llava"
    name = run.root.name
    for budget, ids in of_budget.items():
        assert [row["id"] for row in read_json(folder / f"{name}-{budget}.json")] == ids
        whole = Subset(run)
        part = whole.at(float(budget) if "." in budget else int(budget))
        assert (part.ids, len(part)) == (ids, len(ids))
        assert [whole.table["id"][int(n)].as_py() for n in part.indices] == ids
    assert len(read_json(folder / f"{name}.json")) == len(Subset(run).at(0.5)) == 14
    call = ["subset", "export", str(run.root), "--to", str(tmp_path / "a.jsonl")]
    done = CliRunner().invoke(app, [*call, "--as", "messages", "--budget", "3"])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == of_budget["3"]
    refused = CliRunner().invoke(app, [*call, "--as", "messages", "--budget", "0.9"])
    assert "no further budget 0.9; selection.budgets cut 0.25, 3" in str(refused.exception)
    assert "say with --as in which layout" in str(
        CliRunner().invoke(app, [*call, "--budget", "3"]).exception
    )


def test_what_a_selection_takes_the_place_of_is_said(workplace, caplog):
    choose(workplace)
    with caplog.at_level("INFO", logger="prism_tune"):
        choose(workplace, budget=0.25)
    (line,) = [line for line in caplog.messages if "takes the place" in line]
    assert "the subset of random, 50.0% of the image records (14 records), in " in line


@pytest.mark.parametrize("scorer", ["kcenter", "d2", "kernel_repulsion"])
def test_picks_for_several_budgets_are_those_of_each_alone(workplace, scorer):
    path = workplace.root / "own.npy"
    np.save(path, np.random.default_rng(1).normal(size=(26, 6)))
    own = {"scorer": scorer, "features_file": path}
    together = choose(workplace, **own, budget=0.2, budgets="[0.6]")
    alone = choose(workplace, **own, budget=0.2)
    assert kept(together) == kept(alone)
    large = choose(workplace, **own, budget=0.6)
    records = json.loads((large.run.subset).read_text())
    again = choose(workplace, **own, budget=0.2, budgets="[0.6]")
    file = again.manifest["further_budgets"]["0.6"]["file"]
    assert json.loads((again.run.selection / file).read_text()) == records


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"scope": "per_source"}, [2, 6, 12]),
        ({"scope": "global"}, [100]),  # a picks 5, of b and c together 18: in what order is unknown
        ({"scope": "per_source", "budget_of": "rows"}, [2, 6, 12]),
        ({"scope": "per_source", "budgets": [0.5]}, [5, 15, 30]),
        ({"scope": "per_source", "source_budgets": {"a": 5}}, [5, 6, 12]),
        ({"scope": "per_source", "source_budgets": {"a": 1.0, "c": 0}}, [10, 6, 1]),
        ({"scope": "per_source", "budget_of": "tokens"}, [10, 30, 60]),
    ],
)
def test_the_most_that_can_be_taken_of_a_source(asked, most):
    """What a method picks one by one, and shares out among clusters."""
    sizes = np.array([10, 30, 60])
    no = np.zeros(100, dtype=bool)
    pool = Candidates([f"u{n}" for n in range(100)], np.repeat(["a", "b", "c"], sizes), no, no)
    if asked["scope"] == "global":
        sizes, asked = np.array([100]), {**asked, "source_budgets": {"a": 5}}
    found = most_of_groups(SelectionConfig(budget=0.2, **asked), pool, sizes)
    assert most == (most_taken(sizes, 20) if found is None else found).tolist()


def write_list(workplace, name, content):
    path = workplace.root / name
    path.write_text(content)
    return path


@pytest.mark.parametrize("form", ["lines", "list", "uids", "marks"])
def test_what_people_name_is_kept_and_left_out(workplace, form):
    first = choose(workplace)
    ids = {row["id"]: row["uid"] for row in first.scores}
    wanted = [i for i in ids if i not in kept(first)][:3]
    unwanted = [i for i in kept(first) if i.startswith("shape")][:2]
    content = {
        "lines": ("\n".join(wanted) + "\n\n", "\n".join(unwanted)),
        "list": (json.dumps(wanted), json.dumps(unwanted)),
        "uids": ("\n".join(ids[i] for i in wanted), json.dumps([ids[i] for i in unwanted])),
        "marks": (json.dumps({"keep": wanted, "drop": unwanted}),) * 2,
    }[form]
    keep = write_list(workplace, "keep", content[0])
    drop = keep if form == "marks" else write_list(workplace, "drop", content[1])
    result = choose(workplace, must_keep=keep, must_drop=drop)
    assert set(wanted) <= set(kept(result))
    assert not set(unwanted) & set(kept(result))
    rows = {row["id"]: row for row in result.scores}
    assert {rows[i]["reason"] for i in wanted} == {"must_keep"}
    assert {rows[i]["reason"] for i in unwanted} == {"must_drop"}
    assert result.manifest["num_skipped"] == {"must_drop": 2}
    assert count_sources(result) == {"shape": 7, "colour": 4, "text": 2}  # half of 14 and of 8


def test_what_must_be_kept_is_in_every_budget_and_shares_stay(workplace):
    keep = write_list(workplace, "keep.json", json.dumps(["shape-1", "shape-2", "shape-3"]))
    result = choose(workplace, must_keep=keep, budget=6, budgets="[3, 12]")
    assert count_sources(result) == {"shape": 4, "colour": 2, "text": 2}
    for name, number in {"3": 3 + 2, "12": 12 + 2}.items():
        file = result.run.selection / result.manifest["further_budgets"][name]["file"]
        ids = [record["id"] for record in json.loads(file.read_text())]
        assert {"shape-1", "shape-2", "shape-3"} <= set(ids)
        assert len(ids) == number


def test_a_text_only_record_is_kept_where_the_others_are_dropped(workplace):
    keep = write_list(workplace, "keep.txt", "text-8")
    result = choose(workplace, must_keep=keep, text_only="drop")
    assert count_sources(result) == {"shape": 8, "colour": 4, "text": 1}
    rows = {row["id"]: row["reason"] for row in result.scores}
    assert (rows["text-8"], rows["text-0"]) == ("must_keep", "text_dropped")


def test_ids_that_repeat_stand_for_all_their_records(workplace, caplog):
    records = workplace.records()
    for record in records[:3]:
        record["id"] = 7
    workplace.write_records(records)
    keep = write_list(workplace, "keep.json", "[7]")
    with caplog.at_level("WARNING", logger="prism_tune"):
        result = choose(workplace, must_keep=keep)
    assert sum(row["reason"] == "must_keep" for row in result.scores) == 2  # the third is of text
    assert "1 names stand for 3 records, because ids repeat" in caplog.text


@pytest.mark.parametrize("named", ["by uid", "by uid and id", "by id"])
def test_each_name_of_an_id_that_repeats_has_to_be_kept(workplace, named):
    """A uid stands for one record: that another of its id is kept does not do."""
    records = workplace.records()
    for record in records[:2]:
        record["id"] = "x"
    records[0]["image"] = "gone.png"
    workplace.write_records(records)
    skipping = {"data__policy__image_missing": "skip", "selection__scorer": "random"}
    rows = workplace.select(**skipping).scores
    lost, usable = (row["uid"] for row in rows if row["id"] == "x")
    names = {"by uid": [usable, lost], "by uid and id": ["x", lost], "by id": ["x"]}[named]
    keep = write_list(workplace, "keep.json", json.dumps(names))
    if named == "by id":
        kept_now = workplace.select(**skipping, selection__must_keep=keep).scores
        assert [row["reason"] for row in kept_now][:2] == ["image_missing", "must_keep"]
    else:
        with pytest.raises(UserError, match=r"1 of its records cannot be used: x \(image_missing"):
            workplace.select(**skipping, selection__must_keep=keep)


@pytest.mark.parametrize(
    ("keep", "drop", "message"),
    [
        ("shape-0\nnobody\nno-one", None, "2 of 3 names are no id or uid .*: nobody, no-one"),
        (None, "nobody", r"selection\.must_drop: .*nobody"),
        ("shape-0", "shape-0", "1 records on both: shape-0"),
        ('{"kept": []}', None, "expected ids or uids, as a list or as"),
        ("[1.5]", None, "expected ids or uids"),
        ("[", None, "not valid JSON"),
        ("shape-3", None, r"1 of its records cannot be used: shape-3 \(image_missing\)"),
        (
            "\n".join(f"shape-{n}" for n in range(13) if n != 3) + "\ncolour-0",
            None,
            r"its records are 13 image records, but selection\.budget=0\.5 leaves room for 12 of",
        ),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(workplace, keep, drop, message):
    (workplace.images / "3.png").unlink()
    given = {"data__policy__image_missing": "skip", "selection__scorer": "random"}
    for name, content in {"keep": keep, "drop": drop}.items():
        if content is not None:
            given[f"selection__must_{name}"] = write_list(workplace, name, content)
    with pytest.raises(UserError, match=message):
        workplace.select(**given)


def test_text_only_records_without_room_are_called_that(workplace):
    """A fifth of two text-only records is none."""
    keep = write_list(workplace, "keep.txt", "text-0")
    message = (
        r"its records are 1 text-only records, but selection\.budget=0\.2 leaves room for 0 of"
    )
    with pytest.raises(UserError, match=message):
        choose(workplace, must_keep=keep, text_only="own_source", budget=0.2)


def test_a_list_that_is_not_there_is_named(workplace):
    with pytest.raises(UserError, match=r"selection\.must_keep: gone\.txt: no such file"):
        choose(workplace, must_keep="gone.txt")


def test_lists_are_compared_by_what_is_in_them(workplace, caplog):
    keep = write_list(workplace, "keep.txt", "shape-1")
    choose(workplace, must_keep=keep)
    write_list(workplace, "keep.txt", "shape-2")
    with caplog.at_level("INFO", logger="prism_tune"):
        choose(workplace, must_keep=keep)
    assert "runs again (changed: content of selection.must_keep)" in caplog.text


def test_the_manifest_and_the_console_say_what_was_asked(workplace, capsys):
    options = {"budget_of": "rows", "text_only": "drop", "source_budgets": "{shape: 0.25}"}
    result = choose(workplace, **options, budgets="[0.1]")
    asked = "50.0% of the rows, without text-only, shape 25 %"
    assert result.manifest["cut"] == asked
    assert result.manifest["num_reasons"] == {"below_cut": 15, "selected": 9, "text_dropped": 2}
    printed = " ".join(capsys.readouterr().out.split())
    assert asked in printed
    assert "budget 0.1: 5 records, subset-0.1.json" in printed


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from("abc"),
            st.booleans(),
            st.integers(1, 9),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=30,
    ),
    budgets=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    unit=st.sampled_from(["images", "rows", "tokens"]),
    text_only=st.sampled_from(["keep", "own_source", "drop"]),
    scope=st.sampled_from(["per_source", "global"]),
    named=st.sampled_from([{}, {"a": 0.5}, {"a": 1}]),
)
def test_any_budgets_are_nested_and_met(rows, budgets, unit, text_only, scope, named):
    pool = Candidates(
        [f"u{n}" for n in range(len(rows))],
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.array([row[4] == 0 for row in rows]),
        np.array([row[3] for row in rows]),
    )
    scores = np.array([float(row[0]) for row in rows])
    counts = not named and not (text_only != "own_source" and pool.is_text_only_N.all())
    chosen = []
    for budget in sorted(budgets):
        selection = SelectionConfig(
            budget=budget,
            budget_of=unit,
            text_only=text_only,
            scope=scope,
            source_budgets=named,
            keep="low",
        )
        try:
            check_budgets(selection, pool)
        except (UserError, ConfigError):
            continue
        cut = cut_pool(selection, pool, scores, budget)
        must_N = pool.must_keep_N & (~pool.is_text_only_N | (text_only != "keep"))
        assert cut.selected_N[must_N].all()
        if unit == "rows" and counts:
            assert cut.selected_N.sum() == int(np.floor(budget * len(rows) + 0.5))
        if unit == "tokens" and counts:
            total = pool.num_tokens_N[cut.selected_N].sum()
            assert total <= np.floor(budget * pool.num_tokens_N.sum() + 0.5)
        chosen.append(cut.selected_N)
    if len(chosen) == 2:
        assert (chosen[0] <= chosen[1]).all()

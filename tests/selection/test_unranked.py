"""What a method could not rank is said: on the console, in the manifest, in scores.parquet."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from prism_tune.audit.audit import audit
from prism_tune.errors import UserError
from prism_tune.run.folder import read_json

pytestmark = pytest.mark.slow

ALONE = (
    "12 of 12 image records could not be ranked: sources of one record; selection.scope=global "
    "ranks them"
)
FEATURE_SCORERS = ["prism", "kernel_prism", "kernel_repulsion", "leverage", "kcenter", "kmeanspp"]
FEATURE_SCORERS += ["semdedup", "d2"]


def give_sources(workplace, source_of, num_records=12):
    """A pool of so many image records, each of its own image."""
    records = [r for r in workplace.records() if r["source"] == "shape"][:num_records]
    for number, record in enumerate(records):
        record["source"] = source_of(number)
    workplace.write_records(records)


def reasons(result):
    return [row["unranked"] for row in result.scores]


@pytest.fixture
def own_folders(workplace):
    """LLaVA's layout of ScienceQA: `<problem>/image.png`, and the folder is the source."""
    records = [r for r in workplace.records() if r["source"] == "shape"][:12]
    for number, record in enumerate(records):
        folder = workplace.images / str(number)
        folder.mkdir()
        shutil.copy(workplace.images / record["image"], folder / "image.png")
        record["image"] = f"{number}/image.png"
        del record["source"]
    workplace.write_records(records)
    return workplace


@pytest.mark.parametrize("scorer", ["prism", "length"])
def test_sources_of_one_record_are_said_and_global_ranks_them(own_folders, scorer, caplog):
    given = {"selection__scorer": scorer, "data__source": "image_folder"}
    with caplog.at_level("WARNING", logger="prism_tune"):
        result = own_folders.select(**given)
    assert f"{scorer}: {ALONE}" in caplog.text
    assert result.manifest["unranked"]["text"].startswith(ALONE)
    assert result.manifest["unranked"]["reasons"]["alone"]["num"] == 12
    assert reasons(result) == ["alone"] * 12
    ranked = own_folders.select(**given, name="global", selection__scope="global")
    alone = [reason for reason in reasons(ranked) if reason == "alone"]
    assert alone == []
    if scorer != "length":  # the answers are two words
        assert ranked.manifest["unranked"] == {}


def test_the_audit_says_it_before_anything_is_computed(own_folders, capsys):
    config = own_folders.config(data__source="image_folder")
    audit(config, own_folders.run_dir())
    printed = capsys.readouterr().out
    said = "12 of 12 image records cannot be ranked inside their source: sources of one record;"
    assert said in printed
    summary = read_json(own_folders.run_dir().audit / "audit.json")
    assert (summary["num_image_records"], summary["num_alone_in_source"]) == (12, 12)


def test_of_two_records_prism_knows_no_more(workplace, caplog):
    """Centred on their mean they are opposite: both score -1."""
    give_sources(workplace, lambda number: f"pair{number // 2}")
    with caplog.at_level("WARNING", logger="prism_tune"):
        result = workplace.select()
    said = "12 of 12 image records could not be ranked: all scores they are compared with are equal"
    assert said in caplog.text
    assert reasons(result) == ["equal_scores"] * 12


def test_some_sources_are_ranked_and_others_not(workplace):
    give_sources(workplace, lambda number: "many" if number < 9 else f"one{number}")
    unranked = workplace.select().manifest["unranked"]
    assert (unranked["num"], unranked["of"]) == (3, 12)
    assert unranked["reasons"]["alone"]["sources"] == {"one9": 1, "one10": 1, "one11": 1}


def test_a_draw_has_nothing_to_rank(own_folders):
    result = own_folders.select(selection__scorer="random", data__source="image_folder")
    assert result.manifest["unranked"] == {}
    assert reasons(result) == [None] * 12


@pytest.mark.parametrize("scorer", FEATURE_SCORERS)
def test_every_method_on_features_says_what_features_do_not_tell(workplace, scorer):
    give_sources(workplace, lambda number: "a")
    rows = np.random.default_rng(0).normal(size=(12, 4))
    rows[3] = np.nan
    rows[5] = rows[[n for n in range(12) if n not in (3, 5)]].mean(axis=0)
    path = workplace.root / "own.npy"
    np.save(path, rows)
    result = workplace.select(selection__scorer=scorer, selection__features_file=path)
    expected: list = [None] * 12
    expected[3], expected[5] = "feature_not_finite", "feature_like_all"
    assert reasons(result) == expected
    text = result.manifest["unranked"]["text"]
    assert text == (
        "2 of 12 image records could not be ranked: features with NaN or infinity (1); "
        "selection.dtype=float32 may help; features equal to the mean of those they are compared "
        "with (1); look at their images: blank, or all the same; selection.scope=global compares "
        "them with more"
    )


def test_correlations_that_do_not_exist(workplace):
    give_sources(workplace, lambda number: "a", 8)
    records = workplace.records()
    records[2]["conversations"][0]["value"] = "<image>"
    workplace.write_records(records)
    result = workplace.select(selection__scorer="alignment", data__policy__empty_question="skip")
    counted = result.manifest["num_without_correlation"]
    assert reasons(result).count("no_correlation") == counted


def test_a_method_without_any_finite_score_ends(workplace):
    path = workplace.root / "scores.npy"
    np.save(path, np.full(26, np.nan))
    options = f"{{path: {path}}}"
    with pytest.raises(UserError, match="none of the 24 image records has a finite score"):
        workplace.select(selection__scorer="file", selection__options=options)

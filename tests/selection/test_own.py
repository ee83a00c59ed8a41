"""Features and scores of one's own: no model is there to be loaded."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from prism_tune.errors import ConfigError, UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def nowhere(workplace):
    """A workplace whose model is not there: overrides for `select`."""
    return {"model__path": workplace.root / "no_model"}


def matrix(num_records=26, width=5):
    return np.random.default_rng(0).normal(size=(num_records, width)).astype(np.float32)


def write_matrix(workplace, kind):
    """The matrix as a file; tables by id or uid are in another order than the pool."""
    ids = [record["id"] for record in workplace.records()]
    path, values = workplace.root / f"own.{kind.split('-')[0]}", matrix(len(ids))
    if kind == "npy":
        np.save(path, values)
    elif kind.startswith("safetensors"):
        tensor = torch.from_numpy(values)
        save_file({"features": tensor, "other": tensor[:3].clone()}, path)
    else:
        turned = np.arange(len(ids))[::-1]
        names = {} if kind == "parquet-row" else {"id": [ids[n] for n in turned]}
        order = np.arange(len(ids)) if kind == "parquet-row" else turned
        column = pa.array(list(values[order]))
        pq.write_table(pa.table({**names, "embedding": column}), path, row_group_size=7)
    return path


def kept(result):
    return [row["id"] for row in result.scores if row["selected"]]


@pytest.mark.parametrize("scorer", ["prism", "kcenter", "leverage", "kernel_repulsion"])
def test_one_matrix_in_any_file_gives_one_subset(workplace, nowhere, scorer):
    results = [
        workplace.select(
            **nowhere,
            name=f"{kind}",
            selection__scorer=scorer,
            selection__features_file=write_matrix(workplace, kind),
        )
        for kind in ("npy", "safetensors", "parquet", "parquet-row")
    ]
    assert {tuple(kept(result)) for result in results} == {tuple(kept(results[0]))}
    assert len(kept(results[0])) == 14
    assert results[2].manifest["evidence"]["features"] == {
        "file": str(workplace.root / "own.parquet"),
        "num_rows": 26,
        "by": "id",
    }


def test_scores_are_those_of_the_matrix(workplace, nowhere):
    """Computed here once more, from the definition."""
    path = write_matrix(workplace, "npy")
    result = workplace.select(**nowhere, selection__features_file=path, selection__scope="global")
    image = [n for n, record in enumerate(workplace.records()) if "image" in record]
    rows = matrix()[image].astype(np.float64)
    unit = rows - rows.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = ((unit @ unit.T).sum(axis=1) - 1) / (len(image) - 1)
    found = [result.scores[n]["score"] for n in image]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_bfloat16_features_are_read_as_they_are(workplace, nowhere):
    path = workplace.root / "own.safetensors"
    save_file({"x": torch.from_numpy(matrix()).bfloat16()}, path)
    narrow = workplace.select(**nowhere, selection__features_file=path)
    save_file({"x": torch.from_numpy(matrix()).bfloat16().float()}, path)
    wide = workplace.select(**nowhere, name="wide", selection__features_file=path)
    assert [r["score"] for r in narrow.scores] == [r["score"] for r in wide.scores]


def write_scores(workplace, kind, scores):
    path = workplace.root / f"scores.{kind.split('-')[0]}"
    if kind == "npy":
        np.save(path, np.array(list(scores.values())))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("id", "quality"), *reversed(scores.items())])
    else:
        names, values = list(scores), list(scores.values())
        pq.write_table(pa.table({"id": names[::-1], "score": values[::-1], "n": values}), path)
    return path


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_own_scores_keep_the_highest(workplace, nowhere, kind):
    scores = {record["id"]: float(n) for n, record in enumerate(workplace.records())}
    result = workplace.select(
        **nowhere,
        selection__scorer="file",
        selection__options=f"{{path: {write_scores(workplace, kind, scores)}}}",
        selection__scope="global",
        selection__budget=3,
    )
    image = [record["id"] for record in workplace.records() if "image" in record]
    assert set(kept(result)) == {*image[-3:], "text-0", "text-8"}
    assert result.scores[0]["score"] == 0.0
    assert result.manifest["keep"] == "high"


def test_ids_of_digits_are_text(workplace, nowhere):
    records = workplace.records()
    for number, record in enumerate(records):
        record["id"] = f"{number:03}"
    workplace.write_records(records)
    scores = {record["id"]: float(-n) for n, record in enumerate(records)}
    options = f"{{path: {write_scores(workplace, 'csv', scores)}, column: quality}}"
    result = workplace.select(**nowhere, selection__scorer="file", selection__options=options)
    assert result.scores[7]["score"] == -7.0


def test_a_record_without_a_number_comes_last_and_is_said(workplace, nowhere, caplog):
    scores = {record["id"]: float(n) for n, record in enumerate(workplace.records())}
    scores |= {"shape-15": float("nan"), "shape-13": float("inf")}
    options = f"{{path: {write_scores(workplace, 'csv', scores)}}}"
    with caplog.at_level("WARNING", logger="prism_tune"):
        result = workplace.select(**nowhere, selection__scorer="file", selection__options=options)
    assert not {"shape-15", "shape-13"} & set(kept(result))
    assert "2 of 24 image records could not be ranked: no finite score or loss" in caplog.text
    rows = {row["id"]: row for row in result.scores}
    assert (rows["shape-15"]["score"], rows["shape-15"]["unranked"]) == (None, "no_score")
    assert result.manifest["unranked"]["reasons"]["no_score"]["sources"] == {"shape": 2}


def test_a_changed_file_is_selected_from_anew(workplace, nowhere, caplog):
    path = write_matrix(workplace, "npy")
    workplace.select(**nowhere, selection__features_file=path)
    np.save(path, -(matrix() ** 3))
    with caplog.at_level("INFO", logger="prism_tune"):
        workplace.select(**nowhere, selection__features_file=path)
    assert "runs again (changed: content of selection.features_file)" in caplog.text


def save(path, values):
    np.save(path, values)
    return path


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npy", lambda path: None, "no such file"),
        ("a.npy", lambda path: path.write_bytes(b"no"), "cannot be read as an array"),
        ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read"),
        ("a.npy", lambda path: np.save(path, matrix(25)), "25 rows, but .* has 26 records"),
        ("a.npy", lambda path: np.save(path, matrix()[:, 0]), r"matrix .* got shape \(26,\)"),
        ("a.npy", lambda path: np.save(path, np.ones((26, 2), int)), "floating-point numbers"),
        ("a.pt", lambda path: path.write_bytes(b""), "expected features in an .npy"),
        (
            "a.safetensors",
            lambda path: save_file({"a": torch.ones(26, 2), "b": torch.ones(2)}, path),
            "tensors a, b; expected one",
        ),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"id": ["shape-0"], "x": [[1.0]]}), path),
            "no row for 23 of 24 image records .ids colour-0, shape-1",
        ),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"id": ["a", "a"], "x": [[1.0], [2.0]]}), path),
            "1 ids stand there more than once .a.",
        ),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"x": [[1.0], [2.0, 3.0]]}), path),
            "lists of one length",
        ),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(workplace, nowhere, name, make, message):
    make(workplace.root / name)
    with pytest.raises(UserError, match=message):
        workplace.select(**nowhere, selection__features_file=workplace.root / name)


@pytest.mark.parametrize("name", ["selection.features_file", "selection.options.path"])
def test_a_file_that_is_not_there_is_named_before_anything_is_written(workplace, nowhere, name):
    path = workplace.root / "gone.npy"
    own = {"selection__features_file": path}
    if name == "selection.options.path":
        own = {"selection__scorer": "file", "selection__options": f"{{path: {path}}}"}
    with pytest.raises(UserError, match=f"{name}: .*gone.npy: no such file"):
        workplace.select(**nowhere, **own)
    assert not workplace.run_dir(**nowhere, **own).root.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,a,b\nshape-0,1,2\n", "no column 'score'; it has id, a, b"),
        ("id,score\nshape-0,high\n", "column 'score': not numbers"),
        ("score\n1\n", "1 rows, but .* has 26 records"),
        ("id,score,score\nshape-0,1,2\n", "2 columns are called 'score'"),
        ("id,id,score\nshape-0,a,2\n", "2 columns are called 'id'"),
    ],
)
def test_scores_that_do_not_fit_are_refused(workplace, nowhere, content, message):
    path = workplace.root / "scores.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        workplace.select(
            **nowhere, selection__scorer="file", selection__options=f"{{path: {path}}}"
        )


@pytest.mark.parametrize(
    "change",
    [{"selection__scorer": "alignment"}, {"selection__features": "joint"}],
)
def test_what_a_matrix_takes_the_place_of_is_not_asked_besides(workplace, nowhere, change):
    path = write_matrix(workplace, "npy")
    with pytest.raises(ConfigError, match=r"selection\.features_file"):
        workplace.select(**nowhere, selection__features_file=path, **change)


def test_random_and_length_need_no_model(workplace, nowhere, caplog):
    with caplog.at_level("WARNING", logger="prism_tune"):
        without = workplace.select(**nowhere, selection__scorer="random")
    assert "random needs no model, so the selection goes on: lengths are not" in caplog.text
    assert "num_tokens" not in without.manifest
    assert without.subset == workplace.select(name="with", selection__scorer="random").subset
    with pytest.raises(UserError, match=r"selection\.options\.unit=words"):
        workplace.select(**nowhere, name="length", selection__scorer="length")
    records = workplace.records()
    records[0]["conversations"][1]["value"] = "one two three"
    workplace.write_records(records)
    for unit, expected in {"words": 3, "characters": 13}.items():
        result = workplace.select(
            **nowhere, selection__scorer="length", selection__options=f"{{unit: {unit}}}"
        )
        assert result.scores[0]["score"] == expected
        assert result.manifest["unit"] == unit


def test_length_counts_answers_or_whole_records(workplace, nowhere):
    records = workplace.records()[:2]  # "<image>\nwhat shape is image 0?" "circle", "colour" of it
    records[1]["conversations"][0]["value"] = "what <image> is that?"
    workplace.write_records(records)
    found = {}
    for of in ("answer", "record"):
        options = f"{{unit: words, of: {of}}}"
        asked = {"selection__scorer": "length", "selection__options": options}
        result = workplace.select(**nowhere, name=of, **asked, selection__budget=1)
        found[of] = [row["score"] for row in result.scores]
    assert found == {"answer": [1, 1], "record": [6, 4]}


def test_length_counts_tokens_with_a_tokenizer_alone(workplace, tiny_llava_dir):
    folder = workplace.root / "tokenizer"
    folder.mkdir()
    for path in tiny_llava_dir.glob("tokenizer*"):
        content = path.read_bytes()
        if path.name == "tokenizer_config.json":
            settings = json.loads(content)
            settings.pop("processor_class", None)
            content = json.dumps(settings).encode()
        (folder / path.name).write_bytes(content)
    alone = workplace.select(model__path=folder, selection__scorer="length")
    whole = workplace.select(name="whole", selection__scorer="length")
    assert [r["score"] for r in alone.scores] == [r["score"] for r in whole.scores]

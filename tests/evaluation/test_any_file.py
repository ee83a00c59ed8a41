"""Files as people have them: marks and numbers of table programs, official layouts, broken rows."""

from __future__ import annotations

import codecs
import csv
import json
from dataclasses import replace

import pytest
from openpyxl import Workbook
from support.official_files import WRITERS, write_official
from support.tiny import draw_image
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.data.image_paths import ImageFolders
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.images import find_images
from prism_tune.evaluation.predictions import write_predictions

MARKS = {"utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE}
HEADLINES = {"mmvet": "score_rule", "mme": "perception", "mmmu": "accuracy", "pope": "f1"}
FULL = {"mme": 400, "mmmu": 1}


def run_score(benchmark, *predictions, annotations=None, profile="llava15"):
    """The real verb; its JSON, or the words of its refusal."""
    command = ["score", benchmark, "--json", "--profile", profile]
    for path in predictions:
        command += ["--predictions", str(path)]
    command += ["--annotations", str(annotations)] if annotations else []
    run = CliRunner().invoke(app, command)
    if run.exception is not None and run.exit_code != 0 and not run.stdout:
        return str(run.exception)
    return json.loads(run.stdout)


def reencode(path, encoding):
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    mark = MARKS.get(encoding, b"")
    for file in files:
        text = file.read_text()
        file.write_bytes(mark + text.encode(encoding.removesuffix("-sig")))


@pytest.mark.parametrize("encoding", list(MARKS))
@pytest.mark.parametrize("name", list(WRITERS))
def test_byte_order_marks_change_nothing(tmp_path, name, encoding):
    (tmp_path / "data").mkdir()
    annotations, answers = write_official(name, tmp_path / "data")
    write_predictions(tmp_path / "a.jsonl", answers)
    reencode(annotations, encoding)
    reencode(tmp_path / "a.jsonl", encoding)
    result = run_score(name, tmp_path / "a.jsonl", annotations=annotations)
    metric = HEADLINES.get(name, "score" if name == "llava_bench" else "accuracy")
    assert result["metrics"][metric] == FULL.get(name, 100)
    assert result["num_missing"] == 0
    assert not any(
        "\ufeff" in q.text for q in BENCHMARKS[name].load_questions(annotations, "llava15")
    )


def test_numbers_that_a_table_program_made_of_texts(tmp_path):
    answers = {"validation_Math_1": {"question_type": "short-answer", "ground_truth": 5}}
    (tmp_path / "answer_dict_val.json").write_text(json.dumps(answers))
    (tmp_path / "mmmu.json").write_text('{"validation_Math_1": 5.0}')
    result = run_score("mmmu", tmp_path / "mmmu.json", annotations=tmp_path)
    assert result["metrics"]["accuracy"] == 1
    entry = {"image": "V_0.jpg", "question": 7, "answers": [{"answer": 5}] * 10}
    (tmp_path / "val.json").write_text(json.dumps([{**entry, "answer_type": float("nan")}]))
    (tmp_path / "v.jsonl").write_text('{"question_id": 0.0, "text": 5}')
    result = run_score("vizwiz", tmp_path / "v.jsonl", annotations=tmp_path / "val.json")
    assert result["metrics"]["accuracy"] == 100
    test = [{"question_id": 1, "image": "i", "text": "q", "answer": 3, "category": "c"}]
    (tmp_path / "test.json").write_text(json.dumps(test))
    (tmp_path / "q.jsonl").write_text('{"question_id": "1", "text": "3"}')
    result = run_score("quickstart", tmp_path / "q.jsonl", annotations=tmp_path / "test.json")
    assert result["metrics"]["accuracy"] == 100
    (tmp_path / "val.json").write_text(json.dumps([{**entry, "answers": [{"answer": True}] * 10}]))
    refused = run_score("vizwiz", tmp_path / "v.jsonl", annotations=tmp_path / "val.json")
    assert "val.json, record 1: answers: expected text, found True" in refused


@pytest.mark.parametrize("written", ["YES", " Yes ", "yes."])
def test_references_in_another_case(tmp_path, written):
    row = {"question_id": "1", "image": "i.jpg", "text": "Is it?", "label": written}
    for split in ("random", "popular", "adversarial"):
        (tmp_path / f"coco_pope_{split}.json").write_text(json.dumps(row))
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"question_id": {n}, "text": "Yes"}}\n' for n in (1, 10_000_001, 20_000_001))
    )
    assert run_score("pope", tmp_path / "a.jsonl", annotations=tmp_path)["metrics"]["f1"] == 100


def test_some_references_missing_is_a_damaged_file_not_a_test_split(tmp_path):
    entries = [
        {"image": "a.jpg", "question": "q?", "answers": [{"answer": "x"}] * 10},
        {"image": "b.jpg", "question": "q?"},
    ]
    (tmp_path / "val.json").write_text(json.dumps(entries))
    (tmp_path / "a.jsonl").write_text('{"question_id": 0, "text": "x"}')
    refused = run_score("vizwiz", tmp_path / "a.jsonl", annotations=tmp_path / "val.json")
    assert "val.json: question 1: no reference, as for 1 of 2 questions" in refused


def test_a_result_folder_of_mme_is_read_as_the_official_script_does(tmp_path):
    """Adjacent lines are of one image; the window of four characters decides; nothing is joined."""
    lines = [
        "1.jpg\tIs it a? Please answer yes or no.\tYes\tYes, it is",
        "1.jpg\tIs it b? Please answer yes or no.\tNo\tnot at all",
        "2.jpg\tIs it c? Please answer yes or no.\tyes\t",
        "2.jpg\tIs it d? Please answer yes or no.\tNo\tNo",
    ]
    (tmp_path / "count.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "OCR.txt").write_text("\r\n".join(lines[:2]))
    result = run_score("mme", tmp_path)
    assert result["metrics"] == {
        "perception": 325, "count": 75 + 50, "OCR": 200,
    }  # fmt: skip
    assert (result["num_examples"], result["num_missing"]) == (6, 0)
    (tmp_path / "OCR.txt").write_text("1.jpg\tIs it?\tYes\n")
    assert "OCR.txt, line 1: expected file, question, reference and answer" in run_score(
        "mme", tmp_path
    )


def test_a_result_folder_of_mme_beside_the_release(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, answers = write_official("mme", tmp_path / "data")
    mme = BENCHMARKS["mme"]
    questions = mme.load_questions(annotations, "llava15")
    folder = mme.write_submission(questions, answers, tmp_path)
    with_release, alone = (run_score("mme", folder, annotations=a) for a in (annotations, None))
    assert with_release["metrics"] == alone["metrics"]
    assert alone["metrics"]["perception"] == 400


def test_popes_own_lines_are_joined_by_place_and_verified_by_their_questions(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, _ = write_official("pope", tmp_path / "data")
    popular = annotations / "coco_pope_popular.json"
    popular.write_text(popular.read_text().replace("Is there a 3?", "Is there a cup?"))
    rows = [json.loads(line) for line in popular.read_text().splitlines()]
    own = [{"question": row["text"].lower(), "answer": row["label"].title()} for row in rows]
    (tmp_path / "own.json").write_text("".join(json.dumps(line) + "\n" for line in own))
    result = run_score("pope", tmp_path / "own.json", annotations=annotations)
    assert result["metrics"]["f1_popular"] == 100
    assert result["metrics"]["f1_random"] == 0
    assert result["num_missing"] == 12
    result = run_score("pope", tmp_path / "own.json", annotations=popular)
    assert (result["metrics"]["f1"], result["num_examples"]) == (100, 6)
    (tmp_path / "own.json").write_text("".join(json.dumps(line) + "\n" for line in own[::-1]))
    refused = run_score("pope", tmp_path / "own.json", annotations=annotations)
    assert "own.json: 6 answers without ids" in refused
    assert "found others" in refused


def test_files_that_official_scripts_write(tmp_path):
    (tmp_path / "v").mkdir()
    vizwiz, answers = write_official("vizwiz", tmp_path / "v")
    upload = BENCHMARKS["vizwiz"].write_submission(
        BENCHMARKS["vizwiz"].load_questions(vizwiz, "llava15"), answers, tmp_path
    )
    assert run_score("vizwiz", upload, annotations=vizwiz)["metrics"]["accuracy"] == 100
    (tmp_path / "s").mkdir()
    sqa, answers = write_official("scienceqa", tmp_path / "s")
    outputs = {a.question_id: a.text for a in answers}
    result = {"acc": 1.0, "correct": 6, "count": 6, "results": {}, "outputs": outputs}
    (tmp_path / "x_result.json").write_text(json.dumps(result))
    right = [{"question_id": a.question_id, "pred": a.text, "parsed_ans": a.text} for a in answers]
    analysis = {"correct": right[1:], "incorrect": right[:1]}
    (tmp_path / "x_output.json").write_text(json.dumps(analysis))
    for name in ("x_result.json", "x_output.json"):
        scored = run_score("scienceqa", tmp_path / name, annotations=sqa)
        assert (scored["metrics"]["accuracy"], scored["num_missing"]) == (100, 0)


def test_shards_of_one_answer_file(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, answers = write_official("vizwiz", tmp_path / "data")
    for number in (0, 1):
        write_predictions(tmp_path / f"{number}.jsonl", answers[number::2])
    files = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    result = run_score("vizwiz", *files, annotations=annotations)
    assert result["metrics"]["accuracy"] == 100
    assert [item["path"] for item in result["provenance"]["predictions"]] == list(map(str, files))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *((name, ".csv") for name in WRITERS),
        *(("vizwiz", ";.csv"), ("mme", ".tsv"), ("pope", ".xlsx"), ("mmbench", ".tsv")),
    ],
)
def test_answers_in_a_table(tmp_path, name, suffix):
    """A row whose answer is empty in an xlsx has none; MMBench's ids may stand under `index`."""
    (tmp_path / "data").mkdir()
    annotations, answers = write_official(name, tmp_path / "data")
    id_name = "index" if name.startswith("mmbench") else "question_id"
    rows = [(id_name, "prompt", "prediction")]
    rows += [(a.question_id, a.prompt, a.text) for a in answers]
    path = tmp_path / f"a{suffix}"
    if suffix == ".xlsx":
        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.active.append([None, None, None])
        book.save(path)
    else:
        delimiter = "\t" if suffix == ".tsv" else (";" if ";" in suffix else ",")
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
    result = run_score(name, path, annotations=annotations)
    metric = HEADLINES.get(name, "score" if name == "llava_bench" else "accuracy")
    assert result["metrics"][metric] == FULL.get(name, 100)
    assert result["num_missing"] == 0


def test_a_table_that_is_cut_or_has_empty_cells(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, answers = write_official("vizwiz", tmp_path / "data")
    (tmp_path / "a.csv").write_text("question_id,prediction\n0,cup 20\n1\n")
    assert "a.csv, record 2 (line 3): 1 columns, the header has 2" in run_score(
        "vizwiz", tmp_path / "a.csv", annotations=annotations
    )
    for write_only in (False, True):  # where nothing is written behind the last filled cell
        book = Workbook(write_only=write_only)
        sheet = book.create_sheet() if write_only else book.active
        for row in (("question_id", "prediction"), (0, answers[0].text), (1, None)):
            sheet.append(row)
        book.save(tmp_path / "a.xlsx")
        result = run_score("vizwiz", tmp_path / "a.xlsx", annotations=annotations)
        assert result["num_missing"] == 5


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mmmu", "response"),
        ("seed_bench", "prediction"),
        ("pope", "response"),
        ("gqa", "prediction"),
    ],
)
def test_beside_a_prediction_the_answer_is_the_reference(tmp_path, name, key):
    """VLMEvalKit's rows and MMMU's outputs hold both: the reference would be right every time."""
    (tmp_path / "data").mkdir()
    annotations, answers = write_official(name, tmp_path / "data")
    rows = [{"question_id": a.question_id, "answer": a.text, key: "no such"} for a in answers]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    result = run_score(name, tmp_path / "a.json", annotations=annotations)
    metric = HEADLINES.get(name, "accuracy")
    assert result["metrics"][metric] < FULL.get(name, 100)


def test_a_text_beside_an_answer_may_be_the_question(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, _ = write_official("vizwiz", tmp_path / "data")
    row = {"question_id": 0, "text": "What is 0?", "answer": "cup 20"}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    assert "record 1: both 'text' and 'answer': which is the model's answer?" in run_score(
        "vizwiz", tmp_path / "a.json", annotations=annotations
    )
    (tmp_path / "a.json").write_text(
        json.dumps([{**row, "prompt": "What is 0?", "text": "cup 20"}])
    )
    scored = run_score("vizwiz", tmp_path / "a.json", annotations=annotations)
    assert scored["num_missing"] == 5


def test_an_error_does_not_print_the_file(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, _ = write_official("gqa", tmp_path / "data")
    (tmp_path / "a.json").write_text(json.dumps({"predictions": [{"question_id": "1"}] * 999}))
    refused = run_score("gqa", tmp_path / "a.json", annotations=annotations)
    assert "a.json, predictions: text: expected text, found [" in refused
    assert len(refused) < 400


def test_without_annotations_the_option_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question_id": 0, "text": "x"}')
    assert "--annotations: missing; these answers to vizwiz" in run_score(
        "vizwiz", tmp_path / "a.jsonl"
    )


def test_the_version_of_lmms_eval_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    annotations, answers = write_official("scienceqa", tmp_path / "data")
    write_predictions(tmp_path / "a.jsonl", answers)
    result = run_score(
        "scienceqa", tmp_path / "a.jsonl", annotations=annotations, profile="lmms_eval"
    )
    assert result["provenance"]["protocol"] == "lmms-eval 0.7.3"


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAEElEQVR4nGP8z4AATAxEcQAz0QEHOoQ+uAAAAABJRU5Er"
    "kJggg=="
)


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (PIXEL, None),
        (f"data:image/png;base64,{PIXEL}", None),
        ("not base64!", "image_unreadable"),
        (f"data:image/png;base64,{PIXEL[:40]}%", "image_unreadable"),
        ("data:image/png;base64,", "image_missing"),
    ],
    ids=["base64", "uri", "text", "cut", "empty"],
)
def test_an_image_cell_is_base64_or_a_data_uri(tmp_path, cell, fault):
    header = "index\tquestion\tA\tB\tanswer\timage\n"
    (tmp_path / "q.tsv").write_text(f"{header}0\tq?\tcat\tdog\tA\t{cell}\n")
    (question,) = BENCHMARKS["mmbench"].load_questions(tmp_path / "q.tsv", "llava15")
    found = find_images(question.images, ImageFolders(tmp_path), num_workers=0)
    assert [reason for reason, _ in found.faults.values()] == ([fault] if fault else [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "submission"),
    [
        ("textvqa", "textvqa_upload.json"),
        ("gqa", None),
        ("vqav2", "vqav2_upload.json"),
        ("seed_bench", "seed_bench_upload.jsonl"),
        ("mmbench_cn", "mmbench_cn_upload.xlsx"),
    ],
)
def test_official_files_are_asked_scored_and_scored_again(setting, monkeypatch, name, submission):
    """From the release to the result, and the stored answers give the same number by `score`."""
    short = replace(BENCHMARKS[name], max_new_tokens={"llava15": 3, "lmms_eval": 3})
    monkeypatch.setitem(BENCHMARKS, name, short)
    folder = setting.run.root.parent / "official"
    folder.mkdir(parents=True)
    annotations, _ = write_official(name, folder)
    images = {image for q in short.load_questions(annotations, "llava15") for image in q.images}
    for number, image in enumerate(sorted(images)):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        draw_image(folder / f"{number}.png", number)
        (folder / f"{number}.png").rename(folder / image)
    data = {"annotations": str(annotations), "image_dir": str(folder)}
    setting.evaluate(benchmarks=(name,), data={name: data})
    results = setting.results(name)
    assert results["num_missing"] == 0
    scored = run_score(
        name, setting.run.benchmark(name) / "predictions.jsonl", annotations=annotations
    )
    assert scored["metrics"] == results["metrics"]
    assert submission is None or (setting.run.benchmark(name) / submission).is_file()


SECOND = '{"question_id": 10000002, "text": "No"}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "question_id,text\n10000001,\n10000002,No\n"),
        ("a.csv", "question_id,text\n10000001,nan\n10000002,No\n"),
        ("a.json", '{"10000001": null, "10000002": "No"}'),
        ("a.jsonl", '{"question_id": 10000001, "text": null}\n' + SECOND),
        ("a.jsonl", '{"question_id": 10000001, "text": NaN}\n' + SECOND),
    ],
)  # fmt: skip
def test_a_null_answer_is_missing_in_every_format(tmp_path, name, content):
    """POPE takes any other text, an empty one as well, for a yes."""
    row = {"image": "a.jpg", "text": "Is there a dog?"}
    rows = [{**row, "question_id": 1, "label": "yes"}, {**row, "question_id": 2, "label": "no"}]
    (tmp_path / "coco_pope_random.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / name).write_text(content)
    annotations = tmp_path / "coco_pope_random.json"
    result = run_score("pope", tmp_path / name, annotations=annotations)
    assert (result["num_missing"], result["metrics"]["accuracy"]) == (1, 50)
    assert "1 question(s) without an answer, counted as wrong: 10000001" in result["notes"]


def test_what_a_model_said_is_an_answer_where_it_is_nothing(tmp_path):
    row = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    (tmp_path / "coco_pope_random.json").write_text(json.dumps(row))
    (tmp_path / "a.jsonl").write_text('{"question_id": 10000001, "text": ""}')
    annotations = tmp_path / "coco_pope_random.json"
    assert run_score("pope", tmp_path / "a.jsonl", annotations=annotations)["num_missing"] == 0

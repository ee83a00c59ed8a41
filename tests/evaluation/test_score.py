import json
import subprocess
import sys

import pytest
from support.official_files import WRITERS, write_official
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.predictions import write_predictions
from prism_tune.evaluation.score import describe_file, find_benchmark, score
from prism_tune.schema import Prediction

ROWS = [("1", "red", "color"), ("2", "yes", "exists")]


@pytest.fixture
def files(tmp_path):
    annotations, predictions = tmp_path / "test.json", tmp_path / "answers.jsonl"
    rows = [
        {"question_id": i, "image": f"{i}.png", "text": f"q{i}", "answer": a, "category": c}
        for i, a, c in ROWS
    ]
    annotations.write_text(json.dumps(rows))
    write_predictions(predictions, [Prediction("1", "q1", "red", model_id="m")])
    return predictions, annotations


def test_the_benchmarks():
    assert list(BENCHMARKS) == [
        "scienceqa", "vizwiz", "pope", "mmvet", "mmbench", "mmbench_cn", "mme", "mmmu",
        "textvqa", "gqa", "vqav2", "seed_bench", "llava_bench", "quickstart",
    ]  # fmt: skip
    assert all(set(b.max_new_tokens) == {"llava15", "lmms_eval"} for b in BENCHMARKS.values())


def test_results_are_written_with_their_provenance(files, tmp_path):
    result = score("quickstart", *files, output=tmp_path / "out")
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written["metrics"] == dict(result.metrics)
    assert written["metrics"]["accuracy"] == 50
    assert written["num_examples"] == 2
    assert written["num_missing"] == 1
    provenance = written["provenance"]
    assert provenance["model_ids"] == ["m"]
    assert provenance["predictions"] == {
        "path": str(files[0]),
        "sha256": describe_file(files[0])["sha256"],
    }
    assert provenance["evaluator"].startswith("prism_tune ")


def test_a_submission_is_written_where_the_benchmark_has_one(tmp_path):
    entries = [{"image": "VizWiz_val_00000000.jpg", "question": "Q?"}]
    (tmp_path / "test.json").write_text(json.dumps(entries))
    write_predictions(tmp_path / "a.jsonl", [Prediction(0, "Q?", "Red!")])
    result = score("vizwiz", tmp_path / "a.jsonl", tmp_path / "test.json", output=tmp_path / "o")
    assert result.metrics == {}
    assert json.loads((tmp_path / "o/vizwiz_upload.json").read_text()) == [
        {"image": "VizWiz_val_00000000.jpg", "answer": "red"}
    ]


def test_the_checksum_of_a_folder_is_that_of_its_annotations(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    before = describe_file(tmp_path)
    (tmp_path / "image.jpg").write_bytes(b"i")
    assert describe_file(tmp_path) == before
    (tmp_path / "a.txt").write_text("y")
    assert describe_file(tmp_path) != before


def test_an_unknown_benchmark_names_the_nearest():
    with pytest.raises(UserError, match="unknown benchmark 'scienqa'; did you mean 'scienceqa'"):
        find_benchmark("scienqa")
    with pytest.raises(UserError, match=r"There are gqa, llava_bench, mmbench, mmbench_cn, mme,"):
        find_benchmark("zzzz")


def test_language_benchmarks_are_known_but_have_no_answer_file():
    with pytest.raises(UserError, match=r"mmlu is a language benchmark.*benchmarks=\[mmlu\]"):
        find_benchmark("mmlu")
    with pytest.raises(UserError, match="did you mean 'hellaswag'"):
        find_benchmark("helaswag")


def test_an_unknown_profile_is_a_usage_error():
    command = ["score", "pope", "--predictions", "p", "--annotations", "a", "--profile", "llava"]
    run = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert run.exit_code == 2
    assert "'llava' is not one of 'llava15', 'lmms_eval'" in run.output


def test_json_is_one_object_on_stdout_and_nothing_else(files):
    command = ["score", "quickstart", "--predictions", files[0], "--annotations", files[1]]
    run = CliRunner().invoke(app, [*map(str, command), "--json"])
    assert run.exit_code == 0
    printed = json.loads(run.stdout)
    assert run.stdout.count("\n") == 1
    assert list(printed)[:5] == [
        "benchmark", "metrics", "num_examples", "num_missing", "profile",
    ]  # fmt: skip
    assert printed["per_question"] == {"1": 1, "2": 0}
    assert printed["notes"] == ["1 question(s) without an answer, counted as wrong: 2"]


def test_the_table_shows_metrics_and_notes(files):
    command = ["score", "quickstart", "--predictions", files[0], "--annotations", files[1]]
    run = CliRunner().invoke(app, list(map(str, command)))
    assert "accuracy_open" in run.stdout
    assert "100.00" in run.stdout
    assert "1 question(s) without an answer" in run.stdout


def test_scoring_loads_no_heavy_library(tmp_path):
    """Each benchmark, by its official files: no library that takes longer than the scoring."""
    calls = []
    for name in WRITERS:
        (tmp_path / name).mkdir()
        annotations, answers = write_official(name, tmp_path / name)
        write_predictions(tmp_path / f"{name}.jsonl", answers)
        calls.append((name, str(tmp_path / f"{name}.jsonl"), str(annotations)))
    code = (
        "import sys; from pathlib import Path; from prism_tune.evaluation.score import score\n"
        f"for name, *paths in {calls!r}: score(name, *map(Path, paths))\n"
        "print([m for m in ('torch', 'transformers', 'pandas', 'pyarrow', 'openpyxl', 'PIL') "
        "if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert output.decode().strip() == "[]"

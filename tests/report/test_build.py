"""The report as a folder: what it is built from, and when it is replaced."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.report_pages import HOSTILE_SOURCE
from support.table_runs import RunWriter, quickstart_result

from prism_tune.errors import UserError
from prism_tune.report.build import build_report
from prism_tune.report.feature_sample import draw_sample
from prism_tune.report.sources import summarise_sources
from prism_tune.report.verdict import compare_runs, describe_run, find_row
from prism_tune.results.overlap import measure_overlap
from prism_tune.results.runs import FinishedRun, open_runs
from prism_tune.run.folder import RunDir, read_json, write_json

pytestmark = pytest.mark.slow


@pytest.fixture
def run(runs, tmp_path) -> RunDir:
    """A copy of the finished run."""
    return RunDir(shutil.copytree(runs / "tiny", tmp_path / "tiny", ignore=ignore_report))


def ignore_report(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "report"]


def section(page: Path, name: str) -> str:
    """The text of a section, without markup."""
    html = page.read_text(encoding="utf-8")
    (found,) = re.findall(rf'<section class="section" id="{name}".*?</section>', html, re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found))


def test_the_page_is_beside_the_run_and_holds_all_it_loads(report):
    html = unescape((report / "index.html").read_text(encoding="utf-8"))
    loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', html)
    files = [path for path in loaded if not path.startswith("data:")]
    assert {"assets/report.js", "data/scores.js"} <= set(files)
    files.append("assets/plotly.min.js")  # read by report.js when a plot is to be drawn
    assert [path for path in files if not (report / path).is_file()] == []
    assert "script-src 'self'" in html
    assert [path.name for path in report.parent.glob("*report*")] == ["report"]


def test_no_markup_of_a_record_is_in_the_page(report):
    html = (report / "index.html").read_text(encoding="utf-8")
    assert HOSTILE_SOURCE not in html
    assert "<script>document" not in html
    scripts = [path.read_text(encoding="utf-8") for path in (report / "data").glob("*.js")]
    assert not any("<script" in text or "</script" in text for text in scripts)


def test_it_is_built_without_torch(run, tmp_path):
    code = (
        "import sys; from pathlib import Path; from prism_tune.run.folder import RunDir;"
        "from prism_tune.report.build import build_report;"
        "build_report([RunDir(Path(sys.argv[1]))], Path(sys.argv[2]));"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(run.root), str(tmp_path / "page")]
    subprocess.run(command, check=True)


def test_a_report_is_replaced_as_a_whole_and_nothing_else_is(run, tmp_path):
    page = build_report([run])
    (page.parent / "stale.txt").touch()
    assert build_report([run]) == page
    assert not (page.parent / "stale.txt").exists()
    old = run.root / "report.old"  # a folder of the user's own
    old.mkdir()
    build_report([run])
    assert old.exists()
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("one")
    with pytest.raises(UserError, match="exists and is not a report; name another folder"):
        build_report([run], thesis)
    assert (thesis / "chapter.tex").read_text() == "one"


def test_a_report_does_not_replace_the_folder_one_stands_in(run, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="this command was started in it"):
        build_report([run], Path())
    page = build_report([run])
    monkeypatch.chdir(page.parent)
    with pytest.raises(UserError, match="this command was started in it"):
        build_report([RunDir(Path(".."))])
    assert page.exists()


def test_of_the_run_folder_one_stands_in(run, monkeypatch):
    monkeypatch.chdir(run.root)
    assert build_report([RunDir(Path())]) == run.root.resolve() / "report" / "index.html"


def test_a_build_that_fails_leaves_the_old_report(run):
    page = build_report([run])
    before = page.read_bytes()
    (run.selection / "scores.parquet").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        build_report([run])
    assert page.read_bytes() == before
    assert list(run.root.glob(".report*")) == []


def test_what_a_killed_report_has_left_goes_with_the_next(run):
    left = run.root / ".report-killed"
    (left / "new").mkdir(parents=True)
    build_report([run])
    assert not left.exists()
    assert [path.name for path in run.root.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no stage has finished there"):
        build_report([RunDir(tmp_path)])


def test_stages_that_have_not_run_say_so(tmp_path):
    run = RunDir(RunWriter(tmp_path).write("fresh", [], timings=[]))
    shutil.rmtree(run.selection)
    page = build_report([run])
    assert "The selection of this run has not finished" in section(page, "overview")
    for name in ("geometry", "scores", "gallery"):
        assert "The selection of this run has not finished" in section(page, name)
    training = section(page, "training")
    assert "This run has not been trained yet" in training
    assert "No benchmark of this run has been evaluated yet" in training
    assert "No table holds this run yet" in training
    assert "--compare" in section(page, "compare")


def test_the_untuned_model_is_called_that(tmp_path):
    writer = RunWriter(tmp_path)
    root = writer.write("untuned", [quickstart_result(2, 10)], tuning="none", timings=[])
    page = build_report([RunDir(root)])
    assert "This is the untuned model" in section(page, "overview")
    assert "This run is the untuned model" in section(page, "training")
    assert "10.0" in section(page, "training")


def test_a_selection_being_redone_is_not_shown_as_finished(run):
    (run.selection / "stage.json").unlink()
    assert FinishedRun(run).records is None
    assert "The selection of this run has not finished" in section(build_report([run]), "scores")


def test_a_pool_that_is_gone_costs_the_pictures_only(run, tmp_path):
    for path in run.root.rglob("stage.json"):
        record = read_json(path)
        record["config"]["data"]["records"] = str(tmp_path / "gone.json")
        write_json(path, record)
    page = build_report([run])
    assert "Map of the pool" in section(page, "geometry")
    assert "The pool cannot be opened" in section(page, "gallery")
    assert not (page.parent / "thumbs").exists()


def test_scores_of_an_older_version_say_how_to_get_the_geometry(run):
    path = run.selection / "scores.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["feature"]), path)
    assert "written by an older prism_tune" in section(build_report([run]), "geometry")


def test_a_selector_without_features_has_no_geometry(runs, tmp_path):
    page = build_report([RunDir(runs / "tiny-random")], tmp_path / "page")
    assert "The selector random looks at no features" in section(page, "geometry")


def test_every_record_has_the_feature_of_its_image(runs):
    """Records of one image share a row; text-only records have none."""
    run = FinishedRun(RunDir(runs / "tiny"))
    image_of = {row: run.pool.images(row) for row in range(len(run.pool))}
    rows = run.features.row_N
    for row, images in image_of.items():
        assert (rows[row] >= 0) == bool(images)
    with_image = [row for row, images in image_of.items() if images]
    shared = {(image_of[row][0], int(rows[row])) for row in with_image}
    assert len(shared) == len({name for name, _ in shared})
    read = run.features.read(np.array(with_image[:3][::-1]))
    one_by_one = [run.features.read(np.array([row]))[0] for row in with_image[:3][::-1]]
    np.testing.assert_array_equal(read, np.stack(one_by_one))
    assert run.features.read(np.array([], dtype=np.int64)).shape[0] == 0


def test_a_large_pool_is_sampled_evenly(runs):
    run = FinishedRun(RunDir(runs / "tiny"))
    everything = draw_sample(run)
    sample = draw_sample(run, max_records=10)
    assert len(sample.records) == 10
    assert sample.num_available == len(everything.records)
    places = np.flatnonzero(np.isin(everything.records, sample.records))
    assert (places[0], places[-1]) == (0, len(everything.records) - 1)
    assert np.ptp(np.diff(places)) <= 1


def test_sources_add_up_to_the_pool(runs):
    """40 images: 40 `shape`, 20 `colour`, 5 text-only and 6 hostile records; half of each kept."""
    run = FinishedRun(RunDir(runs / "tiny"))
    sources = {source.name: source for source in summarise_sources(run.records, run.keep)}
    counts = {name: (s.num_records, s.num_kept, s.num_text_only) for name, s in sources.items()}
    assert counts == {
        "shape": (40, 20, 0),
        "colour": (20, 10, 0),
        HOSTILE_SOURCE: (6, 3, 0),
        "text": (5, 5, 5),
    }
    assert sources["text"].cuts == ()
    (cut,) = sources["shape"].cuts
    scores = run.records.score_N[run.records.sources.mask("shape")]
    assert (scores < cut).sum() == 20


def test_overlap_is_counted_by_uid(runs):
    prism, random = (FinishedRun(RunDir(runs / name)) for name in ("tiny", "tiny-random"))
    overlap = measure_overlap(prism.records, random.records)
    kept = [
        {
            row["uid"]
            for row in pq.read_table(run.run.selection / "scores.parquet").to_pylist()
            if row["selected"] and row["reason"] != "text_only"
        }
        for run in (prism, random)
    ]
    assert overlap.num_shared == len(kept[0] & kept[1])
    assert overlap.jaccard == len(kept[0] & kept[1]) / len(kept[0] | kept[1])
    assert overlap.expected == pytest.approx(1 / 3)  # two random halves
    assert measure_overlap(prism.records, prism.records).jaccard == 1


def test_the_verdict_is_in_plain_words(runs):
    run = FinishedRun(RunDir(runs / "tiny"))
    lead, *details = describe_run(run, compare_runs([run]))
    assert lead == "prism kept 38 of 71 records (53.5 %), all 5 text-only records among them."
    text = " ".join(details)
    assert "no Random run of the same model, pool and tuning to judge it by" in text
    assert "of device time" in text
    assert "Every source keeps about the same share of its image records (50.0 %)." in text
    assert "when the images are withheld" in text


def test_what_the_selector_could_not_rank_is_said(tmp_path):
    text = "12 of 12 image records could not be ranked: sources of one record"
    manifest = {"num_text_only": 0, "unranked": {"text": text}}
    path = RunWriter(tmp_path).write("prism", [quickstart_result(0, 0)], manifest=manifest)
    assert f"{text}." in describe_run(open_runs([path])[0], None)


@pytest.fixture
def judged(tmp_path):
    """PRISM and Random under five seeds; `tables` has been asked of none of them.

    PRISM is 3 points ahead, and under each further seed a tenth more.
    """
    writer, found = RunWriter(tmp_path), []
    for scorer, gain in (("prism", 3), ("random", 0)):
        for seed, value in enumerate((50.0, 56.0, 62.0, 47.0, 66.0)):
            result = quickstart_result(0, 0, metrics={"accuracy": value + gain * (1 + seed / 30)})
            own = {"scorer": scorer, "seed": seed, "manifest": {"num_text_only": 0}}
            found.append(writer.write(f"{scorer}-{seed}", [result], **own))
    return open_runs(found)


def test_the_verdict_is_of_the_runs_in_the_report(judged):
    """Several seeds share a row; no written table is asked, so none can be out of date."""
    table = compare_runs(judged)
    assert "PRISM 25 % (lora) beat Random 25 % (lora) by" in " ".join(
        describe_run(judged[0], table)
    )
    assert find_row(table, judged[0]) is not None
    assert find_row(table, judged[0])["Rel."] == find_row(table, judged[1])["Rel."]


def test_results_that_cannot_be_compared_are_named_and_get_no_verdict(tmp_path):
    writer = RunWriter(tmp_path)
    judges = [{"judge": name} for name in ("gpt-4", "local")]
    roots = [
        writer.write(f"run-{k}", [quickstart_result(10, 10, provenance=judge)], timings=[])
        for k, judge in enumerate(judges)
    ]
    for root in roots:
        shutil.rmtree(root / "selection")
    found = section(build_report([RunDir(root) for root in roots]), "compare")
    assert "the runs differ in judge (run-0: gpt-4; run-1: local)" in found

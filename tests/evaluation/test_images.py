"""Benchmark images that cannot be used, under `data.policy`: refused, or skipped and told."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import draw_image

from prism_tune.config.sections import Config
from prism_tune.data.image_paths import ImageFolders
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.check_data import find_all
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.evaluation.finished_answers import read_benchmark
from prism_tune.evaluation.generate import Decoder
from prism_tune.evaluation.images import find_images
from prism_tune.report.question_pictures import _draw
from prism_tune.run.folder import RunDir, read_json
from prism_tune.schema import PlacedImage

NAMES = ("0.png", "1.png", "2.png", "3.png", "../4.png", "5.png")
SKIPPED = ("image_missing", "image_truncated", "image_outside", "image_unreadable")
SKIP = dict.fromkeys(SKIPPED, "skip")


class Bench:
    """Two questions on each of six images, all in `quickstart`'s layout."""

    def __init__(self, model_dir, root):
        self.model_dir, self.root, self.images = model_dir, root, root / "images"
        self.images.mkdir()
        for number, name in enumerate(NAMES):
            draw_image(self.images / name, number)
        rows = [
            {"question_id": f"{number}-{word}", "image": name, "text": f"is it {word}?",
             "answer": "yes", "category": "is"}
            for number, name in enumerate(NAMES)
            for word in ("red", "round")
        ]  # fmt: skip
        (root / "test.json").write_text(json.dumps(rows))
        self.data = {
            "quickstart": {"annotations": f"{root}/test.json", "image_dir": str(self.images)}
        }
        self.run = RunDir(root / "runs" / "run")
        self.asked = []
        self.roots = []

    def config(self, policy, **evaluation):
        return Config.model_validate(
            {
                "name": "run",
                "output_dir": str(self.root / "runs"),
                "model": {"path": str(self.model_dir)},
                "data": {
                    "records": "unused.json",
                    "num_workers": 0,
                    "policy": policy,
                    "image_roots": self.roots,
                },
                "training": {"tuning": "none"},
                "evaluation": {
                    "dtype": "float32",
                    "benchmarks": list(self.data),
                    "data": self.data,
                    **evaluation,
                },
            }
        )

    def evaluate(self, policy, **evaluation):
        self.asked.clear()
        evaluate(self.config(policy, **evaluation), self.run, force=False)
        (name,) = self.data
        return read_json(self.run.benchmark(name) / "results.json")

    def break_images(self):
        """One missing, one cut off, one outside the folder: 0, 1 and 4."""
        (self.images / "0.png").unlink()
        path = self.images / "1.png"
        path.write_bytes(path.read_bytes()[:60])


@pytest.fixture
def bench(tiny_llava_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    bench = Bench(tiny_llava_dir, tmp_path)
    answer = Decoder.answer

    def watch(self, requests, **options):
        bench.asked.extend(requests)
        return answer(self, requests, **options)

    monkeypatch.setattr(Decoder, "answer", watch)
    return bench


def test_a_broken_image_fails_by_default_before_anything_is_asked(bench):
    bench.break_images()
    with pytest.raises(UserError, match=r"2 bad questions\n  image_truncated: question '1-red': "):
        bench.evaluate({**SKIP, "image_truncated": "fail"})
    with pytest.raises(UserError, match=r"1 of 6 images cannot be used: \.\./4\.png; image "):
        bench.evaluate({"image_missing": "skip"})
    with pytest.raises(ConfigError, match="such records cannot be used"):
        bench.evaluate({"image_missing": "keep"})
    assert bench.asked == []


def test_skipped_questions_are_counted_listed_and_wrong(bench, capsys):
    bench.break_images()
    result = bench.evaluate(SKIP, controls=["shuffled"])
    assert len(bench.asked) == 6 + 6
    shown = {path.name for request in bench.asked for path in request.images}
    assert shown == {"2.png", "3.png", "5.png"}
    assert (result["num_examples"], result["num_missing"]) == (12, 6)
    assert result["provenance"]["num_skipped"] == {
        "image_missing": 2, "image_outside": 2, "image_truncated": 2,
    }  # fmt: skip
    listed = result["provenance"]["skipped"]
    assert [(item["question_id"], item["reason"]) for item in listed] == [
        ("0-red", "image_missing"), ("0-round", "image_missing"),
        ("1-red", "image_truncated"), ("1-round", "image_truncated"),
        ("4-red", "image_outside"), ("4-round", "image_outside"),
    ]  # fmt: skip
    assert listed[2]["detail"].startswith(f"question '1-red': {bench.images / '1.png'}: ")
    reasons = "image_missing 2, image_outside 2, image_truncated 2"
    assert f"6 of 12 question(s) skipped, counted as wrong: {reasons}" in result["notes"]
    assert [result["per_question"][f"{number}-red"] for number in (0, 1, 4)] == [0.0] * 3
    assert "quickstart (12, 6 skipped)" in capsys.readouterr().out


def test_a_mended_image_has_only_its_own_questions_asked(bench):
    bench.break_images()
    bench.evaluate(SKIP)
    draw_image(bench.images / "0.png", 0)
    result = bench.evaluate(SKIP)
    assert [request.images[0].name for request in bench.asked] == ["0.png", "0.png"]
    assert result["num_missing"] == 4


def test_a_link_to_a_shared_disk_leads_where_the_config_allows(bench):
    disk = bench.root / "disk"
    disk.mkdir()
    for number in range(6):
        draw_image(disk / f"{number}.png", number)
    (bench.images / "val").symlink_to(disk)
    rows = (bench.root / "test.json").read_text().replace("../", "")
    for number in range(6):
        rows = rows.replace(f'"{number}.png"', f'"val/{number}.png"')
    (bench.root / "test.json").write_text(rows)
    setting = r"evaluation\.data\.quickstart\.image_dir"
    told = (
        rf"^{setting}: 6 of 6 images cannot be used: val/0\.png, .*; "
        rf"image 'val/0\.png': a symbolic link leads out of {setting} "
        rf"to {disk}/0\.png; name the folder it leads to in data\.image_roots, or copy the files"
    )
    with pytest.raises(UserError, match=told):
        bench.evaluate({})
    bench.roots = [str(disk)]
    assert bench.evaluate({})["num_missing"] == 0
    assert len(bench.asked) == 12
    (place, *_) = read_benchmark(bench.run, "quickstart").images[0]
    assert _draw(place) == _draw(PlacedImage(disk, "0.png"))


def test_a_stricter_policy_looks_again(bench):
    bench.break_images()
    bench.evaluate(SKIP)
    with pytest.raises(UserError, match="image_truncated"):
        bench.evaluate({**SKIP, "image_truncated": "fail"})


def test_an_odd_image_is_asked_whatever_the_policy(bench):
    """The protocol says what is asked; only what cannot be shown is left out."""
    content = (bench.images / "0.png").read_bytes()
    for name in NAMES:
        (bench.images / name).with_suffix(".jpg").write_bytes(content)
    rows = (bench.root / "test.json").read_text().replace("../4", "4").replace(".png", ".jpg")
    (bench.images / "4.jpg").write_bytes(content)
    (bench.root / "test.json").write_text(rows)
    assert bench.evaluate({"image_wrong_type": "skip"})["provenance"]["num_skipped"] == {}
    assert len(bench.asked) == 12


def write_pope(bench, folder):
    """The hub's layout: a row whose image is sound, one that is broken and one without."""
    sound = (bench.images / "2.png").read_bytes()
    contents = {"popular": sound, "random": b"<html>", "adversarial": None}
    rows = [
        {"question_id": "1", "question": "Is there a dog?", "answer": "no", "category": category,
         "image": {"bytes": content, "path": "i.png"}}
        for category, content in contents.items()
    ]  # fmt: skip
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    bench.data = {"pope": {"annotations": str(folder)}}


def test_broken_bytes_inside_parquet_are_skipped_too(bench):
    write_pope(bench, bench.root / "pope")
    with pytest.raises(UserError, match=r"2 bad questions"):
        bench.evaluate({})
    result = bench.evaluate(SKIP)
    assert result["provenance"]["num_skipped"] == {"image_missing": 1, "image_unreadable": 1}
    assert len(bench.asked) == 1


def test_the_same_parquet_under_another_mount_is_the_same_data(bench):
    write_pope(bench, bench.root / "pope")
    before = bench.evaluate(SKIP)
    (bench.root / "pope").rename(bench.root / "scratch")
    bench.data = {"pope": {"annotations": str(bench.root / "scratch")}}
    assert bench.evaluate(SKIP) == before  # nothing has changed
    assert bench.asked == []
    moved = bench.evaluate(SKIP, controls=["blind"])
    assert moved["provenance"]["data"] == before["provenance"]["data"]
    assert [request.images for request in bench.asked] == [()]  # the control's alone
    rows = read_benchmark(bench.run, "pope").rows
    assert [row["reference"] for row in rows] == ["no"] * 3


def test_nothing_left_to_ask_is_an_error(bench):
    for path in bench.images.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="all 12 questions were skipped"):
        bench.evaluate(SKIP)


def test_data_check_counts_what_the_policy_skips(bench):
    bench.break_images()
    findings = {finding.name: finding for finding in find_all(bench.config(SKIP))}
    assert findings["quickstart"].is_there
    assert findings["quickstart"].detail == (
        "12 questions, 4 images, 2 not there, which data.policy skips"
    )


def test_of_a_videos_frames_the_one_in_the_middle_is_shown(tmp_path):
    """SEED-Bench's hub rows hold a list of frames."""
    frames = []
    for number in range(3):
        draw_image(tmp_path / f"{number}.png", number)
        content = (tmp_path / f"{number}.png").read_bytes()
        frames.append({"bytes": content, "path": f"{number}.png"})
    pq.write_table(pa.Table.from_pylist([{"image": frames}]), tmp_path / "t.parquet")
    reference = f"parquet:{tmp_path / 't.parquet'}#0#image"
    found = find_images([reference], ImageFolders(tmp_path), num_workers=0)
    assert found.paths[reference].read_bytes() == frames[1]["bytes"]

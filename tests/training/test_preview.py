from __future__ import annotations

import io
import json
import re
from contextlib import nullcontext

import pytest
from PIL import Image
from rich.console import Console

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.training.preview import Choice, preview


@pytest.fixture
def printed(monkeypatch):
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=True, color_system="standard")
    monkeypatch.setattr("prism_tune.training.preview.console", console)
    return output


def test_tokens_mask_and_thumbnails(tiny_llava_dir, drawn_pool, tmp_path, printed):
    data = {"records": str(drawn_pool), "image_dir": str(drawn_pool.parent / "images")}
    model = {"path": str(tiny_llava_dir), "template": "chatml"}
    config = Config.model_validate({"name": "x", "model": model, "data": data})
    preview(config, tmp_path / "preview", Choice(2))
    text = printed.getvalue()
    assert "record 0 (id 'shape-0'), source shape" in text
    assert "\x1b[35m<image> x 4\x1b[0m" in text
    assert "\x1b[1;32mcircle<|im_end|>\x1b[0m" in text
    assert "\x1b[1;32manswers that carry loss\x1b[0m, \x1b[35mimage tokens\x1b[0m" in text
    assert "39 tokens: 4 of images, 3 with label" in text
    thumbnails = sorted((tmp_path / "preview").iterdir())
    assert len(thumbnails) == 2
    for path in thumbnails:
        assert str(path) in text
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", (40, 32))


def test_more_records_than_there_are(tiny_llava_dir, tmp_path, printed):
    records = tmp_path / "pool.jsonl"
    turns = '[{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]'
    records.write_text(f'{{"id": 1, "conversations": {turns}}}\n')
    model = {"path": str(tiny_llava_dir)}
    tree = {"name": "x", "model": model, "data": {"records": str(records)}}
    preview(Config.model_validate(tree), tmp_path / "preview", Choice(3))
    assert printed.getvalue().count("with label") == 1
    assert not (tmp_path / "preview").exists()


@pytest.mark.parametrize("verdict", ["fail", "skip"])
def test_a_record_that_cannot_be_used_is_told_of_under_the_policy(
    tiny_llava_dir, tmp_path, printed, verdict
):
    Image.effect_noise((40, 32), 90).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:-300])
    turns = [{"from": "human", "value": "<image>\nhi"}, {"from": "gpt", "value": "yo"}]
    records = [{"id": f"r{n}", "image": f"{n}.png", "conversations": turns} for n in (0, 1)]
    (tmp_path / "pool.json").write_text(json.dumps(records))
    data = {"records": str(tmp_path / "pool.json"), "policy": {"image_truncated": verdict}}
    tree = {"name": "x", "model": {"path": str(tiny_llava_dir)}, "data": data}
    fails = pytest.raises(UserError, match=r"r1.*not all there")
    with fails if verdict == "fail" else nullcontext():
        preview(Config.model_validate(tree), tmp_path / "preview", Choice(2))
    assert printed.getvalue().count("with label") == 1
    left_out = "left out (image_truncated): " in printed.getvalue()
    assert left_out == (verdict == "skip")


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        (Choice(names=("shape-3", "shape-1")), ["shape-1", "shape-3"]),
        (Choice(1, source="colour"), ["colour-0"]),
    ],
)
def test_records_by_id_and_source_read_without_colours(
    choice, shown, tiny_llava_dir, drawn_pool, tmp_path, monkeypatch
):
    output = io.StringIO()
    monkeypatch.setattr("prism_tune.training.preview.console", Console(file=output, width=400))
    data = {"records": str(drawn_pool), "image_dir": str(drawn_pool.parent / "images")}
    model = {"path": str(tiny_llava_dir), "template": "chatml"}
    config = Config.model_validate({"name": "x", "model": model, "data": data})
    preview(config, tmp_path / "preview", choice)
    text = output.getvalue()
    assert text.startswith("\u27e6text\u27e7: carries loss; the rest is read and not learnt")
    assert re.findall(r"\(id '([^']+)'\)", text.replace("\n", " ")) == shown
    assert text.count("<|im_end|>\u27e7") == len(shown)
    with pytest.raises(UserError, match="no record with the id or uid 'gone'"):
        preview(config, tmp_path / "preview", Choice(names=("gone",)))
    with pytest.raises(UserError, match="none of 'gone'; its sources: colour, shape, text"):
        preview(config, tmp_path / "preview", Choice(source="gone"))

"""A pool with one fault of every kind, and what the audit makes of it."""

from __future__ import annotations

import json
import shutil
import struct
import zlib

import pytest
from PIL import Image
from support.verbs import run_verb

from prism_tune.audit import audit as audit_module
from prism_tune.audit.audit import audit
from prism_tune.audit.hints import HINTS
from prism_tune.config.load import load_config
from prism_tune.data import image_index, screening
from prism_tune.data.policy import REASONS, USABLE
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.timings import read_timings

pytestmark = pytest.mark.slow


@pytest.fixture
def open_config(tiny_llava_dir, drawn_pool, tmp_path, monkeypatch):
    """Own copies of pool and images; the call gives config and run folder."""
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(drawn_pool.parent, tmp_path / "pool")
    (tmp_path / "config.yaml").write_text(
        f"""
name: run
output_dir: {tmp_path / "runs"}
model: {{path: {tiny_llava_dir}, template: vicuna_v1}}
data:
  records: {tmp_path / "pool" / "pool.json"}
  image_dir: {tmp_path / "pool" / "images"}
  num_workers: 0
"""
    )

    def load(*overrides):
        return load_config(tmp_path / "config.yaml", overrides), RunDir(tmp_path / "runs" / "run")

    return load


SYSTEM_TURN = {"from": "system", "value": "Be brief."}


def make(name, question="<image>\nwhat?", answer="a cat", **extra):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "source": "made", "image": "1.png", "conversations": turns, **extra}


def write_bomb(path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data)


def break_everything(folder):
    """Appends one record for each reason, called by the reason's name."""
    images = folder / "images"
    frames = [Image.effect_noise((4, 2), 50) for _ in range(2)]
    frames[0].save(images / "moving.gif", save_all=True, append_images=frames[1:])
    Image.effect_noise((200, 4), 50).save(images / "long.png")
    Image.effect_noise((8, 8), 50).save(images / "png.jpg", format="PNG")
    Image.new("RGB", (8, 8), "white").save(images / "lost.png")
    (images / "html.jpg").write_text("<html>")
    (images / "empty.jpg").touch()
    Image.effect_noise((64, 64), 50).save(images / "half.png")
    (images / "half.png").write_bytes((images / "half.png").read_bytes()[:-500])
    write_bomb(images / "bomb.png")
    Image.new("F", (8, 8), 0.5).save(images / "depth.tif")
    Image.new("I;16", (8, 8), 300).save(images / "dark.png")
    (images / "link.png").symlink_to("/etc/hostname")
    twice = make("twin", "<image> twins?")
    records = [
        ["no object"],
        make("bad_field", answer=True),
        {"id": "no_conversations", "image": "1.png"},
        {**make("unknown_role"), "conversations": [{"from": "me", "value": "<image>"}]},
        {**make("not_alternating"), "conversations": make("")["conversations"][:1]},
        make("empty_question", " ", image=None),
        make("empty_answer", answer=" "),
        make("image_count", "<image><image> two of one?"),
        make("image_unmarked", "no placeholder"),
        make("image_unread", "what?", image=None, img="1.png"),
        make("image_remote", image="https://host/1.png"),
        {**make("system_turn"), "conversations": [*make("")["conversations"], SYSTEM_TURN]},
        {**make("tool_turn"), "conversations": [{"from": "tool", "value": "<image>"}]},
        make("unsupported_medium", "what?", image=None, video="1.mp4"),
        make("image_outside", image="../pool.json"),
        make("image_outside_link", image="link.png"),
        make("image_missing", image="gone.png"),
        make("image_empty", image="empty.jpg"),
        make("image_unreadable", image="html.jpg"),
        make("image_truncated", image="half.png"),
        make("image_bomb", image="bomb.png"),
        make("image_mode", image="depth.tif"),
        make("image_16bit", image="dark.png"),
        make("image_blank", image="lost.png"),
        make("image_wrong_type", image="png.jpg"),
        make("image_animated", image="moving.gif"),
        make("image_aspect_ratio", image="long.png"),
        twice,
        {**twice, "id": "duplicate"},
        make("over_long", "<image>" * 600, image=["1.png"] * 600),
        make("no_label", "<image>" + "why? " * 2000),
        make("cut", answer="because " * 2000),
    ]
    path = folder / "pool.json"
    path.write_text(json.dumps(json.loads(path.read_text()) + records))


def test_every_reason_is_found_once_counted_and_listed(open_config, tmp_path, capsys):
    break_everything(tmp_path / "pool")
    config, run = open_config()
    assert audit(config, run) is False
    summary = read_json(run.audit / "audit.json")
    never = {"image_refused", "special_token"}  # LLaVA's processor and tokenizer take them all
    assert set(summary["reasons"]) == set(REASONS) - never
    for reason, found in summary["reasons"].items():
        lines = (run.audit / f"{reason}.jsonl").read_text().splitlines()
        listed = [json.loads(line) for line in lines]
        assert found["records"] == (2 if reason == "image_outside" else 1)
        assert found["policy"] == ("keep" if reason in USABLE else "fail")
        if reason == "not_an_object":
            assert "record 26" in listed[0]["detail"]
        else:
            assert listed[0]["id"] == reason
    assert summary["num_records"] == 26 + 32
    assert summary["num_usable"] == 26 + 7 + 2  # as drawn, suspicious, the twin and the cut one
    assert summary["per_source"]["shape"] == {"records": 16, "fail": 0, "skip": 0, "keep": 0}
    assert summary["per_source"]["made"] == {"records": 30, "fail": 21, "skip": 0, "keep": 7}
    assert summary["per_source"]["images"]["fail"] == 1  # has neither source nor folder
    assert summary["per_source"]["(unreadable)"]["fail"] == 1
    assert summary["lengths"]["num_cut"] == 1
    assert summary["lengths"]["num_unusable"] == 2
    printed = capsys.readouterr().out
    assert "image_bomb" in printed
    assert HINTS["image_missing"] in printed
    assert "data.policy.image_missing=skip" in printed


def test_a_sound_pool_is_ready(open_config, capsys):
    config, run = open_config()
    assert audit(config, run) is True
    summary = read_json(run.audit / "audit.json")
    assert summary["reasons"] == {}
    assert (summary["num_records"], summary["num_usable"]) == (26, 26)
    assert (summary["num_text_only"], summary["num_images"]) == (2, 16)
    lengths = summary["lengths"]
    assert sum(row["records"] for row in lengths["histogram"]) == 26
    assert lengths["longest"] <= lengths["histogram"][-1]["up_to"]
    assert "26 of 26 records can be used" in capsys.readouterr().out


def test_the_audit_is_metered_and_names_its_code(open_config):
    config, run = open_config()
    audit(config, run)
    summary = read_json(run.audit / "audit.json")
    (entry,) = read_timings(run)
    assert (entry["stage"], entry["finished"]) == ("audit", True)
    assert entry["counts"] == {"records": summary["num_records"], "images": 16}
    assert "git_commit" in read_json(run.audit / "stage.json")["software"]


def test_lengths_are_those_the_model_will_see(open_config):
    from prism_tune.data.dataset import TuningDataset
    from prism_tune.data.records import open_pool
    from prism_tune.models.processor import load_processor

    config, run = open_config()
    audit(config, run)
    examples = TuningDataset(
        open_pool(config.data), range(26), load_processor(config.model), "vicuna_v1", 2048
    )
    lengths = [len(example["input_ids"]) for example in examples]
    summary = read_json(run.audit / "audit.json")["lengths"]
    assert summary["longest"] == max(lengths)
    assert [row["records"] for row in summary["histogram"]] == [
        sum(row["over"] < n <= row["up_to"] for n in lengths) for row in summary["histogram"]
    ]


def test_what_may_be_skipped_does_not_fail(open_config, tmp_path):
    (tmp_path / "pool" / "images" / "3.png").unlink()
    config, run = open_config()
    assert audit(config, run) is False
    config, run = open_config("data.policy.image_missing=skip")
    assert audit(config, run) is True
    summary = read_json(run.audit / "audit.json")
    assert summary["num_usable"] == 25
    assert summary["per_source"]["shape"] == {"records": 16, "fail": 0, "skip": 1, "keep": 0}


def test_finished_audit_is_not_repeated_until_an_image_changes(open_config, tmp_path, monkeypatch):
    config, run = open_config()
    assert audit(config, run) is True
    monkeypatch.setattr(audit_module, "screen_records", lambda *_: pytest.fail("examined"))
    assert audit(config, run) is True
    monkeypatch.undo()
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pool" / "images" / "3.png").write_bytes(b"broken")
    assert audit(config, run) is False
    assert (run.audit / "image_unreadable.jsonl").exists()
    shutil.copy(tmp_path / "pool" / "images" / "4.png", tmp_path / "pool" / "images" / "3.png")
    assert audit(config, run) is True
    assert list(run.audit.glob("*.jsonl")) == []


def test_the_same_pictures_elsewhere_need_no_second_audit(open_config, tmp_path, monkeypatch):
    audit(*open_config())
    shutil.copytree(tmp_path / "pool" / "images", tmp_path / "moved")
    monkeypatch.setattr(audit_module, "screen_records", lambda *_: pytest.fail("examined"))
    assert audit(*open_config(f"data.image_dir={tmp_path / 'moved'}")) is True


def test_another_run_seed_or_model_reads_no_image_and_counts_no_token_again(
    open_config, tiny_llava_dir, tmp_path, monkeypatch
):
    audit(*open_config())
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_llava_dir, tuned)
    weights = tuned / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    monkeypatch.setattr(image_index, "examine_image", lambda *_: pytest.fail("an image is read"))
    monkeypatch.setattr(screening, "estimate_lengths", lambda *_: pytest.fail("tokens are counted"))
    for others in (["name=second"], ["name=third", "seed=1"], [f"model.path={tuned}"]):
        assert audit(*open_config(*others, f"output_dir={tmp_path / 'others'}")) is True
    monkeypatch.undo()
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pool" / "images" / "3.png"
    before = path.stat()
    picture = bytearray(path.read_bytes())
    picture[-20] ^= 1  # of the same size, and broken
    path.write_bytes(picture)
    assert path.stat().st_size == before.st_size
    assert audit(*open_config("name=fourth")) is False


@pytest.mark.parametrize(
    "override",
    ["data.columns.text=other", "data.columns.id=other", "data.source=image_folder"],
)
def test_records_read_otherwise_are_audited_again(open_config, tmp_path, override, caplog):
    path = tmp_path / "pool" / "pool.json"
    records = json.loads(path.read_text())
    for number, record in enumerate(records):
        record["other"] = f"other-{number}"
        for turn in record["conversations"]:
            turn["other"] = f"{turn['value']} really"
    path.write_text(json.dumps(records))
    audit(*open_config())
    with caplog.at_level("INFO"):
        audit(*open_config(override))
    assert "audit: runs again (changed: pool)" in caplog.text


def test_a_record_with_two_missing_images_counts_once(open_config, tmp_path):
    path = tmp_path / "pool" / "pool.json"
    record = make("two", "<image><image>", image=["a.png", "b.png"])
    path.write_text(json.dumps([*json.loads(path.read_text()), record]))
    config, run = open_config()
    audit(config, run)
    found = read_json(run.audit / "audit.json")["reasons"]["image_missing"]
    assert (found["records"], found["per_source"]) == (1, {"made": 1})
    assert len((run.audit / "image_missing.jsonl").read_text().splitlines()) == 2


def test_exit_code_says_whether_the_pool_is_ready(open_config, tmp_path):
    (tmp_path / "pool" / "images" / "3.png").unlink()
    command = ["audit", str(tmp_path / "config.yaml")]
    refused = run_verb(*command)
    assert refused.returncode == 1
    assert "image_missing" in refused.stdout
    assert "Traceback" not in refused.stderr
    assert run_verb(*command, "data.policy.image_missing=skip").returncode == 0

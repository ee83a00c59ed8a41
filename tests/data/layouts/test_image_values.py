"""How records name their images, and what is no image or must not be left out unsaid."""

from __future__ import annotations

import base64
import math

import pytest

from prism_tune.config.sections import DataConfig
from prism_tune.data.adapt import UNREADABLE, adapt_record, build_reading, guess_source
from prism_tune.data.policy import BadRecordError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2
BASE64 = base64.b64encode(PNG).decode()


def read(record, **config):
    return adapt_record(record, build_reading(DataConfig(records="pool.json", **config)))


def flat(question="q", **keys):
    return {"question": question, "answer": "a", **keys}


def parts(*given):
    content = [*given, {"type": "text", "text": "q"}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]
    return {"messages": turns}


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{BASE64}",
        f"data:image;base64,{BASE64}",
        BASE64,
        {"bytes": None, "path": None, "url": f"data:image/png;base64,{BASE64}"},
        {"base64": BASE64},
        [{"bytes": PNG, "path": "coco/1.png"}],
        PNG,
    ],
)
def test_an_image_that_the_record_holds_is_named_by_its_content(value):
    (image,) = read(flat(image=value)).images
    assert image.name == "embedded:6df4434a9ad958d954d4f79c71bc03e8.png"
    assert image.content == PNG


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ({"bytes": None, "path": "a/1.jpg"}, "a/1.jpg"),
        ("file:///other/my%20photo.jpg", "/other/my photo.jpg"),
        ("file://localhost/other/1.jpg", "/other/1.jpg"),
        ("file://a/1.jpg", "a/1.jpg"),
        ("file:///C:/a/1.jpg", "C:/a/1.jpg"),
        ("a\\1.jpg", "a\\1.jpg"),
        ({"url": "a/1.jpg", "detail": "low"}, "a/1.jpg"),
    ],
)
def test_paths(value, name):
    assert [image.name for image in read(flat(image=value)).images] == [name]


@pytest.mark.parametrize("value", [None, math.nan, "", [], [None], {"bytes": None, "path": None}])
def test_no_image(value):
    adapted = read(flat(image=value))
    assert adapted.images == ()
    assert adapted.turns[0].text == "q"


def test_an_empty_column_does_not_hide_the_other():
    assert [i.name for i in read(flat(image="", images=["a.jpg"])).images] == ["a.jpg"]


def test_an_absolute_path_in_the_image_folder_is_relative_to_it(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "images").mkdir()
    for folder in ("images", "link"):
        record = flat(image=str(tmp_path / folder / "coco/1.jpg"))
        assert read(record, image_dir=str(tmp_path / "images")).images[0].name == "coco/1.jpg"
    outside = read(flat(image="/etc/1.jpg"), image_dir=str(tmp_path / "images"))
    assert outside.images[0].name == "/etc/1.jpg"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.jpg"},
        {"type": "image", "image": "a.jpg", "min_pixels": 4, "text": None},
        {"image": "a.jpg"},
        {"type": "image_url", "image_url": {"url": "a.jpg"}},
        {"type": "image_url", "image_url": "a.jpg"},
        {"type": "input_image", "image_url": "a.jpg"},
        {"type": "image", "url": "a.jpg"},
        {"type": "image", "path": "a.jpg"},
        {"type": "image", "source": {"type": "url", "url": "a.jpg"}},
    ],
)
def test_parts_that_name_their_image(part):
    adapted = read(parts(part))
    assert [image.name for image in adapted.images] == ["a.jpg"]
    assert adapted.turns[0].text == "<image>\nq"


def test_parts_with_base64():
    source = {"type": "base64", "media_type": "image/png", "data": BASE64}
    for part in ({"type": "image", "source": source}, {"type": "image", "base64": BASE64}):
        assert read(parts(part)).images[0].content == PNG


def test_interleaved_parts_take_their_own_images_and_the_columns_in_order():
    record = parts(
        {"type": "text", "text": "is "},
        {"type": "image", "image": "own.jpg"},
        {"type": "text", "text": "as "},
        {"type": "image"},
    )
    adapted = read({**record, "images": ["column.jpg"]})
    assert [image.name for image in adapted.images] == ["own.jpg", "column.jpg"]
    assert adapted.turns[0].text == "is <image>\nas <image>\nq"
    repeated = read({**parts({"image": "a.jpg"}), "images": ["a.jpg"]})
    assert [image.name for image in repeated.images] == ["a.jpg"]


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (flat(image="https://host/1.jpg"), "image_remote", "'https://host/1.jpg' is an address"),
        (parts({"image": "http://host/1.jpg"}), "image_remote", "is an address"),
        (flat(image="clip.mp4"), "unsupported_medium", "'clip.mp4' is no image"),
        (flat(image="data:video/mp4;base64,AAAA"), "unsupported_medium", "is no image"),
        (flat(image="data:image/png;base64,A"), "bad_field", "not base64"),
        (flat(image="data:image/png"), "bad_field", "a data URI without content"),
        (flat(image=3), "bad_field", "expected a path or a list of paths, or bytes: 3"),
        (flat(image=["a.jpg", None]), "bad_field", "1 of the images are null"),
        (flat(image="a\ud800.jpg"), "bad_field", "expected a path"),
        (parts({"image": "a.jpg"}, {"type": "image"}), "image_count", "2 <image> in the turns"),
        ({**parts({"image": "a.jpg"}), "images": ["b.jpg"]}, "image_count", "2 images"),
        (flat(video="clip.mp4"), "unsupported_medium", "`video`: 'clip.mp4'"),
        (flat(videos=["a", "b"]), "unsupported_medium", "`videos`"),
        (flat(audio={"array": [0.1], "path": None}), "unsupported_medium", "`audio`"),
        (flat(audios=["a.wav"], image="a.jpg"), "unsupported_medium", "`audios`"),
        (flat(video_path="clip"), "unsupported_medium", "`video_path`"),
        (flat(recording="x/clip.webm"), "unsupported_medium", "`recording`"),
        (flat(image_path="x"), "image_unread", "data.columns.image=image_path"),
        (flat(img="x"), "image_unread", "`img` holds an image that nothing reads: 'x'"),
        (flat(imageUrl="x"), "image_unread", "`imageUrl`"),
        (flat(image_1={"bytes": "bytes:00", "path": None}), "image_unread", "`image_1`"),
        (flat(pictures=["x", "y"]), "image_unread", "`pictures`"),
        (flat(file_name="x/1.JPG"), "image_unread", "`file_name`"),
        (flat("<image>\nq", screenshot="x"), "image_unread", "`screenshot`"),
    ],
)
def test_what_is_refused(record, reason, detail):
    reading = build_reading(config := DataConfig(records="pool.json"))
    with pytest.raises(BadRecordError) as error:
        adapt_record(record, reading)
    assert (error.value.reason, detail in error.value.detail) == (reason, True), error.value.detail
    if reason in {"unsupported_medium", "image_unread"} and "messages" not in record:
        assert guess_source(record, config, reading) == UNREADABLE
        assert guess_source({**record, "source": "films"}, config, reading) == "films"


@pytest.mark.parametrize(
    "keys",
    [
        {"video": None},
        {"videos": []},
        {"audio": math.nan},
        {"image_id": "12"},
        {"image_size": [3, 4]},
        {"has_image": "no"},
        {"num_images": 0},
        {"img": ""},
        {"id": "1.jpg", "source": "web.png"},
        {"note": "saved as plot.png"},
        {"model": "gpt-4o", "topic": "imagery"},
    ],
)
def test_text_only_records_with_other_keys_stay_usable(keys):
    assert read(flat(**keys)).images == ()


def test_a_key_that_the_config_names_is_read():
    columns = {"image": "img", "source": "video"}
    adapted = read(flat(img="a.jpg", video="cooking"), columns=columns)
    assert ([image.name for image in adapted.images], adapted.source) == (["a.jpg"], "cooking")

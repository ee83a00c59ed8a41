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


def turn(question="q", **keys):
    asked = {"role": "user", "content": question, **keys}
    return {"messages": [asked, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;base64,{BASE64}",
        base64.urlsafe_b64encode(PNG).decode(),
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
        ("FILE:///other/1.jpg", "/other/1.jpg"),
        ("file:/other/1.jpg", "/other/1.jpg"),
        ("file:///C:/a/1.jpg", "C:/a/1.jpg"),
        ("a\\1.jpg", "a\\1.jpg"),
        ({"url": "a/1.jpg", "detail": "low"}, "a/1.jpg"),
    ],
)
def test_paths(value, name):
    assert [image.name for image in read(flat(image=value)).images] == [name]


@pytest.mark.parametrize(
    "value", [None, math.nan, "", [], [None], [""], {"bytes": None, "path": None}]
)
def test_no_image(value):
    adapted = read(flat(image=value))
    assert adapted.images == ()
    assert adapted.turns[0].text == "q"


def test_text_that_speaks_of_markup_stays_text():
    for question in (
        "is <img> like <video>?",
        "<video>\n<source></video>\nwrong?",
        "[x] a",
    ):
        assert read(flat(question)).images == ()


@pytest.mark.parametrize(
    ("record", "names", "texts"),
    [
        (turn(images=["a.jpg"]), ["a.jpg"], ["<image>\nq"]),
        (turn("is <image>\nit?", image="a.jpg"), ["a.jpg"], ["is <image>\nit?"]),
        ({**turn(images=["a.jpg"]), "images": ["a.jpg"]}, ["a.jpg"], ["<image>\nq"]),
        (turn(image="a.jpg", images=["a.jpg"]), ["a.jpg"], ["<image>\nq"]),
        (turn(image="", images=["a.jpg"]), ["a.jpg"], ["<image>\nq"]),
        (
            {"messages": turn(image="a.jpg")["messages"] + turn("r", image="b.jpg")["messages"]},
            ["a.jpg", "b.jpg"],
            ["<image>\nq", "<image>\nr"],
        ),
        (
            turn("Picture 1: <img>a.jpg</img>\nPicture 2: <img>b.jpg</img>\nsame?"),
            ["a.jpg", "b.jpg"],
            ["Picture 1: <image>\nPicture 2: <image>\nsame?"],
        ),
        (
            {
                **parts({"type": "image", "index": 1}, {"type": "image", "index": 0}),
                "images": ["a.jpg", "b.jpg"],
            },
            ["b.jpg", "a.jpg"],
            ["<image>\n<image>\nq"],
        ),
    ],
)
def test_images_that_turns_name(record, names, texts):
    adapted = read(record)
    assert [image.name for image in adapted.images] == names
    assert [turn.text for turn in adapted.turns if turn.role == "human"] == texts


def test_an_empty_column_does_not_hide_the_other():
    same = read(flat(image="a.jpg", images=["a.jpg"]))
    assert [image.name for image in same.images] == ["a.jpg"]
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


@pytest.mark.parametrize("nothing", ["", None])
def test_parts_of_a_table_have_all_keys_and_say_one_thing_each(nothing):
    asked = [{"image": "a.jpg", "text": nothing}, {"image": nothing, "text": "q"}]
    asked += [
        {"type": "text", "text": "?", "image": {"bytes": None, "path": nothing}},
        {"image_url": {"url": nothing}, "text": "!"},
    ]
    (user, answer) = parts()["messages"]
    adapted = read({"messages": [{**user, "content": asked}, answer]})
    assert [image.name for image in adapted.images] == ["a.jpg"]
    assert adapted.turns[0].text == "<image>\nq?!"


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
        (
            parts({"type": "text", "text": "r", "image": "a.jpg"}),
            "image_unread",
            "`image` holds an",
        ),
        (parts({"type": "text", "text": "r", "pic": "a.jpg"}), "image_unread", "`pic` holds"),
        (parts({"type": "image", "text": "r", "image": "a.jpg"}), "bad_field", "a part for each"),
        (parts({"text": "r", "image": "a.jpg"}), "bad_field", "an image and something else: {'"),
        (parts({"image": "a.jpg", "video": "a.mp4"}), "bad_field", "an image and something else"),
        (turn(image="a.jpg", images=["b.jpg"]), "bad_field", "`images` hold different images"),
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
        (flat(image_id="12"), "image_unread", "`image_id` says which image it is about: '12'"),
        (flat(imageId=12), "image_unread", "`imageId` says which image"),
        (flat(meta={"img": "a/1.jpg"}), "image_unread", "`meta.img` holds an image"),
        (flat(media=[{"image": {"file": "a/1.jpg"}}]), "image_unread", "`media.image.file`"),
        (flat(meta={"clip": "a.mp4"}), "unsupported_medium", "`meta.clip`"),
        (flat(image="a.jpg", images=["b.jpg"]), "bad_field", "they hold different images"),
        (flat(image="a.jpg", image_2="b.jpg"), "image_unread", "`image_2` holds an image that"),
        (flat(image="a.jpg", image2={"bytes": "bytes:00"}), "image_unread", "`image2`"),
        (flat(images=["a.jpg"], img_1=["b.jpg"]), "image_unread", "beside those of the record"),
        (flat(image=["a.jpg", ""]), "bad_field", "1 of the images are null"),
        (flat(tools=[{"type": "function"}]), "tool_turn", "`tools`: [{'type': 'function'}]"),
        (flat("<ImageHere> q"), "image_count", "<ImageHere> in turn 0, 0 images"),
        (flat("<|vision_start|><|image_pad|><|vision_end|>q"), "image_count", "<|vision_start|>"),
        (flat("what is it?\n<Image>"), "image_count", "<Image> in turn 0, 0 images"),
        (flat("is <|image_1|> it?", image="a.jpg"), "image_count", "<|image_1|> in turn 0, 1 im"),
        (flat("<video>\nq"), "unsupported_medium", "turn 0: <video>"),
        (flat("q\n<audio>", image="a.jpg"), "unsupported_medium", "turn 0: <audio>"),
        (turn(video="a.mp4"), "unsupported_medium", "turn 0: `video`: 'a.mp4'"),
        (turn(clip="a.mp4"), "unsupported_medium", "turn 0: `clip`: 'a.mp4'"),
        (turn(image_path="x"), "image_unread", "turn 0: `image_path` holds an image"),
        (turn("<image>q", images=["a.jpg", "b.jpg"]), "image_count", "1 <image>, 2 images"),
        (turn("<img>http://host/1.jpg</img>q"), "image_remote", "is an address"),
        (
            {"objects": {"bbox": [[1, 2, 3, 4]]}, **flat("where is <ref-object>?", image="a.jpg")},
            "bad_field",
            "turn 0: <ref-object> is not filled from `objects`",
        ),
    ],
)
def test_what_is_refused(record, reason, detail):
    reading = build_reading(config := DataConfig(records="pool.json"))
    with pytest.raises(BadRecordError) as error:
        adapt_record(record, reading)
    assert (error.value.reason, detail in error.value.detail) == (reason, True), error.value.detail
    if (
        reason in {"unsupported_medium", "image_unread"}
        and "messages" not in record
        and "turn" not in detail
    ):
        assert guess_source(record, config, reading) == UNREADABLE
        assert guess_source({**record, "source": "films"}, config, reading) == "films"


@pytest.mark.parametrize(
    "keys",
    [
        {"video": None},
        {"videos": []},
        {"audio": math.nan},
        {"image_id": ""},
        {"image_id": -1},
        {"meta": {"caption_source": "1", "is_image": True, "id": 7}},
        {"tools": "[]"},
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


@pytest.mark.parametrize(
    "keys",
    [
        {"image_2": None},
        {"image_2": ""},
        {"image_1_size": [3, 4]},
        {"mask": "m.png"},
        {"thumbnail": "t.jpg"},
        {"step_2": "b.jpg"},
    ],
)
def test_records_with_images_keep_what_stands_beside_them(keys):
    assert [image.name for image in read(flat(image="a.jpg", **keys)).images] == ["a.jpg"]


def test_a_key_that_the_config_names_is_read():
    columns = {"image": "img", "source": "video"}
    adapted = read(flat(img="a.jpg", video="cooking"), columns=columns)
    assert ([image.name for image in adapted.images], adapted.source) == (["a.jpg"], "cooking")

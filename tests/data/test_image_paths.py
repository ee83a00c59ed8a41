"""Where images may lie: inside the folders that the config names, however they are spelt."""

from __future__ import annotations

import json

import pytest

from prism_tune.config.sections import DataConfig
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.records import open_pool


@pytest.fixture
def place(tmp_path):
    """`images/coco/1.jpg`, the same below `more`, and `secret/1.jpg`, which nothing may reach."""
    for folder in ("images/coco", "more/coco", "secret", "cache/ab"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.jpg").write_bytes(folder.encode())
    (tmp_path / "images/inside").symlink_to(tmp_path / "images/coco")
    (tmp_path / "images/to_more").symlink_to(tmp_path / "more")
    (tmp_path / "images/to_secret").symlink_to(tmp_path / "secret")
    (tmp_path / "more/to_secret").symlink_to(tmp_path / "secret")
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("coco/1.jpg", "images/coco/1.jpg"),
        ("coco\\1.jpg", "images/coco/1.jpg"),
        ("./coco//1.jpg", "images/coco/1.jpg"),
        ("inside/1.jpg", "images/coco/1.jpg"),
        ("{}/images/coco/1.jpg", "images/coco/1.jpg"),
        ("{}/linked/coco/1.jpg", "images/coco/1.jpg"),
        ("{}/more/coco/1.jpg", "more/coco/1.jpg"),
        ("{}/more\\coco\\1.jpg", "more/coco/1.jpg"),
        ("to_more/coco/1.jpg", "more/coco/1.jpg"),
        ("coco/gone.jpg", "images/coco/gone.jpg"),
    ],
)
def test_allowed(place, name, file):
    folders = ImageFolders(place / "images", (place / "more",))
    assert folders.resolve(name.format(place)) == place / file


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../secret/1.jpg", "without `..`"),
        ("..\\secret\\1.jpg", "without `..`"),
        ("coco/../../secret/1.jpg", "without `..`"),
        ("{}/images/../secret/1.jpg", "without `..`"),
        ("{}/secret/1.jpg", "an absolute path may lead into data.image_dir or a folder of"),
        ("{}/more_secret/1.jpg", "an absolute path may lead"),
        ("{}/more/to_secret/1.jpg", "an absolute path may lead"),
        ("to_secret/1.jpg", "a symbolic link leads out of data.image_dir to "),
        ("to_more/to_secret/1.jpg", "a symbolic link leads out"),
        ("C:\\images\\1.jpg", "an absolute path of Windows; expected one relative to"),
        ("C:/images/1.jpg", "an absolute path of Windows"),
        ("\\\\server\\1.jpg", "an absolute path may lead"),
        ("a\0b", "expected a path"),
        ("", "expected a path"),
    ],
)
def test_refused(place, name, problem):
    folders = ImageFolders(place / "images", (place / "more",), place / "cache")
    with pytest.raises(ImageError) as error:
        folders.resolve(name.format(place))
    assert error.value.reason == "image_outside"
    assert problem in str(error.value)
    assert f"data.image_roots are {place / 'more'}" in str(error.value)


def test_a_file_whose_name_has_a_backslash_is_found(place):
    (place / "images/coco\\1.jpg").write_bytes(b"odd")
    assert ImageFolders(place / "images").resolve("coco\\1.jpg") == place / "images/coco\\1.jpg"


def test_roots_count_for_the_pool_and_its_index(place):
    """A path that was refused is looked at again when its folder is named."""
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    names = ["coco\\1.jpg", f"{place}/more/coco/1.jpg", f"{place}/secret/1.jpg"]
    records = [{"image": name, "conversations": turns} for name in names]
    (place / "pool.json").write_text(json.dumps(records))

    def look(*roots):
        config = DataConfig(
            records=str(place / "pool.json"),
            image_dir=str(place / "images"),
            image_roots=roots,
            num_workers=0,
        )
        pool = open_pool(config)
        return pool.sources, [
            pool.image_index.findings[name][0][0] for name in pool.unique_images()
        ]

    unreadable, outside = "image_unreadable", "image_outside"
    assert look()[1] == [unreadable, outside, outside]
    sources, faults = look(str(place / "more"))
    assert (sources[:2], faults) == (["coco", "coco"], [unreadable, unreadable, outside])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a%20b.jpg", "a b.jpg"),
        ("ein%20%C3%BC.jpg", "ein \u00fc.jpg"),
        ("u\u0308.jpg", "\u00fc.jpg"),
        ("\u00fc.jpg", "u\u0308.jpg"),
        ("a%20b\\c.jpg", "a b/c.jpg"),
        ("100%.jpg", "100%.jpg"),
    ],
)
def test_a_file_that_is_spelt_otherwise_is_found(tmp_path, name, file):
    """As in a URL, or by a Mac; a file that is called so itself counts before it."""
    folders = ImageFolders(tmp_path)
    assert not folders.resolve(name).exists()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert folders.resolve(name) == tmp_path / file
    if "/" not in name and "\\" not in name:
        (tmp_path / name).touch()
        assert folders.resolve(name) == tmp_path / name


def test_an_escaped_way_out_is_none(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").touch()
    with pytest.raises(ImageError) as error:
        ImageFolders(tmp_path / "images").resolve("%2e%2e/secret.jpg")
    assert error.value.reason == "image_outside"

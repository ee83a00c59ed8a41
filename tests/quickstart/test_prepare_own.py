"""`prepare` replaces what it has made itself, and nothing else; a small recipe in place of ours."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from prism_tune.config.load import load_config
from prism_tune.errors import ConfigError
from prism_tune.quickstart import prepare as module
from prism_tune.quickstart.prepare import Recipe, prepare

pytestmark = pytest.mark.slow

YAML = Path(__file__).parents[2] / "configs/experiments/quickstart.yaml"
FILES = {"images/a.png": "a", "pool.json": "[]", "model/config.json": "{}"}


class Maker:
    """Builders of one folder or file each; what they write can be changed."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.made: list[str] = []
        self.fails_at: str | None = None

    def build(self, name):
        def write(_source, path: Path) -> None:
            if name == self.fails_at:
                raise KeyboardInterrupt
            self.made.append(name)
            for file, text in self.files.items():
                first, _, rest = file.partition("/")
                if first == name:
                    target = path / rest if rest else path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(text)

        return write

    def recipe(self):
        names = ("images", "pool.json", "model")
        return Recipe((), lambda wheels: wheels, {name: self.build(name) for name in names})


def config_for(root: Path):
    places = {"data.records": "pool.json", "data.image_dir": "images", "model.path": "model"}
    return load_config(YAML, [f"{key}={root / name}" for key, name in places.items()])


@pytest.fixture
def maker(monkeypatch):
    made = Maker()
    monkeypatch.setitem(module.RECIPES, "quickstart", made.recipe())
    monkeypatch.setattr(module, "fetch_wheels", lambda _wheels: {})
    return made


def contents(root: Path) -> dict[str, str]:
    """Of all but what `prepare` keeps for itself."""
    own = ("lock", "manifest.json")
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in own]
    return {str(path.relative_to(root)): path.read_text() for path in files}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MINE = {"images/me.png": "me", "pool.json": "[1]", "model/weights": "mine"}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", list(MINE))
def test_what_a_user_has_there_is_refused_and_left(maker, tmp_path, name, force):
    root = tmp_path / "mine"
    write(root, {name: MINE[name]})
    with pytest.raises(ConfigError) as refused:
        prepare(config_for(root), force=force)
    assert str(refused.value).startswith(f"{root / name.partition('/')[0]}: not made by")
    assert "set data.prepare: null" in str(refused.value)
    assert [path.name for path in root.iterdir()] == [name.partition("/")[0]]
    assert contents(root) == {name: MINE[name]}
    assert maker.made == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("written", ['{"files": []}', "[", '{"recipe": "x", "artifacts": [1]}'])
def test_a_manifest_of_somebody_else_allows_nothing(maker, tmp_path, written, force):
    write(tmp_path, {**MINE, "manifest.json": written})
    with pytest.raises(ConfigError, match=r"manifest\.json: not as `prism-tune prepare` writes it"):
        prepare(config_for(tmp_path), force=force)
    assert contents(tmp_path) == MINE
    assert (tmp_path / "manifest.json").read_text() == written


def test_what_was_made_is_replaced(maker, tmp_path):
    prepare(config_for(tmp_path), force=False)
    maker.files["pool.json"] = "[2]"
    prepare(config_for(tmp_path), force=True)
    assert contents(tmp_path) == {**FILES, "pool.json": "[2]"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert sorted(manifest) == ["artifacts", "recipe"]
    assert sorted(manifest["artifacts"]) == ["images", "model", "pool.json"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_among_those_made_is_kept(maker, tmp_path, force):
    prepare(config_for(tmp_path), force=False)
    write(tmp_path, {"images/me.png": "me"})
    prepare(config_for(tmp_path), force=False)  # nothing is rebuilt
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(ConfigError, match=r"images/me\.png: not made by `prism-tune prepare`"):
        prepare(config_for(tmp_path), force=force)
    assert (tmp_path / "images/me.png").read_text() == "me"


def test_a_link_is_not_followed_to_what_is_replaced(maker, tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    prepare(config_for(root), force=False)
    (root / "model").rename(elsewhere)
    (root / "model").symlink_to(elsewhere)
    prepare(config_for(root), force=False)  # intact where it lies now
    with pytest.raises(ConfigError, match="model: not made by"):
        prepare(config_for(root), force=True)
    assert contents(elsewhere) == {"config.json": "{}"}


@pytest.mark.parametrize("name", ["images", "pool.json", "model"])
def test_another_version_that_was_killed_is_continued(maker, tmp_path, monkeypatch, name):
    """What the version before has made counts as ours until it is replaced."""
    maker.files["images/old.png"] = "old"
    prepare(config_for(tmp_path), force=False)
    del maker.files["images/old.png"]
    monkeypatch.setattr(module, "_VERSION", 1000)
    maker.files["images/a.png"], maker.fails_at = "new", name
    with pytest.raises(KeyboardInterrupt):
        prepare(config_for(tmp_path), force=False)
    maker.fails_at = None
    prepare(config_for(tmp_path), force=False)
    assert contents(tmp_path) == {**FILES, "images/a.png": "new"}


@pytest.mark.parametrize("step", ["_remove", "replace"])
def test_a_call_killed_around_the_replacement_is_continued(maker, tmp_path, monkeypatch, step):
    prepare(config_for(tmp_path), force=False)
    maker.files = {**FILES, "images/a.png": "new"}
    remove, replace = module._remove, module.os.replace

    def removed_and_killed(path):
        remove(path)
        if path.name == "images":
            raise KeyboardInterrupt

    def placed_and_killed(source, target):
        replace(source, target)
        if Path(target).name == "images":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "_remove":
            patch.setattr(module, "_remove", removed_and_killed)
        else:
            patch.setattr(module.os, "replace", placed_and_killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(config_for(tmp_path), force=True)
    prepare(config_for(tmp_path), force=False)
    assert contents(tmp_path) == maker.files


def test_what_an_older_version_had_not_recorded_yet_is_taken_where_it_is_the_same(maker, tmp_path):
    prepare(config_for(tmp_path), force=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["artifacts"]["model"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    prepare(config_for(tmp_path), force=False)
    assert contents(tmp_path) == FILES
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    write(tmp_path, {"model/config.json": "mine"})
    with pytest.raises(ConfigError, match="model: not made by"):
        prepare(config_for(tmp_path), force=False)
    assert contents(tmp_path) == {**FILES, "model/config.json": "mine"}


def test_who_comes_second_waits_and_makes_nothing(maker, tmp_path, monkeypatch):
    begun, waiting = threading.Event(), threading.Event()
    say = module.logger.info

    def note(text, *values):
        say(text, *values)
        if "waiting" in text:
            waiting.set()

    def open_slowly(wheels):
        begun.set()
        assert waiting.wait(timeout=60)
        return wheels

    monkeypatch.setattr(module.logger, "info", note)
    recipe = Recipe((), open_slowly, maker.recipe().builders)
    monkeypatch.setitem(module.RECIPES, "quickstart", recipe)
    first = threading.Thread(target=prepare, args=(config_for(tmp_path),), kwargs={"force": False})
    first.start()
    assert begun.wait(timeout=60)
    prepare(config_for(tmp_path), force=False)
    first.join()
    assert maker.made == ["images", "pool.json", "model"]
    assert contents(tmp_path) == FILES

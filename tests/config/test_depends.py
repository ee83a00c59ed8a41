"""The one declaration of what each config field changes, against what the stages do.

Two directions. Every field is changed to another valid value (or the file that it names is), and
the inputs by which the real stages decide to rerun are compared: exactly those stages change that
the declaration names. And while the stages really run, every field that they read is noted: what
is read has to be declared, or to change nothing that is kept.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file
from support.tiny import draw_image
from support.tiny_encoders import save_encoder

from prism_tune.audit.audit import audit
from prism_tune.config.depends import BY_CONTENT, DEPENDS, list_fields
from prism_tune.config.sections import Config, Section
from prism_tune.data.records import Pool, open_pool
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.models.processor import load_processor
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.selection.evidence.embeddings.image_text import COSINES, record_text
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.gradients.norms import GRADIENT_NORMS
from prism_tune.selection.evidence.gradients.sketches import SketchOptions, gradient_sketches
from prism_tune.selection.evidence.source import Gathering
from prism_tune.selection.evidence.states.attention_outputs import ATTENTION_OUTPUTS
from prism_tune.selection.evidence.states.state_spectra import STATE_SPECTRA
from prism_tune.selection.evidence.states.weighted_states import WEIGHTED_STATES
from prism_tune.selection.evidence.units import find_units, usable_images
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.evidence.without import BLIND_LOSSES, UNASKED_LOSSES
from prism_tune.selection.inputs import resolve_selection
from prism_tune.selection.meter import SelectionMeter
from prism_tune.selection.reference.read import read_config
from prism_tune.selection.select import select
from prism_tune.training.train import train

pytestmark = pytest.mark.slow


def evaluate_untuned(config: Config, run: RunDir) -> None:
    """Without a trained model, whose fingerprint is of what training depends on."""
    evaluate(change(config, "training.tuning", "none"), run, force=False)


STAGES = {"audit": audit, "subset": select, "model": train, "answers": evaluate_untuned}
SOURCES = {
    "features": (FEATURES, "prefix"),
    "answer_losses": (ANSWER_LOSSES, "answers"),
    "blind_losses": (BLIND_LOSSES, "answers"),
    "unasked_losses": (UNASKED_LOSSES, "answers"),
    "attention_outputs": (ATTENTION_OUTPUTS, "conversation"),
    "state_spectra": (STATE_SPECTRA, "conversation"),
    "weighted_states": (WEIGHTED_STATES, "conversation"),
    "gradient_norms": (GRADIENT_NORMS, "answers"),
    "gradient_sketches": (gradient_sketches(SketchOptions(dimension=64)), "answers"),
}


ROWS = {*SOURCES, "embeddings"}
"""Evidence of every kind."""


def walk(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Every field of the model by its dotted name; `compare` and dictionaries are one."""
    names = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names += walk(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


@pytest.fixture(scope="module")
def place(tiny_llava_dir, drawn_pool, tmp_path_factory):
    """A pool of its own with a second answer column, and a model of its own."""
    root = tmp_path_factory.mktemp("depends")
    shutil.copytree(drawn_pool.parent, root / "pool")
    records = json.loads(drawn_pool.read_text())
    for record in records:
        human, answer = record["conversations"][:2]
        record["other"] = [human, {**answer, "value": answer["value"] + " indeed"}]
        record["picture"] = record.get("image")
    records[0]["picture"] = "unseen.png"
    asked = records[1]["conversations"][0]
    asked["value"] = asked["value"].removeprefix("<image>\n") + "\n<image>"
    records[3]["system"] = "Be brief."
    draw_image(root / "pool/images/unseen.png", 99)
    (root / "pool/pool.json").write_text(json.dumps(records))
    for folder in ("pope", "other_pope"):
        write_pope(root / folder, "yes" if folder == "pope" else "no")
    question = {"question_id": 1, "image": "0.png", "text": "what is it?", "answer": "red"}
    (root / "asked.json").write_text(json.dumps([{**question, "category": "colour"}]))
    for family in ("clip", "siglip"):
        save_encoder(family, root / family)
    place = SimpleNamespace(root=root, model=tiny_llava_dir, records=records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_TUNE_CACHE", str(root / "cache"))
        select(base_config(place), RunDir(root / "run"))  # for training.records: subset
    return place


def write_pope(folder: Path, label: str) -> None:
    folder.mkdir()
    for split in ("random", "popular", "adversarial"):
        question = {"question_id": 1, "image": "0.png", "text": "Is there a circle?"}
        content = json.dumps({**question, "label": label}) + "\n"
        (folder / f"coco_pope_{split}.json").write_text(content)


@pytest.fixture
def base(place, monkeypatch):
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(place.root / "cache"))
    return base_config(place)


def base_config(place) -> Config:
    return Config.model_validate(
        {
            "name": "run",
            "output_dir": str(place.root / "runs"),
            "model": {"path": str(place.model), "template": "chatml"},
            "data": {
                "records": str(place.root / "pool/pool.json"),
                "image_dir": str(place.root / "pool/images"),
                "num_workers": 0,
            },
            "selection": {"dtype": "float32", "budget": 0.5},
            "training": {
                "records": "pool",
                "batching": "packed",
                "deepspeed": None,
                "hf": {"max_steps": 2, "learning_rate": 0.01, "per_device_train_batch_size": 1},
            },
            "evaluation": {
                "benchmarks": ["pope"],
                "data": {
                    "pope": {
                        "annotations": str(place.root / "pope"),
                        "image_dir": str(place.root / "pool/images"),
                    },
                    "quickstart": {
                        "annotations": str(place.root / "asked.json"),
                        "image_dir": str(place.root / "pool/images"),
                    },
                },
            },
        }
    )


def change(config: Config, name: str, value: Any) -> Config:
    section, _, key = name.rpartition(".")
    tree = config.model_dump(mode="json")
    (tree[section] if section else tree)[key] = value
    return Config.model_validate(tree)


def other_records(place) -> str:
    path = place.root / "others.json"
    first = place.records[0]
    first = {**first, "conversations": first["other"], "image": first["picture"]}
    path.write_text(json.dumps([first, *place.records[1:]]))
    return str(path)


def other_images(place) -> str:
    folder = place.root / "other_images"
    if not folder.exists():
        shutil.copytree(place.root / "pool/images", folder)
        draw_image(folder / "3.png", 98)
    return str(folder)


def other_model(place) -> str:
    folder = place.root / "other_model"
    if not folder.exists():
        shutil.copytree(place.model, folder)
        weights = load_file(folder / "model.safetensors")
        save_file({key: 2 * value for key, value in weights.items()}, folder / "model.safetensors")
    return str(folder)


def same_model(place) -> str:
    folder = place.root / "moved_model"
    if not folder.exists():
        shutil.copytree(place.model, folder)
    return str(folder)


def own_list(place, name) -> str:
    path = place.root / f"{name}.txt"
    path.write_text(f"{name}\n")
    return str(path)


def own_matrix(place) -> str:
    path = place.root / "own.npy"
    np.save(path, np.random.default_rng(0).normal(size=(len(place.records), 4)))
    return str(path)


COMPARE = {"selectors": ["random"], "metrics": ["pope.accuracy"]}
SECOND: dict[str, Any] = {
    "name": "other",
    "seed": 1,
    "model_name": "Tiny",
    "output_dir": lambda place: str(place.root / "elsewhere"),
    "compare_random": True,
    "plugins": ["my_scorer.py"],
    "compare": COMPARE,
    "model.path": other_model,
    "model.revision": "main",
    "model.dtype": "bfloat16",
    "model.attn_implementation": "eager",
    "model.trust_remote_code": True,
    "model.template": "vicuna_v1",
    "model.image_aspect_ratio": "processor",
    "model.image_backend": "torchvision",
    "data.records": other_records,
    "data.image_dir": other_images,
    "data.image_roots": ["elsewhere"],
    "data.prepare": "quickstart",
    "data.columns": {"conversations": "other", "image": "picture"},
    "data.source": "image_folder",
    "data.source_names": {"shape": "form"},
    "data.image_place": "keep",
    "data.system": "drop",
    "data.policy": {"image_wrong_type": "fail"},
    "data.max_length": 300,
    "data.num_workers": 1,
    "selection.scorer": "random",
    "selection.budget": 0.25,
    "selection.budgets": [0.1],
    "selection.budget_of": "rows",
    "selection.text_only": "drop",
    "selection.source_budgets": {"shape": 0.2},
    "selection.must_keep": lambda place: own_list(place, "shape-0"),
    "selection.must_drop": lambda place: own_list(place, "shape-1"),
    "selection.features_file": lambda place: own_matrix(place),
    "selection.reference": lambda place: {"model": other_model(place), "template": "chatml"},
    "selection.scope": "global",
    "selection.centering": "none",
    "selection.keep": "high",
    "selection.features": "joint",
    "selection.layer": 2,
    "selection.pooling": "last",
    "selection.tokens_per_batch": 77,
    "selection.dtype": "bfloat16",
    "selection.options": {"layers": [3]},
    "training.records": "subset",
    "training.tuning": "projector",
    "training.lora": {"r": 2},
    "training.learning_rates": {"projector": 1e-4},
    "training.freeze": [],
    "training.deepspeed": "configs/deepspeed/zero2.json",
    "training.batching": "random",
    "training.tokens_per_batch": 77,
    "training.validation": 0.5,
    "training.grace_seconds": 60,
    "training.hf": {"max_steps": 3},
    "evaluation.benchmarks": ["pope", "quickstart"],
    "evaluation.data": lambda place: {
        "pope": {
            "annotations": str(place.root / "other_pope"),
            "image_dir": str(place.root / "pool/images"),
        }
    },
    "evaluation.profile": "lmms_eval",
    "evaluation.controls": ["blind"],
    "evaluation.chat_template": True,
    "evaluation.batch_size": 4,
    "evaluation.dtype": "bfloat16",
    "evaluation.backend": "openai",
    "evaluation.base_url": "http://other/v1",
    "evaluation.served_model": "other",
    "evaluation.serve_command": "serve {model} --port {port}",
    "evaluation.concurrency": 4,
    "tracking.wandb": True,
    "tracking.project": "other",
    "tracking.entity": "other",
}
"""A second valid value of every field, or what makes one."""

CONTENT_STAYS = {"model.revision", "data.image_roots"}
"""Of fields compared by content: the second value stands for the same content."""


class DecidedError(Exception):
    """Carries the inputs by which a stage decides whether it has to run."""


def deciding_inputs(stage, config: Config, root) -> Any:
    """What the real stage would rerun for: it is stopped where it decides."""

    def decide(self, inputs):
        raise DecidedError(inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "changed_inputs", decide)
        with pytest.raises(DecidedError) as decided:
            stage(config, RunDir(root / "run"))
    return json.loads(json.dumps(decided.value.args[0], default=str))


def rows_read(config: Config, place) -> dict[str, tuple[Any, frozenset[str]]]:
    """By kind of evidence: the store that it would lie in, and the keys of its rows there."""
    pool = open_pool(config.data)
    read = read_config(resolve_selection(config))
    processor = load_processor(change(read, "model.image_backend", "pil").model)
    units = {
        kind: frozenset(find_units(read, pool, kind, processor, {}).keys)
        for kind in {kind for _, kind in SOURCES.values()}
    }
    rows = {name: (source.depends(read), units[kind]) for name, (source, kind) in SOURCES.items()}
    return {**rows, "embeddings": embedded(config, pool, place)}


def embedded(config: Config, pool: Pool, place) -> tuple[Any, frozenset[str]]:
    """Of another model than the config's: its options name it."""
    encoder = "siglip" if config.selection.options else "clip"
    config = change(config, "selection.options", {"model": str(place.root / encoder)})
    texts = {record_text(pool[n]) for n in range(len(pool)) if pool.images(n)}
    images = {key for keys in usable_images(config, pool, {})[0].values() for key in keys}
    return COSINES.depends(config), frozenset(texts | images)


def test_every_field_is_declared_and_has_a_second_value():
    """A new field of the config fails here until it is said what it changes."""
    fields = walk(Config)
    assert sorted(fields) == sorted(DEPENDS)
    assert sorted(fields) == sorted(SECOND)
    assert DEPENDS.keys() >= BY_CONTENT


def test_the_listed_fields_are_those_of_the_model(base):
    assert sorted(list_fields(base)) == sorted(walk(Config))


@pytest.fixture(scope="module")
def decided() -> dict[str, Any]:
    """What the base decides by, found once: inputs of its stages, and the rows that it reads."""
    return {}


def of_base(decided: dict[str, Any], base: Config, place) -> dict[str, Any]:
    if not decided:
        for artifact, stage in STAGES.items():
            decided[artifact] = deciding_inputs(stage, base, place.root)
        decided.update(rows_read(base, place))
    return decided


@pytest.mark.parametrize("name", SECOND)
def test_a_field_reruns_exactly_the_stages_declared(name, place, base, decided):
    value = SECOND[name](place) if callable(SECOND[name]) else SECOND[name]
    other = change(base, name, value)
    assert list_fields(other)[name] != list_fields(base)[name]
    expected = set() if name in CONTENT_STAYS else set(DEPENDS[name])
    before = of_base(decided, base, place)
    changed = {
        artifact
        for artifact, stage in STAGES.items()
        if before[artifact] != deciding_inputs(stage, other, place.root)
    }
    for artifact, (other_store, other_keys) in rows_read(other, place).items():
        store, keys = before[artifact]
        if store != other_store or not other_keys <= keys:
            changed.add(artifact)
    assert changed == expected & (STAGES.keys() | ROWS)


def test_a_model_that_only_moved_reruns_nothing(place, base):
    moved = change(base, "model.path", same_model(place))
    for stage in STAGES.values():
        assert deciding_inputs(stage, base, place.root) == deciding_inputs(stage, moved, place.root)
    assert rows_read(base, place) == rows_read(moved, place)


@pytest.mark.parametrize(
    "name",
    ["data.records", "data.image_dir", "model.path", "training.deepspeed", "evaluation.data"],
)
def test_a_file_that_changes_in_its_place_reruns_what_reads_it(name, place, base, tmp_path):
    """The path stays; what lies behind it does not."""
    for folder in ("pool", "pope"):
        shutil.copytree(place.root / folder, tmp_path / folder)
    shutil.copytree(place.model, tmp_path / "model")
    deepspeed = tmp_path / "zero.json"
    shutil.copy("configs/deepspeed/zero2.json", deepspeed)
    asked = {"annotations": str(tmp_path / "pope"), "image_dir": str(place.root / "pool/images")}
    config = base
    for field, value in {
        "data.records": str(tmp_path / "pool/pool.json"),
        "data.image_dir": str(tmp_path / "pool/images"),
        "model.path": str(tmp_path / "model"),
        "training.deepspeed": str(deepspeed),
        "training.batching": "random",
        "evaluation.data": {"pope": asked},
    }.items():
        config = change(config, field, value)
    before = {stage: deciding_inputs(run, config, tmp_path) for stage, run in STAGES.items()}
    rows = rows_read(config, place)
    replace_content(name, place, tmp_path)
    changed = {
        s for s, run in STAGES.items() if deciding_inputs(run, config, tmp_path) != before[s]
    }
    changed |= {kind for kind, read in rows_read(config, place).items() if read != rows[kind]}
    assert changed == set(DEPENDS[name]) & (STAGES.keys() | ROWS)


def replace_content(name: str, place, folder: Path) -> None:
    if name == "data.records":
        shutil.copy(other_records(place), folder / "pool/pool.json")
    elif name == "data.image_dir":
        shutil.copy(f"{other_images(place)}/3.png", folder / "pool/images/3.png")
    elif name == "model.path":
        shutil.copy(f"{other_model(place)}/model.safetensors", folder / "model")
    elif name == "training.deepspeed":
        content = json.loads((folder / "zero.json").read_text())
        content["zero_optimization"]["overlap_comm"] = False
        (folder / "zero.json").write_text(json.dumps(content))
    else:
        shutil.rmtree(folder / "pope")
        shutil.copytree(place.root / "other_pope", folder / "pope")


@pytest.fixture
def fields_read(monkeypatch):
    """Names of the config fields that anything reads from now on."""
    read: set[str] = set()
    sections = {
        type(getattr(base_section, name)): f"{name}."
        for base_section in [Config.model_construct(**_empty_sections())]
        for name in _empty_sections()
    }
    original = Section.__getattribute__

    def note(self, name):
        prefix = "" if type(self) is Config else sections.get(type(self))
        if prefix is not None and f"{prefix}{name}" in DEPENDS:
            read.add(f"{prefix}{name}")
        return original(self, name)

    monkeypatch.setattr(Section, "__getattribute__", note, raising=False)
    return read


def _empty_sections() -> dict[str, Section]:
    return {
        name: field.annotation.model_construct()
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


@pytest.mark.parametrize(
    ("artifact", "selection"),
    [
        ("audit", {}),
        ("subset", {"scorer": "prism"}),
        ("subset", {"scorer": "alignment"}),
        ("subset", {"scorer": "perplexity"}),
        ("subset", {"scorer": "grand"}),
        ("subset", {"scorer": "d2", "options": {"difficulty": "el2n"}}),
        ("subset", {"scorer": "kernel_prism"}),
        ("subset", {"scorer": "tive", "options": {"dimension": 64}, "reference": {}}),
        ("subset", {"scorer": "length"}),
        ("subset", {"scorer": "random", "budget_of": "tokens", "text_only": "own_source"}),
        ("model", {}),
        ("answers", {}),
    ],
)
def test_what_a_stage_reads_is_declared(artifact, selection, place, base, fields_read, tmp_path):
    config = change(base, "output_dir", str(tmp_path / "runs"))
    for key, value in selection.items():
        config = change(config, f"selection.{key}", value)
    fields_read.clear()
    STAGES[artifact](config, RunDir(tmp_path / "runs/run"))
    assert {"model.path", "model.template", "data.policy"} <= fields_read  # noted indeed
    harmless = {name for name, artifacts in DEPENDS.items() if not artifacts}
    declared = {name for name, artifacts in DEPENDS.items() if artifact in artifacts}
    if artifact == "answers":  # it says which model is asked, whose content is compared
        declared.add("training.tuning")
    assert fields_read - declared - harmless == set()


@pytest.mark.parametrize("name", SOURCES)
def test_what_evidence_reads_is_declared(name, place, base, fields_read, tmp_path):
    config = resolve_selection(change(base, "output_dir", str(tmp_path / "runs")))
    pool = open_pool(config.data)
    fields_read.clear()
    gathering = Gathering(config, pool, SelectionMeter(None), tmp_path / "links")
    SOURCES[name][0].compute(gathering, {})
    harmless = {field for field, artifacts in DEPENDS.items() if not artifacts}
    declared = {field for field, artifacts in DEPENDS.items() if name in artifacts}
    # Who is left out is the pool's affair, further layers lie in stores of their own, and a matrix
    # of one's own in none.
    declared |= {"data.policy", "selection.text_only"}
    declared |= {"selection.options", "selection.features_file"}
    assert "model.path" in fields_read
    assert fields_read - declared - harmless == set()

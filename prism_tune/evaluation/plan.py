"""What one benchmark of a config will do, checked before a model is loaded.

In: the config and the name of a benchmark. Out: its questions with existing images, and everything
its result depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_tune.config.sections import BenchmarkData, Config
from prism_tune.data.images import Finding
from prism_tune.data.policy import REASONS, USABLE, decide
from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.images import measure_images
from prism_tune.evaluation.score import find_benchmark
from prism_tune.models.adapters import name_base
from prism_tune.run.fingerprints import fingerprint, fingerprint_model
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.schema import Question, Skipped

IMAGE_FAULTS = tuple(
    reason
    for reason in REASONS
    if reason.startswith("image_") and reason != "image_count" and reason not in USABLE
)
"""What makes a question's image unusable; what is merely odd is asked, as the protocol has it."""

_NUM_LISTED = 5


@dataclass(frozen=True)
class Plan:
    """One benchmark, ready to be answered.

    Attributes:
        benchmark: its protocol.
        questions: the first `limit` ones.
        image_dir: what their images are relative to.
        image_sizes: of each image of these questions that is there, in bytes.
        skipped: by their place in `questions`, those whose image cannot be used.
        data_checksum: of all questions and their references.
        folder: where answers and results go.
        inputs: everything the result depends on, by the name shown when it changed.
    """

    benchmark: Benchmark
    questions: tuple[Question, ...]
    image_dir: Path
    image_sizes: dict[str, int]
    data_checksum: str
    folder: Path
    inputs: dict[str, Any]
    skipped: Mapping[int, Skipped] = field(default_factory=dict)

    @property
    def answerable(self) -> list[Question]:
        """The questions that are put to the model."""
        return [q for number, q in enumerate(self.questions) if number not in self.skipped]

    @property
    def stage(self) -> Stage:
        """Whether the benchmark finished."""
        return Stage(self.folder)

    @property
    def image_cache(self) -> Path:
        """Where embedded images are written out."""
        return self.folder / "images"

    @property
    def title(self) -> str:
        """The stage's name in the log and in timings.json."""
        return f"evaluation/{self.benchmark.name}"


def find_checkpoint(config: Config, run: RunDir) -> tuple[Path | None, str]:
    """The tuned checkpoint and what identifies it; no path for an untuned model.

    `model.path` may itself be an adapter directory (`tuning: none`): then it is the checkpoint,
    and its base counts as well.

    Raises:
        UserError: the run has not been trained.
    """
    if config.training.tuning != "none":
        return run.checkpoint, Stage(run.training).require("train")["fingerprint"]
    own = fingerprint_model(config.model.path, config.model.revision)
    base = name_base(config.model)
    if base is config.model:
        return None, own
    return Path(config.model.path), fingerprint([own, fingerprint_model(base.path, base.revision)])


def plan_benchmark(config: Config, run: RunDir, name: str, checkpoint_fingerprint: str) -> Plan:
    """Load a benchmark's questions and check that their images are there.

    Raises:
        UserError: no such benchmark, no `evaluation.data` for it, bad annotations, annotations
            that can score but not ask, missing images.
    """
    loaded = load_questions(config, name)
    benchmark, profile = loaded.benchmark, config.evaluation.profile
    checksum = fingerprint(loaded.questions)
    return Plan(
        benchmark=benchmark,
        questions=loaded.asked,
        image_dir=loaded.image_dir,
        image_sizes=loaded.image_sizes,
        data_checksum=checksum,
        folder=run.benchmark(name),
        inputs={
            "checkpoint": checkpoint_fingerprint,
            "data": checksum,
            "images": fingerprint(loaded.image_sizes),
            "data.policy": {r: decide(r, config.data.policy) for r in IMAGE_FAULTS},
            "limit": config.evaluation.data[name].limit,
            "profile": profile,
            "max_new_tokens": benchmark.max_new_tokens[profile],
            "controls": config.evaluation.controls,
            "seed": config.seed if config.evaluation.controls else None,
            "template": config.model.template,
            "image_aspect_ratio": config.model.image_aspect_ratio,
            "dtype": config.evaluation.dtype,
            "batch_size": config.evaluation.batch_size,
        },
    )


@dataclass(frozen=True)
class LoadedQuestions:
    """A benchmark's questions, those up to `limit`, and their images' folder and sizes.

    `faults`: the images that are not there, which `data.policy` lets be skipped.
    """

    benchmark: Benchmark
    questions: list[Question]
    asked: tuple[Question, ...]
    image_dir: Path
    image_sizes: dict[str, int]
    faults: dict[str, Finding]


def load_questions(config: Config, name: str) -> LoadedQuestions:
    """The questions of a benchmark of the config, and which of their images are there.

    Raises:
        UserError: as `plan_benchmark`.
    """
    benchmark = find_benchmark(name)
    data = find_data(config, name)
    annotations = Path(data.annotations)
    questions = benchmark.load_questions(annotations, config.evaluation.profile)
    if not all(question.text for question in questions):
        raise UserError(
            f"evaluation.data.{name}.annotations: {annotations} holds references, not questions: "
            "it can score answers (`prism-tune score`), but nothing can be asked from it; set it "
            "to the benchmark's question file or the hub's parquet (data/README.md)"
        )
    image_dir = Path(data.image_dir) if data.image_dir else _folder_of(annotations)
    asked = tuple(questions[: data.limit])
    references = [image for question in asked for image in question.images]
    sizes, faults = measure_images(references, image_dir)
    policy = config.data.policy
    refused = [image for image, (reason, _) in faults.items() if decide(reason, policy) == "fail"]
    if refused:
        listed = ", ".join(refused[:_NUM_LISTED])
        more = f" and {len(refused) - _NUM_LISTED} more" if len(refused) > _NUM_LISTED else ""
        num_images = len(sizes) + len(faults)
        raise UserError(
            f"evaluation.data.{name}.image_dir: {len(refused)} of {num_images} images are not in "
            f"{image_dir}: {listed}{more}; set it to the folder they are relative to"
        )
    return LoadedQuestions(benchmark, questions, asked, image_dir, sizes, faults)


def find_data(config: Config, name: str) -> BenchmarkData:
    """Where a benchmark's files lie.

    Raises:
        ConfigError: the config does not say.
    """
    data = config.evaluation.data.get(name)
    if data is None:
        raise ConfigError(
            f"evaluation.data.{name}.annotations: missing; set it to the benchmark's official "
            f"files or the hub's parquet (data/README.md shows their layout), or leave `{name}` "
            "out of evaluation.benchmarks"
        )
    return data


def _folder_of(annotations: Path) -> Path:
    return annotations if annotations.is_dir() else annotations.parent

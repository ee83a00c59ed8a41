"""What a run will take, before it is made: FLOPs by the model's shape, and disk.

FLOPs: a token costs 2 for each parameter it passes forwards, 2 more for the gradient of
activations, 2 more for each parameter trained; attention scores are left out. Text is counted as
4 characters a token, until an audit has counted them. These are estimates for planning;
timings.json has what it took.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

from prism_tune.compare.cells import Verb, stages_of
from prism_tune.compare.files import count_objects
from prism_tune.compare.memory import DEFAULT_BATCH, evaluate_memory, select_memory, tune_memory
from prism_tune.compare.selection_estimates import (
    LORA_SHARE,
    evidence_bytes,
    reads_features,
    reads_gradients,
    select_flops,
)
from prism_tune.compare.shapes import PoolSize, Shape
from prism_tune.config.epochs import num_epochs, read_number
from prism_tune.config.references import reference_of
from prism_tune.config.sections import Config, Part, SelectionConfig

_BYTES_PER_WEIGHT = 2
_BYTES_PER_TRAINED = 14  # a checkpoint to resume from: bf16, float32 master, Adam's two moments
_PROMPT_TOKENS = 70  # of a benchmark's question, with its answer

NUM_QUESTIONS = {
    "scienceqa": 4_241,
    "vizwiz": 4_319,
    "pope": 8_910,
    "mmvet": 218,
    "mmbench": 4_377,
    "mme": 2_374,
    "mmmu": 900,
    "textvqa": 5_000,
    "gqa": 12_578,
    "vqav2": 214_354,
    "mmbench_cn": 4_329,
    "seed_bench": 19_242,
    "llava_bench": 60,
    "mmlu": 14_042,
    "mmlu_pro": 12_032,
    "hellaswag": 10_042,
    "gsm8k": 1_319,
    "quickstart": 9_673,
}
_PER_LIMIT = {"mmbench": 4_377 / 1_176, "mmbench_cn": 4_329 / 1_164, "mmlu": 57, "mmlu_pro": 14}
"""Questions for each one of `limit`: rows of MMBench's circles, subjects of lm-eval's."""


@dataclass(frozen=True)
class Estimate:
    """FLOPs of the stages, and bytes on disk; None where a size is not known.

    That is the reference's, or that of a benchmark of one's own.
    `memory` is of each stage, in bytes a device; `num_tokens` and `num_images` are tuned on.
    """

    select_flops: float | None
    tune_flops: float
    evaluate_flops: float | None
    num_bytes: float
    num_tokens: float = 0.0
    num_images: float = 0.0
    memory: dict[Verb, float] = field(default_factory=dict)

    @property
    def flops(self) -> float:
        """Of all stages."""
        return (self.select_flops or 0.0) + self.tune_flops + (self.evaluate_flops or 0.0)


def estimate_run(
    config: Config,
    shape: Shape,
    pool: PoolSize,
    read: Shape | None = None,
    num_devices: int = 1,
) -> Estimate:
    """One run, from selecting to evaluating; nothing for the stages that it does not have.

    Args:
        config: the run.
        shape: of the target.
        pool: that is selected from.
        read: of the model that evidence is read from; None where that is another than the target,
            and not there yet.
        num_devices: that tune together.
    """
    verbs = stages_of(config)
    pool = replace(pool, image_tokens=shape.num_image_tokens)
    tokens, images = 0.0, 0.0
    if "train" in verbs:
        tokens, images = _tuned(config, shape, pool, num_devices)
    select: float | None = 0.0
    if "select" in verbs:
        read = shape if read_path(config) == config.model.path else read
        select = None if read is None else select_flops(config.selection, read, pool)
    return Estimate(
        select_flops=select,
        tune_flops=_tune_flops(config, shape, tokens, images),
        evaluate_flops=_evaluate_flops(config, shape),
        num_bytes=_disk_bytes(config, shape, pool) if "train" in verbs else 0.0,
        num_tokens=tokens,
        num_images=images,
        memory=_estimate_memory(config, shape, pool, read, num_devices),
    )


def _estimate_memory(
    config: Config, shape: Shape, pool: PoolSize, read: Shape | None, num_devices: int
) -> dict[Verb, float]:
    verbs = stages_of(config)
    found: dict[Verb, float] = {}
    if "select" in verbs and read is not None and select_flops(config.selection, read, pool):
        depth = config.selection.layer / max(read.num_layers, 1)
        found["select"] = select_memory(
            config,
            read,
            depth if reads_features(config.selection) else 1.0,
            goes_back=reads_gradients(config.selection),
        )
    if "train" in verbs:
        trained = sum(trained_parts(config, shape).values())
        found["train"] = tune_memory(config, shape, pool, trained, num_devices)
    if "evaluate" in verbs:
        found["evaluate"] = evaluate_memory(config, shape)
    return found


def read_path(config: Config) -> str:
    """The model that evidence is read from."""
    reference = reference_of(config.selection)
    return (reference.model if reference is not None else None) or config.model.path


def _tune_flops(config: Config, shape: Shape, tokens: float, images: float) -> float:
    trained = trained_parts(config, shape)
    # A table of words is trained, but only looked into.
    table = shape.embeddings - shape.head if config.training.tuning == "full" else 0
    multiplied = trained["projector"] + max(trained["language_model"] - table, 0.0)
    per_token = 4.0 * shape.layers + 2.0 * multiplied
    look = shape.vision * shape.num_image_tokens * images
    passes = 6.0 if trained["vision_tower"] else 2.0
    return per_token * tokens + passes * look


def _tuned(config: Config, shape: Shape, pool: PoolSize, num_devices: int) -> tuple[float, float]:
    """Tokens and images that tuning goes over, in all epochs or steps."""
    images, texts = _kept(config, pool)
    tokens = images * shape.num_image_tokens + (images + texts) * pool.text_tokens
    epochs = _num_epochs(config, images + texts, tokens, num_devices)
    return epochs * tokens, epochs * images


def _num_epochs(config: Config, records: float, tokens: float, num_devices: int) -> float:
    """How often tuning goes over these records; steps, where they are given, take the place."""
    hf = config.training.hf
    if (epochs := num_epochs(hf)) is not None:
        return epochs
    steps, parts = (read_number(hf, k, 1) for k in ("max_steps", "gradient_accumulation_steps"))
    num_batches = steps * parts * num_devices
    if config.training.batching == "packed":
        return num_batches * config.training.tokens_per_batch / max(tokens, 1.0)
    rows = read_number(hf, "per_device_train_batch_size", DEFAULT_BATCH)
    return num_batches * rows / max(records, 1.0)


def _kept(config: Config, pool: PoolSize) -> tuple[float, float]:
    """Image records and text-only records that are tuned on."""
    texts = pool.num_records - pool.num_image_records
    if config.training.records == "pool":
        return pool.num_image_records, texts
    if config.selection.budget_of == "tokens":
        return _kept_of_tokens(config.selection, pool)
    selection, images = config.selection, pool.num_image_records
    budget, counted = selection.budget, images
    if selection.budget_of != "images":
        counted = pool.num_records
    if isinstance(budget, int):
        budget = min(1.0, budget / max(counted, 1))
    share = float(min(budget, 1.0))
    if selection.text_only in ("own_source", "rank"):
        return share * images, share * texts
    kept = texts if selection.text_only == "keep" else 0
    beside = kept if selection.budget_of != "images" else 0
    return max(0.0, share * counted - beside), kept


def _kept_of_tokens(selection: SelectionConfig, pool: PoolSize) -> tuple[float, float]:
    """Likewise by a budget of tokens: of image records of the mean length, beside the texts."""
    images, texts = pool.num_image_records, pool.num_records - pool.num_image_records
    of_image = pool.image_tokens + pool.text_tokens
    total = images * of_image + texts * pool.text_tokens
    budget = selection.budget
    asked = min(float(budget), total) if isinstance(budget, int) else budget * total
    if selection.text_only in ("own_source", "rank"):
        share = asked / max(total, 1.0)
        return share * images, share * texts
    kept = texts if selection.text_only == "keep" else 0
    room = max(0.0, asked - kept * pool.text_tokens)
    return min(room / max(of_image, 1.0), images), kept


def trained_parts(config: Config, shape: Shape) -> dict[Part, float]:
    """Numbers of parameters that are trained, as `prepare_tuning` of models/tuning.py chooses them.

    The table of words and the output head are the language model's; LoRA leaves both as they are.
    """
    tuning = config.training.tuning
    language = {"full": float(shape.layers + shape.embeddings), "projector": 0.0, "none": 0.0}
    sizes: dict[Part, float] = {
        "vision_tower": 0.0 if tuning in ("projector", "none") else shape.vision,
        "projector": shape.projector,
        "language_model": language.get(tuning, LORA_SHARE * shape.layers),
    }
    return {part: 0.0 if part in config.training.freeze else size for part, size in sizes.items()}


def _evaluate_flops(config: Config, shape: Shape) -> float | None:
    rounds = 1 + len(config.evaluation.controls)
    numbers = [count_asked(config, name) for name in config.evaluation.benchmarks]
    questions = sum(number for number in numbers if number is not None)
    if None in numbers:
        return None
    tokens = shape.num_image_tokens + _PROMPT_TOKENS
    look = shape.vision * shape.num_image_tokens
    return 2.0 * rounds * questions * (shape.layers * tokens + look)


def count_asked(config: Config, benchmark: str) -> int | None:
    """How many questions of the benchmark are asked; None where nothing says it yet."""
    data = config.evaluation.data.get(benchmark)
    total = NUM_QUESTIONS.get(benchmark)
    if data is not None and (total is None or data.metric is not None):  # one's own
        total = count_objects(Path(data.annotations))
    limit = data.limit if data is not None else None
    first = None if limit is None else ceil(limit * _PER_LIMIT.get(benchmark, 1))
    return min((number for number in (total, first) if number is not None), default=None)


def _disk_bytes(config: Config, shape: Shape, pool: PoolSize) -> float:
    """Features, subset, the tuned model, and the last checkpoint to resume from."""
    images, texts = _kept(config, pool)
    selects = "select" in stages_of(config)
    subset = (images + texts) / pool.num_records * pool.num_bytes if selects else 0.0
    features = evidence_bytes(config.selection, shape, pool) if selects else 0.0
    trained = sum(trained_parts(config, shape).values())
    saved = shape.total if config.training.tuning in ("full", "projector") else trained
    return subset + features + _BYTES_PER_WEIGHT * saved + _BYTES_PER_TRAINED * trained

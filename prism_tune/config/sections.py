"""What an experiment's config may hold: its sections, their keys, defaults and ranges.

`training.hf` goes verbatim to `transformers.TrainingArguments`, `training.lora` to
`peft.LoraConfig`. `load.py` reads the YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from prism_tune.config.values import LocalPath, read_options, spell_infinity

Part = Literal["vision_tower", "projector", "language_model"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Profile = Literal["llava15", "lmms_eval"]
Backend = Literal["transformers", "openai"]
ImageBackend = Literal["pil", "torchvision"]
Policy = Literal["fail", "skip", "keep"]
Template = Literal["auto", "vicuna_v1", "chatml", "llama3", "phi", "plain", "processor"]
"""`processor` is the processor's own chat template; `auto` becomes it, or LLaVA-1.5's vicuna_v1."""
Tuning = Literal["none", "lora", "qlora", "full", "projector"]
Control = Literal["blind", "shuffled"]
Preparation = Literal["quickstart", "alignment", "comparison"]
Readout = Literal["expected", "argmax"]
"""What a local judge's likelihoods become: their expectation, or the likeliest score."""
Metric = Literal["exact", "ten_answers", "letter", "yes_no", "contains", "number"]
"""How a benchmark of one's own is scored (`evaluation/benchmarks/custom.py`)."""
ExportLayout = Literal[
    "llava", "sharegpt", "messages", "llamafactory", "ms_swift", "trl", "parquet"
]
"""What a subset is written as on request (docs/data.md)."""
Index = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(gt=0, strict=True)]
Fraction = Annotated[float, Field(gt=0, le=1, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
LearningRate = Annotated[float, Field(gt=0, strict=True)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """A config section: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelConfig(Section):
    """The target model: a Hugging Face directory or hub id, as it is before instruction tuning."""

    path: LocalPath
    revision: str | None = None
    dtype: DType = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    template: Template = "auto"
    image_aspect_ratio: Literal["pad", "crop", "processor"] = "pad"
    image_backend: ImageBackend = "pil"


class DataConfig(Section):
    """The pool: its records, and the folder that their image paths are relative to.

    Absolute paths may lead into that folder and into `image_roots`. `image_place: front` moves the
    `<image>` of a record of one image to the front of its turn, as LLaVA does; `system: drop`
    leaves the records' own system lines out.
    """

    records: LocalPath
    image_dir: LocalPath | None = None
    image_roots: tuple[LocalPath, ...] = ()
    prepare: Preparation | None = None
    columns: dict[str, str] = {}
    source: Literal["field", "image_folder", "llava_mix"] = "field"
    source_names: dict[str, str] = {}
    image_place: Literal["front", "keep"] = "front"
    system: Literal["keep", "drop"] = "keep"
    policy: dict[str, Policy] = {}
    max_length: Count = 2048
    num_workers: Index = 2


class WarmupConfig(Section):
    """A LoRA that is tuned on a few records of the pool before evidence is read with it.

    `share` is of the pool's records, drawn by a hash of their uids: equally many of each source, or
    in proportion. `max_steps` ends it earlier; `batch_size` is over all devices, and where it is
    left out LLaVA's 128, or a tenth of few records. `hf` goes to `transformers.TrainingArguments`
    and wins.
    """

    share: Fraction = 0.08
    per_source: Literal["equal", "proportional"] = "equal"
    lora_rank: Count = 128
    lora_alpha: Count = 256
    epochs: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: LearningRate = 2e-4
    batch_size: Count | None = None
    max_steps: Count | None = None
    seed: Index = 0
    hf: dict[str, Any] = {}

    def records_per_step(self, num_records: int) -> int:
        """Over all devices, of `num_records` drawn: in a single step nothing would be learnt."""
        return self.batch_size or min(128, max(1, num_records // 10))


class ReferenceConfig(Section):
    """The model that evidence is read from; what is left out is the target's.

    `model` is a directory or hub id, asked in its own `template`; `adapter` a LoRA on it, or
    `warmup` one that is trained first.
    """

    model: LocalPath | None = None
    revision: str | None = None
    template: Template = "auto"
    adapter: LocalPath | None = None
    warmup: WarmupConfig | None = None


class SelectionConfig(Section):
    """Which records to keep. The defaults are the paper's (METHOD in docs/selection.md).

    `budgets` are further ones, each cut to a file of its own; `must_keep` and `must_drop` name
    files of ids or uids; `features_file` is a matrix in place of the model's features.
    """

    scorer: str = "prism"
    budget: Fraction | Count = Field(
        default=0.30, description="a fraction in (0, 1] or a positive count"
    )
    budgets: tuple[Fraction | Count, ...] = Field(
        default=(), description="a list of fractions in (0, 1] or counts"
    )
    budget_of: Literal["images", "rows", "tokens"] = "images"
    text_only: Literal["keep", "own_source", "drop", "rank"] = "keep"
    source_budgets: dict[str, Fraction | Index] = Field(
        default={}, description="a fraction in (0, 1] or a count from 0 of each source"
    )
    must_keep: LocalPath | None = None
    must_drop: LocalPath | None = None
    scope: Literal["per_source", "global"] = "per_source"
    centering: Literal["corpus", "pearson", "none"] = "corpus"
    keep: Literal["low", "middle", "high"] | None = None
    features: Literal["visual", "joint", "pair", "conversation", "text"] = "visual"
    features_file: LocalPath | None = None
    reference: ReferenceConfig | None = None
    layer: Index = 1
    pooling: Literal["mean", "last", "attention", "instruction"] = "mean"
    tokens_per_batch: Count = 16384
    dtype: DType = "auto"
    options: Annotated[dict[str, Any], BeforeValidator(read_options)] = {}


class TrainingConfig(Section):
    """How to tune. `tuning: none` leaves the model as it is (the table's untuned row).

    A training that is asked to end (SIGTERM, SIGINT, SIGHUP) saves a checkpoint within
    `grace_seconds`.
    """

    records: Literal["subset", "pool"] = "subset"
    tuning: Tuning = "lora"
    lora: dict[str, Any] = {}
    learning_rates: dict[Part, LearningRate] = {}
    freeze: tuple[Part, ...] = ("vision_tower",)
    deepspeed: LocalPath | None = "configs/deepspeed/zero2.json"
    batching: Literal["modality_length", "packed", "random"] = "modality_length"
    tokens_per_batch: Count = 16384
    validation: Share = 0.0
    grace_seconds: Count = 30
    hf: dict[str, Any] = {}


class BenchmarkData(Section):
    """Where one benchmark's official files lie; `limit` takes the first questions only.

    With a `metric` it is a benchmark of one's own, whose file `annotations` is; `instruction` and
    `max_new_tokens` are that one's.
    """

    annotations: LocalPath
    image_dir: LocalPath | None = None
    limit: Count | None = None
    metric: Metric | None = None
    instruction: str | None = None
    max_new_tokens: Count | None = None


class EvaluationConfig(Section):
    """Which benchmarks to run, and the protocol they share.

    `controls` asks every question again without image, or with another question's image.
    `chat_template` puts the language benchmarks' prompts into `model.template`, too.
    `backend: openai` asks a server that runs (`base_url`, up to /v1) in place of the model in
    memory, so many questions at a time (`concurrency`); `served_model` is the model's name there.
    `serve_command` starts one for the evaluation, with `{model}` and `{port}` in place of both.
    """

    benchmarks: tuple[str, ...] = ()
    data: dict[str, BenchmarkData] = {}
    profile: Profile = "llava15"
    controls: tuple[Control, ...] = ()
    chat_template: bool = False
    batch_size: Count = 8
    dtype: DType = "auto"
    backend: Backend = "transformers"
    base_url: str | None = None
    served_model: str | None = None
    serve_command: str | None = None
    concurrency: Count = 16


class CompareConfig(Section):
    """`prism-tune compare`: runs side by side, as selectors or as rows (docs/comparison.md).

    A selector is a scorer's name, or a mapping of `scorer`, the `selection` keys that differ, and
    a `name`; each is run at every budget. A row is a name, or a mapping of a `name` and the
    sections that differ; each is run in every variant, whose name has `{}` for the row's. All of
    them under every seed. `metrics`, which selectors need and rows do without, are
    `<benchmark>.<metric>` of results.json; performance is their mean. `tables` lists, for kinds of
    `prism-tune tables`, patterns of row names. `before` names configs to be trained first.
    `planted` names a JSON file of records known to be redundant: {id: {kind, of}}.
    """

    selectors: Annotated[tuple[str | dict[str, Any], ...], BeforeValidator(spell_infinity)] = Field(
        default=(), description="a list of scorers, or of mappings with `scorer`"
    )
    budgets: tuple[Fraction | Count, ...] = Field(
        default=(0.30,), min_length=1, description="a list of fractions in (0, 1] or counts"
    )
    rows: Annotated[tuple[str | dict[str, Any], ...], BeforeValidator(spell_infinity)] = Field(
        default=(), description="a list of names, or of mappings with `name` and sections"
    )
    variants: tuple[str | dict[str, Any], ...] = ("{}",)
    seeds: tuple[Index, ...] = Field(default=(0,), min_length=1)
    metrics: tuple[str, ...] = ()
    baseline: str = "random"
    whole_pool: bool = False
    planted: LocalPath | None = None
    tables: dict[str, tuple[str, ...]] = {}
    before: tuple[LocalPath, ...] = ()
    num_processes: Count = 1


class TrackingConfig(Section):
    """Weights & Biases; offline unless WANDB_MODE says otherwise."""

    wandb: bool = False
    project: str = "prism_tune"
    entity: str | None = None


class Config(Section):
    """One experiment: a pool, a model, a selection, a tuning, an evaluation.

    `plugins` are Python files of one's own, with scorers, benchmarks, families or pool readers.
    """

    name: str = Field(
        pattern=NAME_PATTERN,
        description="a folder name of letters, digits and `._-` that begins with neither of these",
    )
    seed: Index = 0
    model_name: str | None = Field(default=None, description="what tables call the model")
    output_dir: LocalPath = "runs"
    compare_random: bool = False
    plugins: tuple[LocalPath, ...] = ()
    model: ModelConfig
    data: DataConfig
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    compare: CompareConfig | None = None

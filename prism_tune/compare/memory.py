"""What a stage will hold in a device's memory at its largest, before anything is loaded.

A config and the sizes of model and pool go in, bytes come out. Weights: 2 bytes each (4 where
`model.dtype` is float32; a half in QLoRA). A trained weight: 16 (itself, its gradient, float32
master and Adam's two moments), shared among devices as DeepSpeed's stage does, on the host where it
offloads. Activations: 34 bytes a token, layer and number of the width (Korthikanti et al.,
https://arxiv.org/abs/2205.05198, section 4, without attention scores), 2 with gradient
checkpointing and one layer's whole; logits 10 bytes a token and word. Fragmentation is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from prism_tune.compare.shapes import PoolSize, Shape
from prism_tune.config.epochs import read_number
from prism_tune.config.presets import find_file
from prism_tune.config.sections import Config
from prism_tune.run.folder import read_object

_PER_TOKEN_AND_LAYER = 34
_PER_CHECKPOINT = 2
_PER_LOGIT = 10
_OPTIMIZER, _GRADIENT, _WEIGHT = 12, 2, 2
DEFAULT_BATCH = 8  # of transformers.TrainingArguments
_NUM_NEW_TOKENS = 128


@dataclass(frozen=True)
class Sharing:
    """How DeepSpeed shares what is trained: among how many devices, and what is on the host."""

    weights: int = 1
    gradients: int = 1
    states: int = 1
    offloads: bool = False


def select_memory(
    config: Config, shape: Shape, share_of_layers: float, *, goes_back: bool = False
) -> float:
    """Of the part of the model that evidence is read with, and one batch.

    A backward pass keeps two layers' activations of a default batch, or fewer tokens in more layers
    (`selection/evidence/gradients/backward.py`).
    """
    weights = shape.vision + shape.projector + shape.embeddings + share_of_layers * shape.layers
    kept = config.selection.tokens_per_batch * (2 if goes_back else 1)
    return weights * _width_of(config) + kept * shape.width * _PER_TOKEN_AND_LAYER


def tune_memory(
    config: Config, shape: Shape, pool: PoolSize, num_trained: float, num_devices: int
) -> float:
    """Of weights, what is trained, and the activations of the largest batch."""
    sharing = _read_sharing(config, num_devices)
    per_weight = 0.5 if config.training.tuning == "qlora" else _width_of(config)
    frozen = max(shape.total - num_trained, 0) * per_weight / sharing.weights
    states = 0.0 if sharing.offloads else _OPTIMIZER / sharing.states
    per_trained = _WEIGHT / sharing.weights + _GRADIENT / sharing.gradients + states
    trained = num_trained * per_trained
    hf = config.training.hf
    rows = read_number(hf, "per_device_train_batch_size", DEFAULT_BATCH)
    longest = min(pool.longest or config.data.max_length, config.data.max_length)
    packed = config.training.batching == "packed"
    tokens = config.training.tokens_per_batch if packed else rows * longest
    saves = hf.get("activation_checkpointing") or hf.get("gradient_checkpointing")
    per_layer = _PER_CHECKPOINT if saves else _PER_TOKEN_AND_LAYER
    kept = shape.num_layers * per_layer + _PER_TOKEN_AND_LAYER
    return frozen + trained + tokens * (shape.width * kept + shape.vocabulary * _PER_LOGIT)


def evaluate_memory(config: Config, shape: Shape) -> float:
    """Of the weights, and a batch with its keys and values."""
    rows = config.evaluation.batch_size
    tokens = rows * (shape.num_image_tokens + 2 * _NUM_NEW_TOKENS)
    keys = 2 * shape.num_layers * shape.width * _width_of(config)
    return shape.total * _width_of(config) + tokens * (keys + _PER_TOKEN_AND_LAYER * shape.width)


def _width_of(config: Config) -> int:
    return 4 if config.model.dtype == "float32" else 2


def _read_sharing(config: Config, num_devices: int) -> Sharing:
    if config.training.deepspeed is None:
        return Sharing()
    path = find_file(config.training.deepspeed, "deepspeed")
    if not path.is_file():
        return Sharing()
    content = read_object(path)
    zero = content.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    return Sharing(
        weights=num_devices if stage >= 3 else 1,
        gradients=num_devices if stage >= 2 else 1,
        states=num_devices if stage >= 1 else 1,
        offloads="offload_optimizer" in zero,
    )

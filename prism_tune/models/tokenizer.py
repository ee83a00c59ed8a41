"""Reading a tokenizer, and what to say where transformers cannot.

Vicuna and the first Llamas come with a SentencePiece file, tokenizer.model, and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from prism_tune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(
    path: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id, also of one that has nothing else.

    Raises:
        UserError: there is none that transformers can read.
    """
    from transformers import AutoTokenizer  # the doctor asks for faults where this fails

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


def find_fault() -> str:
    """What keeps transformers from reading such files; empty where nothing does.

    sentencepiece's module wants a protobuf at least as new as the one that wrote it, and its
    package does not say so.
    """
    try:
        runtime = import_module("google.protobuf.runtime_version")
    except ImportError as error:
        return f"protobuf is missing or old ({error})"
    try:
        import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError as error:
        return f"sentencepiece is missing ({error})"
    except runtime.VersionError as error:
        return f"protobuf is too old for this sentencepiece ({error})"
    return ""

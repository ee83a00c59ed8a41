"""Reading a tokenizer, what to say where transformers cannot, and what a LLaVA needs of one.

Vicuna and the first Llamas come with a SentencePiece file, tokenizer.model, and nothing else. A
LLaVA's vocabulary has an image token, and padding that is not the end of an answer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from prism_tune.errors import ConfigError, UserError
from prism_tune.models.damage import reraised_if_damaged

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(
    path: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id, also of one that has nothing else.

    Raises:
        UserError: there is none that transformers can read.
    """
    from transformers import AutoTokenizer  # the doctor asks for faults where this fails

    try:
        with reraised_if_damaged(path):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path, revision=revision, trust_remote_code=trust_remote_code
            )
    except UserError:
        raise
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


def prepare_vocabulary(
    language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_token: str
) -> int:
    """Give the tokenizer image and pad tokens, the model rows for them; return the image's id.

    Raises:
        ConfigError: no token can be called so.
    """
    if not image_token or image_token != image_token.strip():
        raise ConfigError(f"--image-token {image_token!r}: expected a word, for example <image>")
    new_tokens = [token for token in [image_token] if token not in tokenizer.get_vocab()]
    pad_token = _choose_pad_token(tokenizer)
    if pad_token not in tokenizer.get_vocab():
        new_tokens.append(pad_token)
    tokenizer.add_tokens(new_tokens, special_tokens=True)
    tokenizer.pad_token = pad_token
    language_model.config.pad_token_id = tokenizer.pad_token_id
    if language_model.generation_config is not None:
        language_model.generation_config.pad_token_id = tokenizer.pad_token_id
    _grow_embeddings(language_model, len(tokenizer))
    return int(tokenizer.get_vocab()[image_token])


def _choose_pad_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's own; where that also ends an answer, the unknown token, or a new one.

    Byte-level vocabularies never produce their unknown token; Vicuna's use as pad is LLaVA's.
    """
    for token in (tokenizer.pad_token, tokenizer.unk_token):
        if token is not None and token != tokenizer.eos_token:
            return str(token)
    return "<pad>"


def _grow_embeddings(language_model: PreTrainedModel, num_tokens: int) -> None:
    """Add rows (many vocabularies have spare ones); a new row is the mean of the old."""
    num_rows = cast("nn.Embedding", language_model.get_input_embeddings()).weight.shape[0]
    if num_tokens <= num_rows:
        return
    language_model.resize_token_embeddings(num_tokens, mean_resizing=False)
    for layer in (language_model.get_input_embeddings(), language_model.get_output_embeddings()):
        weight = cast("nn.Linear", layer).weight.data
        weight[num_rows:] = weight[:num_rows].float().mean(0).to(weight.dtype)

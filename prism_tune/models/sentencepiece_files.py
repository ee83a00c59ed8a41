"""Whether SentencePiece files (tokenizer.model) can be read here, in the way of transformers.

It reads them by sentencepiece's own protobuf module, and takes any failure of that for a file of
tiktoken's: what it then asks for cannot read them either.
"""

from __future__ import annotations

from importlib import import_module


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

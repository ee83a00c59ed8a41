"""A processor's own chat template: how it is asked, what ends its answers, how it shows an image.

In: a processor. Out: rendered messages, and what was learnt of the template by rendering marked
ones. No torch: everyone speaks these words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, get_args

from prism_tune.chat.builtin_templates import LAYOUTS, ChatFormat
from prism_tune.chat.generation import leave_out_ineffective
from prism_tune.chat.rendering import render_limited, template_options
from prism_tune.errors import UserError
from prism_tune.schema import IMAGE_PLACEHOLDER

_QUESTION, _ANSWER = "\ufdd2q\ufdd3", "\ufdd2a\ufdd3"
_PLACEHOLDERS = ("image_token", "boi_token", "eoi_token", "video_token", "audio_token")
_VICUNA_END = LAYOUTS["vicuna_v1"].end_token
MISTYPED_END = r"<\s>"
"""What the chat templates of LLaVA-NeXT-Mistral and BakLLaVA write where they mean `</s>`."""


def image_token(processor: Any) -> str:
    """The processor's placeholder for an image; `<image>` without processor."""
    return str(getattr(processor, "image_token", None) or IMAGE_PLACEHOLDER)


def has_chat_template(processor: Any) -> bool:
    """Whether the processor or its tokenizer has one."""
    return bool(_source(processor).strip())


def _source(processor: Any) -> str:
    """The chat template's text, which changes where it does."""
    owners = (processor, getattr(processor, "tokenizer", None))
    return " ".join(str(getattr(owner, "chat_template", None) or "") for owner in owners)


def takes_parts(processor: Any) -> bool:
    """Whether its messages are lists of parts; a tokenizer's template takes text."""
    return bool(getattr(processor, "chat_template", None)) and hasattr(processor, "tokenizer")


def apply_chat(messages: Sequence[dict[str, Any]], processor: Any, *, is_prompt: bool) -> str:
    """Messages as the template writes them, without thinking where it offers that.

    Args:
        messages: {role, content}.
        processor: with a chat template.
        is_prompt: end where the model begins to answer.

    Raises:
        UserError: the template refuses the messages, does not end, or there is none.
    """
    if not has_chat_template(processor):
        raise UserError(f"model.template: the processor has no chat template; {list_templates()}")
    owner = processor if getattr(processor, "chat_template", None) else processor.tokenizer
    options = template_options(owner.chat_template)
    return render_limited(
        lambda: owner.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=is_prompt, **options
        )
    )


def find_end_token(processor: Any) -> str | None:
    """The token behind an answer: the template's own, else the tokenizer's end of a text.

    None where there is neither, or no chat template: a model tuned with it would never learn to
    stop.
    """
    if not has_chat_template(processor):
        return None
    tokenizer = getattr(processor, "tokenizer", None) or processor
    return find_written_end(processor) or tokenizer.eos_token


def find_written_end(processor: Any) -> str | None:
    """What the chat template writes behind an answer that is one special token; None without.

    Where nothing is written there, it is the token that the next question begins with (GLM's
    `<|user|>`).
    """
    return _find_written_end(processor, _source(processor))


@lru_cache(maxsize=8)
def _find_written_end(processor: Any, chat_template: str) -> str | None:
    for num_spoken in (2, 3):
        _, found, behind = _speak(processor, num_spoken).partition(_ANSWER)
        token = _leading_token(behind.lstrip(), special_tokens(processor))
        if found and (token or behind.strip()):
            return token
    return None


def speaks_vicuna(processor: Any, model_type: str) -> bool:
    """Whether a model is LLaVA-1.5 or made like it: such a one is asked in `vicuna_v1`.

    `</s>` ends its texts, and its chat template asks `USER: ... ASSISTANT:` as the published ones
    do (without any end token); a `llava` may have none. LLaVA-NeXT has a Vicuna among others.
    """
    if model_type not in ("llava", "llava_next") or processor.tokenizer.eos_token != _VICUNA_END:
        return False
    if not has_chat_template(processor):
        return model_type == "llava"
    asked = _speak(processor, 1)
    return "USER:" in asked and asked.rstrip().endswith("ASSISTANT:")


def wrap_image(processor: Any) -> str:
    """The image token with the control tokens that the chat template puts directly around it.

    Qwen's `<|vision_start|><|image_pad|><|vision_end|>`, for instance; the image token alone where
    the template adds none, or cannot show an image. Behind it stands what makes the tokenizer's
    pieces begin anew, as in LLaVA, whose code splits the texts around images apart
    (`tokenizer_image_token` of llava/mm_utils.py).
    """
    if not takes_parts(processor):
        return bare_image(processor)
    return _wrap_image(processor, _source(processor)) + _behind_image(processor)


def bare_image(processor: Any) -> str:
    """The same without control tokens around it: what a built-in template shows of an image."""
    return image_token(processor) + _behind_image(processor)


def _behind_image(processor: Any) -> str:
    return _begin_anew(getattr(processor, "tokenizer", None), image_token(processor))


@lru_cache(maxsize=8)
def _begin_anew(tokenizer: Any, image: str) -> str:
    """A blank for SentencePiece vocabularies, which mark a text's beginning by it; else nothing."""
    if tokenizer is None:
        return ""
    alone = tokenizer.tokenize("a")
    behind, anew = (tokenizer.tokenize(f"{image}{blank}a")[1:] for blank in ("", " "))
    return " " if behind != alone == anew else ""


@lru_cache(maxsize=8)
def _wrap_image(processor: Any, chat_template: str) -> str:
    token = image_token(processor)
    parts = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    try:
        bare, written = (
            apply_chat([{"role": "user", "content": content}], processor, is_prompt=False)
            for content in (parts[1:], parts)
        )
    except UserError:  # the processor is asked for its image's surroundings only
        return token
    header = bare.partition(_QUESTION)[0]
    before, found, after = written.removeprefix(header).partition(token)
    if not found or not written.startswith(header):
        return token
    known = special_tokens(processor)
    return _trailing_tokens(before, known) + token + _leading_tokens(after, known)


def special_tokens(processor: Any) -> tuple[str, ...]:
    """The tokenizer's control tokens and the processor's placeholders, longest first."""
    tokenizer = getattr(processor, "tokenizer", None) or processor
    return _special_tokens(processor, tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _special_tokens(processor: Any, tokenizer: Any, num_tokens: int) -> tuple[str, ...]:
    found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found |= {*map(str, tokenizer.all_special_tokens), *placeholders(processor)}
    return tuple(sorted(filter(str.strip, found), key=len, reverse=True))


def placeholders(processor: Any) -> set[str]:
    """The tokens that the processor itself looks for, or writes."""
    owners = (processor, getattr(processor, "tokenizer", None))
    found = {getattr(owner, name, None) for owner in owners for name in _PLACEHOLDERS}
    return {token for token in found if isinstance(token, str)}


def check_end_token(template: str, processor: Any) -> None:
    """Refuse a template by which the model could never learn to stop.

    Raises:
        UserError: its end token would be cut into pieces; or neither the processor's own chat
            template nor its tokenizer ends an answer.
    """
    tokenizer = processor.tokenizer
    if template == "plain":
        return
    if template == "processor":
        if not has_chat_template(processor):
            raise UserError(
                "model.template: `processor` is the processor's own chat template, and it has "
                f"none; {list_templates()}"
            )
        if find_end_token(processor) is None:
            raise UserError(
                "model.template: the processor's chat template writes no end token behind an "
                "answer, and the tokenizer has none, so the model would never learn to stop; "
                f"{list_templates()}"
            )
        return
    end = LAYOUTS[template].end_token
    if len(tokenizer.encode(end, add_special_tokens=False)) != 1:
        raise UserError(
            f"model.template: {template} ends answers with {end!r}, which is not one token of this "
            f"tokenizer (its end token is {tokenizer.eos_token!r}); choose the template the model "
            "was made for, or `processor` for its own"
        )


def end_token(template: str, processor: Any) -> str | None:
    """What ends an answer; None where nothing does (`plain`: captions end with their line)."""
    if template == "plain":
        return None
    return find_end_token(processor) if template == "processor" else LAYOUTS[template].end_token


def add_end_token(model: Any, processor: Any, end: str | None) -> None:
    """Let `generation_config.eos_token_id` hold a template's end token, behind those it has.

    A base model knows none but the end of a text; taught another, it would write on behind it to
    the limit wherever plain transformers generates. What could not be saved with it is left out.

    Args:
        model: whose generation config is changed.
        processor: with its tokenizer.
        end: as text; None where a template has none.
    """
    if model.generation_config is not None:
        leave_out_ineffective(model.generation_config)
    if end is None:
        return
    if model.generation_config is None:
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig()
    known = model.generation_config.eos_token_id
    ends = list(known) if isinstance(known, list | tuple) else [known] if known is not None else []
    token = int(processor.tokenizer.convert_tokens_to_ids(end))
    if token not in ends:
        ends.append(token)
        model.generation_config.eos_token_id = ends if len(ends) > 1 else token


def list_templates() -> str:
    """What to set instead, for messages."""
    ends = ", ".join(f"{name} (ends with {LAYOUTS[name].end_token})" for name in _CHATS)
    return f"set model.template to the one the model was made for: {ends}"


_CHATS: tuple[str, ...] = get_args(ChatFormat)


def _speak(processor: Any, num_spoken: int) -> str:
    """A marked question, answer, question; a prompt where there is a question alone."""
    spoken = [("user", _QUESTION), ("assistant", _ANSWER), ("user", _QUESTION)][:num_spoken]
    messages = [
        {
            "role": role,
            "content": [{"type": "text", "text": text}] if takes_parts(processor) else text,
        }
        for role, text in spoken
    ]
    return apply_chat(messages, processor, is_prompt=num_spoken == 1)


def _leading_token(text: str, known: Sequence[str]) -> str | None:
    return next((token for token in known if text.startswith(token)), None)


def _leading_tokens(text: str, known: Sequence[str]) -> str:
    length = 0
    while token := _leading_token(text[length:], known):
        length += len(token)
    return text[:length]


def _trailing_tokens(text: str, known: Sequence[str]) -> str:
    start = len(text)
    while token := next((t for t in known if text[:start].endswith(t)), None):
        start -= len(token)
    return text[start:]

"""lm-eval's model, minding the window: cuts are counted, answers without room are shortened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.huggingface import HFLM

from prism_tune.chat.builtin_templates import LAYOUTS, chat_template
from prism_tune.chat.rendering import render_limited, template_options
from prism_tune.errors import ConfigError

_SHARE_OF_WINDOW = 4
"""The prompt keeps three quarters of a window that the answer asked for would fill."""


@dataclass(frozen=True)
class Chat:
    """A Jinja template (of several, by name), and whether it wants a message's content in parts."""

    jinja: str | Mapping[str, str]
    in_parts: bool = False


class WindowedLM(HFLM):
    """lm-eval's model of a causal language model in memory.

    Attributes:
        chat: what prompts are put under, or None.
        num_cut: contexts that lost their beginning, since `restart`.
        shortened: what was done to the number of new tokens; empty where nothing was.
    """

    def __init__(self, *, chat: Chat | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.chat = chat
        self.restart()

    def restart(self) -> None:
        """Count anew."""
        self.num_cut = 0
        self.shortened = ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages of role and content under `chat`."""
        assert self.chat is not None
        listed: list[dict[str, Any]] = [dict(message) for message in chat_history]
        for message in listed if self.chat.in_parts else ():
            message["content"] = [{"type": "text", "text": message["content"]}]
        options = template_options(self.chat.jinja)
        return render_limited(
            lambda: self.tokenizer.apply_chat_template(
                listed,
                **options,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def _loglikelihood_tokens(self, requests: Any, *args: Any, **options: Any) -> Any:
        room = self.max_length + 1  # the last token is predicted, and needs none
        cut = {tuple(begin) for _, begin, end in requests if len(begin) + len(end) > room}
        self.num_cut += len(cut)  # whatever the number of endings
        return super()._loglikelihood_tokens(requests, *args, **options)

    def generate_until(self, requests: Any, *args: Any, **options: Any) -> Any:
        """As lm-eval's, which fails where the new tokens alone fill the window."""
        for request in requests:
            context, settings = request.args
            asked = int(settings.get("max_gen_toks", self.max_gen_toks))
            given = self._fit(asked)
            if given < asked:
                request.arguments = (context, {**settings, "max_gen_toks": given})
            self.num_cut += len(self.tok_encode(context)) > self.max_length - given
        return super().generate_until(requests, *args, **options)

    def _fit(self, asked: int) -> int:
        """The new tokens there is room for: those asked for, unless they alone fill the window."""
        if asked < self.max_length:
            return asked
        given = max(self.max_length // _SHARE_OF_WINDOW, 1)
        self.shortened = (
            f"at most {given:,} new tokens in place of {asked:,}, which alone fill the model's "
            f"window of {self.max_length:,}: not comparable with numbers of longer windows"
        )
        return given


def find_chat(template: str, processor: Any) -> Chat:
    """How a `model.template` writes a conversation; `processor` has its own, or its tokenizer's.

    Raises:
        ConfigError: neither has one.
    """
    if template in LAYOUTS:
        return Chat(chat_template(template, ""))  # type: ignore[arg-type]  # never `plain`
    own = getattr(processor, "chat_template", None)
    if own:
        return Chat(own, in_parts=True)
    if processor.tokenizer.chat_template:
        return Chat(processor.tokenizer.chat_template)
    raise ConfigError(
        "evaluation.chat_template: model.template is `processor`, and neither the processor nor "
        "its tokenizer has a chat template; name the one the model was tuned with"
    )

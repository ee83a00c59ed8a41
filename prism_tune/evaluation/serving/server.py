"""Questions put to a server that runs (vLLM, SGLang, `transformers serve`), no model in memory.

In: requests, and the model's own processor. Out: answers, each as soon as it is there. The images
sent are the very pictures the profile asks for (padded to a square where the model's are), as PNG;
the server's processor resizes them. Its chat template writes the prompt: on the first questions its
count of prompt tokens is held against ours, and a difference is said in the result.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

from PIL import Image
from transformers import ProcessorMixin

from prism_tune.chat.rendering import template_options
from prism_tune.config.sections import EvaluationConfig, Template
from prism_tune.data.conversation import render_prompt
from prism_tune.data.images import open_image
from prism_tune.data.pixels import pad_to_square
from prism_tune.errors import ConfigError
from prism_tune.evaluation.decoding.counts import Counts, add_counts
from prism_tune.evaluation.decoding.prompts import Answer, Request, collate_prompts
from prism_tune.evaluation.serving.chat_api import ChatApi
from prism_tune.evaluation.serving.under_way import UnderWay

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 900.0
"""Of one answer: a long one waits for those before it."""


class Server:
    """A model behind an OpenAI-compatible address, asked greedily.

    Args:
        open_api: gives the address; called once, when something is to be asked.
        processor: of the model that is served, as this package loads it.
        template: what our prompt would be.
        concurrency: how many questions at a time.
    """

    def __init__(
        self,
        open_api: Callable[[], ChatApi],
        processor: ProcessorMixin,
        *,
        template: Template,
        concurrency: int,
    ) -> None:
        self._open_api = open_api
        self.processor = processor
        self.counter = self
        self._template: Template = template
        self._concurrency = concurrency
        self._counts: Counts = {}

    @cached_property
    def _api(self) -> ChatApi:
        return self._open_api()

    def render(self, text: str, num_images: int) -> str:
        """A question as our prompt, by which an answer is known; the server writes its own."""
        return render_prompt(text, num_images > 0, self._template, self.processor, num_images)

    def answer(
        self, requests: Sequence[Request], *, max_new_tokens: int
    ) -> Iterator[dict[Request, Answer]]:
        """Yield each answer when it comes; at most `concurrency` are under way.

        Raises:
            UserError: the server refuses, or does not answer after several tries; an image cannot
                be read. It is raised once those under way have been answered, and yielded; who
                asks keeps them. Ctrl-C waits for none of them.
        """
        unique = list(dict.fromkeys(requests))
        ask = partial(self._ask, self._api, max_new_tokens=max_new_tokens)
        asking = UnderWay(ask, unique, self._concurrency)
        for request, answer in asking:
            yield self._count(request, answer)

    def _count(self, request: Request, answer: Answer) -> dict[Request, Answer]:
        counts: Counts = {"images": len(request.images), "tokens": answer.num_new_tokens}
        self._counts = add_counts(self._counts, counts)
        return {request: answer}

    def take(self) -> Counts:
        """`images` and new `tokens` since the last call."""
        taken, self._counts = self._counts, {}
        return taken

    def check(self, requests: Sequence[Request]) -> list[str]:
        """Notes on the first questions whose prompt is another there than here, by its length."""
        differing = []
        for request in requests:
            ours = int(collate_prompts(self.processor, [request])["attention_mask"].sum())
            reply = self._api.complete(self._make_body(self._api, request, 1))[2]
            theirs = _read_usage(reply, "prompt_tokens")
            if theirs is not None and theirs != ours:
                differing.append(f"{theirs} for {ours}")
        if not differing:
            return []
        note = (
            f"the server's prompts are not those of template {self._template}: prompt tokens "
            f"there and here, of the first questions: {', '.join(differing)}"
        )
        logger.warning("%s", note)
        return [note]

    def _ask(self, api: ChatApi, request: Request, max_new_tokens: int) -> Answer:
        text, _, reply = api.complete(self._make_body(api, request, max_new_tokens))
        num_new = _read_usage(reply, "completion_tokens") or 0
        return Answer(text.strip(), num_new, reply["choices"][0].get("finish_reason") != "length")

    def _make_body(self, api: ChatApi, request: Request, max_new_tokens: int) -> dict[str, Any]:
        pictures = [encode_picture(open_image(path), self.processor) for path in request.images]
        images = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        content = [*images, {"type": "text", "text": request.question}]
        return {
            "model": api.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "frequency_penalty": 0,  # not said, transformers serve takes the checkpoint's
            "max_tokens": max_new_tokens,
            **self._options,
        }

    @cached_property
    def _options(self) -> dict[str, Any]:
        """As the model was tuned: without thinking, where its template offers that."""
        owners = (self.processor, getattr(self.processor, "tokenizer", None))
        written = next(
            filter(None, (getattr(owner, "chat_template", None) for owner in owners)), ""
        )
        options = {k: v for k, v in template_options(written).items() if k != "chat_template"}
        return {"chat_template_kwargs": options} if options else {}


def open_api(config: EvaluationConfig) -> ChatApi:
    """The address of a server that runs.

    Raises:
        ConfigError: no address or no name.
    """
    for key in ("base_url", "served_model"):
        if not getattr(config, key):
            raise ConfigError(
                f"evaluation.{key}: missing; backend `openai` asks a server that runs: "
                "evaluation.base_url=http://127.0.0.1:8000/v1 and evaluation.served_model, "
                "the model's name there; or starts one by evaluation.serve_command"
            )
    return ChatApi(
        config.base_url or "",
        config.served_model or "",
        option="evaluation.base_url",
        timeout=_TIMEOUT_SECONDS,
    )


def _read_usage(reply: dict[str, Any], key: str) -> int | None:
    """A count of tokens; None where the server gives none that is a number."""
    usage = reply.get("usage")
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def encode_picture(image: Image.Image, processor: Any) -> str:
    """The picture the model is shown, as a data URI; padded here where the processor would."""
    if getattr(processor.image_processor, "do_pad", None) is True and _is_llava(processor):
        image = pad_to_square(image, processor.image_processor.image_mean)
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _is_llava(processor: Any) -> bool:
    """`do_pad` of other families pads a batch, not a picture."""
    return type(processor.image_processor).__name__.startswith("LlavaImageProcessor")

"""A conversation with a tuned model, about images: what training has made of it, tried by hand.

In: a run folder, or any model directory, and what somebody types. Out: the model's answers, greedy,
each to the whole conversation so far, written as the records it was tuned on.
"""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import Config, Template
from prism_tune.data.conversation import render
from prism_tune.errors import UserError
from prism_tune.evaluation.checkpoint import Checkpoint, find_checkpoint, open_decoder
from prism_tune.evaluation.decoding.prompts import Request
from prism_tune.evaluation.generate import Decoder
from prism_tune.models.processor import resolve_template
from prism_tune.run.folder import RunDir
from prism_tune.run.record import recorded_config
from prism_tune.schema import IMAGE_PLACEHOLDER, Turn


class Chat:
    """One conversation; images that are shown come before the next question."""

    def __init__(self, decoder: Decoder, template: Template, max_new_tokens: int) -> None:
        self._decoder = decoder
        self._template: Template = template
        self._max_new_tokens = max_new_tokens
        self.begin()

    def begin(self) -> None:
        """Forget what was said and shown."""
        self._turns: list[Turn] = []
        self._images: list[Path] = []
        self._num_shown = 0

    def show(self, image: Path) -> None:
        """Put an image before the next question.

        Raises:
            UserError: no such file.
        """
        if not image.is_file():
            raise UserError(f"{image}: no such file")
        self._images.append(image)

    def ask(self, text: str) -> str:
        """The answer; it belongs to the conversation from then on.

        Raises:
            UserError: an image that cannot be read, which is no longer shown then, or a text that
                would stand for one.
        """
        if IMAGE_PLACEHOLDER in text:
            raise UserError(f"{IMAGE_PLACEHOLDER} stands for a picture: show it by /image FILE")
        num_new = len(self._images) - self._num_shown
        question = Turn("human", f"{IMAGE_PLACEHOLDER}\n" * num_new + text)
        rendered = render(
            [*self._turns, question, Turn("gpt", "")], self._template, self._decoder.processor
        )
        prompt = rendered.text[: rendered.answer_spans[-1][0]]
        request = Request(prompt, tuple(self._images), text)
        try:
            (answers,) = self._decoder.answer([request], max_new_tokens=self._max_new_tokens)
        except UserError:
            del self._images[self._num_shown :]
            raise
        answer = answers[request].text
        self._turns += [question, Turn("gpt", answer)]
        self._num_shown = len(self._images)
        return answer


def open_chat(source: Path, *, max_new_tokens: int, trust_remote_code: bool = False) -> Chat:
    """A chat with a run's model, or with a model directory.

    Args:
        source: a run folder that has been trained (or whose model was evaluated untuned), or a
            model or adapter directory.
        max_new_tokens: of an answer.
        trust_remote_code: what a run's record says of it does not count.

    Raises:
        UserError: neither, or a model that cannot be read.
    """
    config, checkpoint = _find(source, trust_remote_code)
    data = config.data.model_copy(update={"num_workers": 0})
    evaluation = config.evaluation.model_copy(update={"batch_size": 1})
    config = config.model_copy(update={"evaluation": evaluation, "data": data})
    return Chat(open_decoder(config, checkpoint), config.model.template, max_new_tokens)


def _find(source: Path, trusts: bool) -> tuple[Config, Checkpoint]:
    run = RunDir(source)
    is_model = any((source / n).exists() for n in ("config.json", "adapter_config.json"))
    if is_model:
        tree = {"name": "chat", "model": {"path": str(source)}, "data": {"records": ""}}
        config = Config.model_validate({**tree, "training": {"tuning": "none"}})
    else:
        config = recorded_config(run)
    # Attention as this machine can: the record's may need a GPU.
    here = {"trust_remote_code": trusts, "attn_implementation": None}
    model = config.model.model_copy(update=here)
    config = resolve_template(config.model_copy(update={"model": model}))
    return config, find_checkpoint(config, run)

"""Generation throughput: our batched decoder against one question at a time, as LLaVA does it.

    python benchmarks/generation.py                                # embedded model, three workloads
    python benchmarks/generation.py --share 0.1 --batch-size 10    # a quick look
    python benchmarks/generation.py --checkpoint runs/quickstart/training/final
    python benchmarks/generation.py --serve "transformers serve {model} --port {port} --device cpu"

Needs `prism-tune prepare configs/experiments/quickstart.yaml`. Three workloads on the held-out
drawings, all questions different: `pope`, 18 yes/no questions a picture with POPE's prompt, as POPE
has them; `single`, one a picture, as VizWiz has them; `long`, answers of up to 48 tokens. All sides
are greedy, in the same dtype, one after another, after a warm-up. `--serve` also starts a server of
the same model and asks it; the time that it takes to start is not counted. Prints seconds,
questions and new tokens per second of each, the ratio to one at a time, and how many answers are
the same.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.data.conversation import adds_special_tokens, render_prompt
from prism_tune.data.images import open_image
from prism_tune.evaluation.benchmarks.pope import SUFFIX
from prism_tune.evaluation.decoding.prompts import Answer, Request
from prism_tune.evaluation.generate import Decoder
from prism_tune.evaluation.serving.server import Server
from prism_tune.evaluation.serving.started import reached_server
from prism_tune.models.checkpoint import load_tuned
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.export import export
from prism_tune.models.processor import load_processor

Side = Callable[[list[Request], int], dict[Request, Answer]]

_COLOURS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
_SHAPES = ("circle", "rectangle", "triangle")
_NUM_WARM_UP = 2


@dataclass(frozen=True)
class Workload:
    """Questions: how many pictures, how many questions of each, and how long an answer may be."""

    num_pictures: int
    num_questions: int
    max_new_tokens: int
    text: str

    def make(self, config: Config, processor: Any, images: Path, share: float) -> list[Request]:
        """So many different pairs of a question and a drawing, picture by picture."""
        paths = sorted(images.rglob("*.png"))[::7]  # of every folder
        objects = list(itertools.product(_SHAPES, _COLOURS))[: self.num_questions]
        asked = []
        for path in paths[: max(1, round(self.num_pictures * share))]:
            for shape, colour in objects:
                question = self.text.format(shape=shape, colour=colour)
                prompt = render_prompt(question, True, config.model.template, processor)
                asked.append(Request(prompt, (path,), question))
        return asked


WORKLOADS = {
    "pope": Workload(6, 18, 16, "Is there a {colour} {shape} in the image?" + SUFFIX),
    "single": Workload(48, 1, 16, "Is there a {colour} {shape} in the image?" + SUFFIX),
    "long": Workload(8, 2, 48, "Write a story about this picture and a {colour} {shape}."),
}


def main() -> None:
    """Parse the command line, run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default="configs/experiments/quickstart.yaml")
    parser.add_argument("--images", type=Path, default="data/quickstart/test_images")
    parser.add_argument("--checkpoint", type=Path, default=None, help="tuned; else as it is")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--serve", metavar="COMMAND", help="as evaluation.serve_command")
    parser.add_argument("--concurrency", type=int, default=16, help="questions at a time there")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    device = pick_device()
    dtype = resolve_dtype(arguments.dtype, device)
    processor = load_processor(config.model)
    decoder = Decoder(
        lambda: load_tuned(config, arguments.checkpoint, dtype=dtype, device=device),
        processor,
        template=config.model.template,
        batch_size=arguments.batch_size,
        num_workers=config.data.num_workers,
    )
    model = decoder.model
    print(f"{dtype}, {device.type}, {torch.get_num_threads()} threads")
    with open_server(config, arguments, processor) as server:
        for name in arguments.workloads:
            workload = WORKLOADS[name]
            limit = workload.max_new_tokens
            sides: dict[str, Side] = {
                "one at a time": partial(answer_one_by_one, model, processor),
                f"batches of {arguments.batch_size}": partial(answer_batched, decoder),
            }
            if server:
                sides[f"server, {arguments.concurrency} at a time"] = partial(
                    answer_batched, server
                )
            requests = workload.make(config, processor, arguments.images, arguments.share)
            print(f"\n{name}: {len(requests)} questions\n")
            print_table({side: measure(run, requests, limit) for side, run in sides.items()})


@contextmanager
def open_server(
    config: Config, arguments: argparse.Namespace, processor: Any
) -> Iterator[Server | None]:
    """A server of the checkpoint, if one is asked for; a LoRA checkpoint is merged for it."""
    if not arguments.serve:
        yield None
        return
    asked = {"backend": "openai", "serve_command": arguments.serve}
    evaluation = config.evaluation.model_copy(update=asked)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(config.model.path)
        if arguments.checkpoint is not None:
            model = Path(folder) / "model"
            export(arguments.checkpoint, model)
        log = Path(folder) / "server.log"
        with reached_server(evaluation, lambda: str(model), log) as open_api:
            yield Server(
                open_api,
                processor,
                template=config.model.template,
                concurrency=arguments.concurrency,
            )


def answer_batched(
    decoder: Decoder | Server, requests: list[Request], max_new_tokens: int
) -> dict[Request, Answer]:
    """Ours."""
    answers: dict[Request, Answer] = {}
    for batch in decoder.answer(requests, max_new_tokens=max_new_tokens):
        answers |= batch
    return answers


@torch.inference_mode()
def answer_one_by_one(
    model: Any, processor: Any, requests: list[Request], max_new_tokens: int
) -> dict[Request, Answer]:
    """LLaVA's loop: open, preprocess, generate and decode each question by itself.

    Greedy, with the end tokens that the decoder has put into the model's generation config.
    """
    answers = {}
    for request in requests:
        inputs = processor(
            images=[open_image(path) for path in request.images],
            text=[request.prompt],
            add_special_tokens=adds_special_tokens(request.prompt, processor.tokenizer),
            return_tensors="pt",
        ).to(model.device, model.dtype)
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens)
        new_tokens = tokens[0, inputs["input_ids"].shape[1] :]
        text = processor.tokenizer.decode(new_tokens, skip_special_tokens=True)
        answers[request] = Answer(text.strip(), len(new_tokens), len(new_tokens) < max_new_tokens)
    return answers


def measure(
    run: Side, requests: list[Request], max_new_tokens: int
) -> tuple[float, dict[Request, Answer]]:
    """Seconds and answers."""
    run(requests[:_NUM_WARM_UP], max_new_tokens)
    start = time.perf_counter()
    answers = run(requests, max_new_tokens)
    return time.perf_counter() - start, answers


def print_table(measured: dict[str, tuple[float, dict[Request, Answer]]]) -> None:
    """A row for each side; the first is the baseline."""
    baseline, expected = next(iter(measured.values()))
    print("| how | seconds | questions/s | new tokens/s | faster | same answers |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (seconds, answers) in measured.items():
        num_tokens = sum(answer.num_new_tokens for answer in answers.values())
        num_same = sum(answers[request].text == answer.text for request, answer in expected.items())
        print(
            f"| {name} | {seconds:.1f} | {len(answers) / seconds:.2f} | {num_tokens / seconds:.1f} "
            f"| {baseline / seconds:.1f}x | {num_same} of {len(expected)} |"
        )


if __name__ == "__main__":
    main()

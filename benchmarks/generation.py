"""Generation throughput: our batched decoder against one question at a time, as LLaVA does it.

    python benchmarks/generation.py                                # 500 questions, embedded model
    python benchmarks/generation.py --num-questions 20 --batch-size 10     # a quick look
    python benchmarks/generation.py --checkpoint runs/quickstart/training/final
    python benchmarks/generation.py --serve "transformers serve {model} --port {port} --device cpu"

Needs `prism-tune prepare configs/experiments/quickstart.yaml`. POPE-like questions ("Is there a red
circle in the image?") on the held-out drawings, all different, with POPE's prompt. All sides are
greedy, in the same dtype, one after another, after a warm-up. `--serve` also starts a server of the
same model and asks it; the time that it takes to start is not counted. Prints seconds, questions
and new tokens per second of each, the ratio to one at a time, and how many answers are the same.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.data.conversation import adds_special_tokens, render_prompt
from prism_tune.data.images import open_image
from prism_tune.evaluation.benchmarks.pope import SUFFIX
from prism_tune.evaluation.generate import Answer, Decoder, Request
from prism_tune.evaluation.serving.server import Server
from prism_tune.evaluation.serving.started import started_server
from prism_tune.models.checkpoint import load_tuned
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.export import export
from prism_tune.models.processor import load_processor

_COLOURS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
_SHAPES = ("circle", "rectangle", "triangle")
_NUM_WARM_UP = 2


def main() -> None:
    """Parse the command line, run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default="configs/experiments/quickstart.yaml")
    parser.add_argument("--images", type=Path, default="data/quickstart/test_images")
    parser.add_argument("--checkpoint", type=Path, default=None, help="tuned; else as it is")
    parser.add_argument("--num-questions", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--serve", metavar="COMMAND", help="as evaluation.serve_command")
    parser.add_argument("--concurrency", type=int, default=16, help="questions at a time there")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    device = pick_device()
    dtype = resolve_dtype(arguments.dtype, device)
    processor = load_processor(config.model)
    requests = make_requests(config, processor, arguments.images, arguments.num_questions)
    decoder = Decoder(
        lambda: load_tuned(config, arguments.checkpoint, dtype=dtype, device=device),
        processor,
        template=config.model.template,
        batch_size=arguments.batch_size,
        num_workers=config.data.num_workers,
    )
    model = decoder.model
    limit = arguments.max_new_tokens
    sides: dict[str, Callable[[list[Request]], dict[Request, Answer]]] = {
        "one at a time": lambda asked: answer_one_by_one(model, processor, asked, limit),
        f"batches of {arguments.batch_size}": lambda asked: answer_batched(decoder, asked, limit),
    }
    print(f"{len(requests)} questions, {dtype}, {device.type}, {torch.get_num_threads()} threads\n")
    measured = {name: measure(run, requests) for name, run in sides.items()}
    if arguments.serve:
        measured[f"server, {arguments.concurrency} at a time"] = measure_server(
            config, arguments, processor, requests
        )
    print_table(measured)


def measure_server(
    config: Config, arguments: argparse.Namespace, processor: Any, requests: list[Request]
) -> tuple[float, dict[Request, Answer]]:
    """Seconds and answers of a server of the checkpoint; a LoRA checkpoint is merged for it."""
    asked = {"backend": "openai", "serve_command": arguments.serve}
    asked["concurrency"] = arguments.concurrency
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=asked)})
    with tempfile.TemporaryDirectory() as folder:
        model = Path(config.model.path)
        if arguments.checkpoint is not None:
            model = Path(folder) / "model"
            export(arguments.checkpoint, model)
        log = Path(folder) / "server.log"
        with started_server(config, lambda: str(model), log) as served:
            server = Server(served.evaluation, processor, template=config.model.template)
            return measure(
                lambda some: answer_batched(server, some, arguments.max_new_tokens), requests
            )


def make_requests(
    config: Config, processor: Any, images: Path, num_questions: int
) -> list[Request]:
    """So many different pairs of a question and a drawing."""
    paths = sorted(images.glob("*.png"))
    objects = itertools.product(_SHAPES, _COLOURS)
    pairs = ((path, shape, colour) for shape, colour in objects for path in paths)
    template = config.model.template
    asked = []
    for path, shape, colour in itertools.islice(pairs, num_questions):
        question = f"Is there a {colour} {shape} in the image?{SUFFIX}"
        asked.append(Request(render_prompt(question, True, template, processor), (path,), question))
    return asked


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
    run: Callable[[list[Request]], dict[Request, Answer]], requests: list[Request]
) -> tuple[float, dict[Request, Answer]]:
    """Seconds and answers."""
    run(requests[:_NUM_WARM_UP])
    start = time.perf_counter()
    answers = run(requests)
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

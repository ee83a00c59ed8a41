"""Runs of the evaluation stage: two small benchmarks on drawn images, configs, what came out."""

from __future__ import annotations

import json

from support.tiny import draw_image

from prism_tune.config.sections import Config
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.evaluation.generate import Decoder
from prism_tune.run.folder import RunDir

NUM_IMAGES = 4
TASKS = {
    "shape": "what shape is in the picture?",
    "color": "what color is the shape in the picture, please?",
    "is": "is it red?",
}
ANSWERS = {"shape": "circle", "color": "red", "is": "yes"}


def draw_benchmarks(root):
    """12 questions of the quickstart and 6 of POPE on 4 drawn images."""
    (root / "images").mkdir()
    for i in range(NUM_IMAGES):
        draw_image(root / "images" / f"{i}.png", 3 * i)
    questions = [
        {
            "question_id": f"q{i}-{task}",
            "image": f"{i}.png",
            "text": text,
            "answer": ANSWERS[task],
            "category": task,
        }
        for i in range(NUM_IMAGES)
        for task, text in TASKS.items()
    ]
    (root / "test.json").write_text(json.dumps(questions))
    (root / "pope").mkdir()
    for split in ("random", "popular", "adversarial"):
        lines = [
            {"question_id": i, "image": f"{i}.png", "text": "Is there a dog?", "label": label}
            for i, label in ((1, "yes"), (2, "no"))
        ]
        path = root / "pope" / f"coco_pope_{split}.json"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


class Setting:
    """A run folder and configs for it."""

    def __init__(self, model_dir, data_dir, tmp_path):
        self.model_dir = model_dir
        self.data_dir = data_dir
        self.run = RunDir(tmp_path / "runs" / "tiny")

    def config(self, *, benchmarks=("quickstart",), data=None, tuning="none", **evaluation):
        images = str(self.data_dir / "images")
        return Config.model_validate(
            {
                "name": "tiny",
                "output_dir": str(self.run.root.parent),
                "model": {"path": str(self.model_dir), "template": "vicuna_v1"},
                "data": {"records": "unused.json", "num_workers": 0},
                "training": {"tuning": tuning},
                "evaluation": {
                    "benchmarks": benchmarks,
                    "dtype": "float32",
                    "data": {
                        "quickstart": {
                            "annotations": str(self.data_dir / "test.json"),
                            "image_dir": images,
                        },
                        "pope": {"annotations": str(self.data_dir / "pope"), "image_dir": images},
                        **(data or {}),
                    },
                    **evaluation,
                },
            }
        )

    def evaluate(self, *, force=False, **config):
        evaluate(self.config(**config), self.run, force=force)

    def lines(self, benchmark="quickstart", stem="predictions"):
        path = self.run.benchmark(benchmark) / f"{stem}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def results(self, benchmark="quickstart"):
        return json.loads((self.run.benchmark(benchmark) / "results.json").read_text())


def interrupt_batch(monkeypatch, number):
    """Ctrl-C in the batch of this number."""
    answer_batch, calls = Decoder._answer_batch, []

    def interrupt(self, batch, *rest):
        calls.append(batch)
        if len(calls) == number:
            raise KeyboardInterrupt
        return answer_batch(self, batch, *rest)

    monkeypatch.setattr(Decoder, "_answer_batch", interrupt)

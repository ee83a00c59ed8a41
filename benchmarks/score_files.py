"""Seconds to score MME, POPE and ScienceQA from files, start-up of the command line included.

    python benchmarks/score_files.py
    python benchmarks/score_files.py --repeats 1

Draws annotations and answer files of the official size (2,374, 8,910 and 4,241 questions) in the
official layouts, then runs `prism-tune score BENCHMARK --json` on each as a process of its own.
Prints a table; the goal is under 3 s together.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prism_tune.evaluation.benchmarks.mme import COGNITION, PERCEPTION

_NUM_MME_IMAGES = {
    "existence": 30, "count": 30, "position": 30, "color": 30, "posters": 147, "celebrity": 170,
    "scene": 200, "landmark": 200, "artwork": 200, "OCR": 20, "commonsense_reasoning": 70,
    "numerical_calculation": 20, "text_translation": 20, "code_reasoning": 20,
}  # fmt: skip
_NUM_POPE = {"random": 2910, "popular": 3000, "adversarial": 3000}
_POPE_OFFSETS = {"random": 10_000_000, "popular": 20_000_000, "adversarial": 0}
_NUM_SCIENCEQA, _NUM_SCIENCEQA_IMAGES = 4241, 2017
_YES_NO = "\nAnswer the question using a single word or phrase."
_HINT_WORDS = 40

Answers = list[tuple[str | int, str, str]]


def main() -> None:
    """Draw the files, score them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="the best counts")
    arguments = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        drawn = {name: draw(root / name, rng) for name, draw in DRAWN.items()}
        print("| benchmark | questions | seconds |")
        print("|---|---:|---:|")
        total = 0.0
        for name, (annotations, predictions, num_questions) in drawn.items():
            command = [
                sys.executable, "-m", "prism_tune", "score", name, "--json",
                "--annotations", str(annotations), "--predictions", str(predictions),
            ]  # fmt: skip
            seconds = min(time_command(command, num_questions) for _ in range(arguments.repeats))
            total += seconds
            print(f"| {name} | {num_questions:,} | {seconds:.2f} |")
        print(f"| together | | {total:.2f} |")


def time_command(command: Sequence[str], num_questions: int) -> float:
    """Wall-clock seconds of a process that scores so many questions."""
    start = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, check=True)
    seconds = time.perf_counter() - start
    result = json.loads(finished.stdout)
    assert result["num_examples"] == num_questions, result["notes"]
    assert result["num_missing"] == 0, result["notes"]
    return seconds


def draw_mme(folder: Path, rng: random.Random) -> tuple[Path, Path, int]:
    """The release folder without its images, and LLaVA's answers."""
    answers: Answers = []
    for category in (*PERCEPTION, *COGNITION):
        (folder / "release" / category).mkdir(parents=True)
        for image in range(_NUM_MME_IMAGES[category]):
            questions = [f"Is object {n} of {image} in this image?" for n in range(2)]
            labels = ("Yes", "No")
            lines = [f"{questions[n]} Please answer yes or no.\t{labels[n]}" for n in range(2)]
            (folder / "release" / category / f"{image:04d}.txt").write_text("\n".join(lines))
            answers += [
                (f"{category}/{image:04d}.png", q + _YES_NO, rng.choice(("Yes", "No")))
                for q in questions
            ]
    return folder / "release", write_answers(folder, answers), len(answers)


def draw_pope(folder: Path, rng: random.Random) -> tuple[Path, Path, int]:
    """The three official files of the pinned version, and LLaVA's answers."""
    folder.mkdir()
    answers: Answers = []
    for split, num_rows in _NUM_POPE.items():
        rows = []
        for number in range(1, num_rows + 1):
            text = f"Is there a thing {number % 80} in the image?"
            image = f"COCO_val2014_{number // 6:012d}.jpg"
            label = ("yes", "no")[number % 2]
            rows.append({"question_id": number, "image": image, "text": text, "label": label})
            answer = rng.choice(("Yes", "No"))
            answers.append((_POPE_OFFSETS[split] + number, text + _YES_NO, answer))
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"coco_pope_{split}.json").write_text(content)
    return folder, write_answers(folder, answers), len(answers)


def draw_scienceqa(folder: Path, rng: random.Random) -> tuple[Path, Path, int]:
    """problems.json with all 21,208 problems, pid_splits.json, and LLaVA's answers."""
    folder.mkdir()
    num_problems = 21_208
    test = [str(pid) for pid in rng.sample(range(1, num_problems + 1), _NUM_SCIENCEQA)]
    with_image = set(test[:_NUM_SCIENCEQA_IMAGES])
    problems = {
        str(pid): {
            "question": f"Which of these is number {pid}?", "choices": ["this", "that", "neither"],
            "answer": pid % 3, "hint": "word " * _HINT_WORDS,
            "image": "image.png" if str(pid) in with_image else None, "subject": "natural science",
            "lecture": "word " * 3 * _HINT_WORDS, "solution": "word " * 2 * _HINT_WORDS,
        }
        for pid in range(1, num_problems + 1)
    }  # fmt: skip
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": test}))
    answers: Answers = [(pid, problems[pid]["question"], rng.choice("ABC")) for pid in test]
    return folder, write_answers(folder, answers), len(answers)


def write_answers(folder: Path, answers: Answers) -> Path:
    """LLaVA's answer file."""
    records = [
        {"question_id": i, "prompt": prompt, "text": text, "answer_id": f"{n:022d}",
         "model_id": "drawn", "metadata": {}}
        for n, (i, prompt, text) in enumerate(answers)
    ]  # fmt: skip
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


DRAWN: dict[str, Callable[[Path, random.Random], tuple[Path, Path, int]]] = {
    "mme": draw_mme,
    "pope": draw_pope,
    "scienceqa": draw_scienceqa,
}


if __name__ == "__main__":
    main()

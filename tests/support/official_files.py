"""Every benchmark's annotations in its official layout, small, with the answers that are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from prism_tune.schema import Prediction

NUM = 6


def write_official(name: str, folder: Path) -> tuple[Path, list[Prediction]]:
    """Write the annotations of a benchmark; their path, and a right answer to each question."""
    return WRITERS[name](folder)


def _write_scienceqa(folder: Path) -> tuple[Path, list[Prediction]]:
    problems = {
        str(n): {
            "question": f"Which {n}?", "choices": ["a", "b", "c"], "answer": n % 3, "hint": "",
            "image": "image.png" if n % 2 else None, "subject": "natural science",
        }
        for n in range(NUM)
    }  # fmt: skip
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
    return folder, [Prediction(str(n), "", "ABC"[n % 3]) for n in range(NUM)]


def _write_vizwiz(folder: Path) -> tuple[Path, list[Prediction]]:
    entries = [
        {"image": f"VizWiz_val_{n:08d}.jpg", "question": f"What is {n}?", "answer_type": "other",
         "answerable": 1, "answers": [{"answer": f"cup {n + 20}"}] * 10}
        for n in range(NUM)
    ]  # fmt: skip
    (folder / "val.json").write_text(json.dumps(entries))
    return folder, [Prediction(n, "", f"cup {n + 20}") for n in range(NUM)]


def _write_pope(folder: Path) -> tuple[Path, list[Prediction]]:
    answers = []
    for split, offset in (("random", 10_000_000), ("popular", 20_000_000), ("adversarial", 0)):
        rows = [
            {"question_id": n, "image": f"{n}.jpg", "text": f"Is there a {n}?",
             "label": ("yes", "no")[n % 2]}
            for n in range(1, NUM + 1)
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"coco_pope_{split}.json").write_text(text)
        answers += [Prediction(offset + r["question_id"], "", r["label"].title()) for r in rows]
    return folder, answers


def _write_mmvet(folder: Path) -> tuple[Path, list[Prediction]]:
    entries = {
        f"v1_{n}": {"imagename": f"{n}.jpg", "imagesource": "s", "question": f"What is {n}?",
                    "answer": f"cup {n + 20}<AND>plate", "capability": ["rec", "know"][: 1 + n % 2]}
        for n in range(NUM)
    }  # fmt: skip
    (folder / "mm-vet.json").write_text(json.dumps(entries))
    answers = [Prediction(f"v1_{n}", "", f"A cup {n + 20}, a plate.") for n in range(NUM)]
    return folder / "mm-vet.json", answers


def _write_mmbench(folder: Path) -> tuple[Path, list[Prediction]]:
    columns = ["index", "question", "A", "B", "C", "D", "answer", "category", "l2-category"]
    lines, answers = ["\t".join(columns)], []
    for n in range(NUM):
        for turn in range(2):
            index = n + turn * 1_000_000
            letter = "AB"[(n + turn) % 2]
            row = [str(index), f"Which {n}?", "one", "two", "", "", letter, "c", "l"]
            lines.append("\t".join(row))
            answers.append(Prediction(index, "", letter))
    (folder / "mmbench.tsv").write_text("\n".join(lines) + "\n")
    return folder / "mmbench.tsv", answers


def _write_mme(folder: Path) -> tuple[Path, list[Prediction]]:
    answers = []
    for category in ("existence", "OCR", "code_reasoning"):
        (folder / category).mkdir()
        for n in range(NUM // 2):
            pair = [
                f"Is {n} here? Please answer yes or no.",
                f"Is {n} not? Please answer yes or no.",
            ]
            (folder / category / f"{n}.txt").write_text(f"{pair[0]}\tYes\n{pair[1]}\tNo")
            answers += [
                Prediction(f"{category}/{n}.png", prompt, text)
                for prompt, text in zip(pair, ("Yes", "No"), strict=True)
            ]
    return folder, answers


def _write_mmmu(folder: Path) -> tuple[Path, list[Prediction]]:
    entries = {
        f"validation_Math_{n}": {"question_type": "short-answer", "ground_truth": f"cup {n + 20}"}
        for n in range(NUM)
    }
    (folder / "answer_dict_val.json").write_text(json.dumps(entries))
    return folder, [Prediction(key, "", e["ground_truth"]) for key, e in entries.items()]


def _write_quickstart(folder: Path) -> tuple[Path, list[Prediction]]:
    rows = [
        {"question_id": f"q{n}", "image": f"{n}.png", "text": f"What {n}?", "answer": f"cup {n}",
         "category": "shape"}
        for n in range(NUM)
    ]  # fmt: skip
    (folder / "test.json").write_text(json.dumps(rows))
    return folder / "test.json", [Prediction(row["question_id"], "", row["answer"]) for row in rows]


def _write_textvqa(folder: Path) -> tuple[Path, list[Prediction]]:
    records = [
        {"image_id": f"{n // 2:016x}", "question_id": 34602 + n, "question": f"What is {n}?",
         "answers": [f"cup {n + 20}"] * 10}
        for n in range(NUM)
    ]  # fmt: skip
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": records}))
    tail = "\nReference OCR token: a, b\nAnswer the question using a single word or phrase."
    answers = [
        Prediction(r["image_id"], r["question"] + tail, r["answers"][0].upper()) for r in records
    ]
    return folder / "TextVQA_0.5.1_val.json", answers


def _write_gqa(folder: Path) -> tuple[Path, list[Prediction]]:
    entries = {
        str(201307251 + n): {
            "question": f"Is it {n}?", "imageId": f"n{n}", "answer": ("yes", "cup")[n % 2],
            "isBalanced": True,
            "types": {"structural": ("verify", "query")[n % 2], "semantic": "rel"},
        }
        for n in range(NUM)
    }  # fmt: skip
    (folder / "testdev_balanced_questions.json").write_text(json.dumps(entries))
    answers = [Prediction(key, "", f"{e['answer'].title()}.") for key, e in entries.items()]
    return folder / "testdev_balanced_questions.json", answers


def _write_vqav2(folder: Path) -> tuple[Path, list[Prediction]]:
    questions = [{"question_id": n, "image_id": n, "question": f"What {n}?"} for n in range(NUM)]
    annotations = [
        {"question_id": n, "image_id": n, "question_type": "what", "answer_type": "other",
         "answers": [
             {"answer": f"cup {n + 20}", "answer_confidence": "yes", "answer_id": k + 1}
             for k in range(10)
         ]}
        for n in range(NUM)
    ]  # fmt: skip
    for name, content in (
        ("OpenEnded_mscoco_val2014_questions", {"questions": questions}),
        ("mscoco_val2014_annotations", {"annotations": annotations}),
    ):
        (folder / f"v2_{name}.json").write_text(json.dumps(content))
    return folder, [Prediction(n, "", f"cup {n + 20}") for n in range(NUM)]


def _write_seed_bench(folder: Path) -> tuple[Path, list[Prediction]]:
    questions = [
        {"question_id": str(n), "question": f"Which {n}?", "choice_a": "one", "choice_b": "two",
         "choice_c": "three", "choice_d": "four", "answer": "ABCD"[n % 4], "data_id": f"{n}",
         "data_type": ("image", "video")[n % 2], "question_type_id": (1, 10)[n % 2]}
        for n in range(NUM)
    ]  # fmt: skip
    names = {"Scene Understanding": 1, "Action Recognition": 10}
    content = {"questions": questions, "question_type": names}
    (folder / "SEED-Bench.json").write_text(json.dumps(content))
    answers = [Prediction(int(q["question_id"]), "", q["answer"]) for q in questions]
    return folder / "SEED-Bench.json", answers


WRITERS: dict[str, Callable[[Path], tuple[Path, list[Prediction]]]] = {
    "scienceqa": _write_scienceqa,
    "vizwiz": _write_vizwiz,
    "pope": _write_pope,
    "mmvet": _write_mmvet,
    "mmbench": _write_mmbench,
    "mme": _write_mme,
    "mmmu": _write_mmmu,
    "quickstart": _write_quickstart,
    "mmbench_cn": _write_mmbench,
    "textvqa": _write_textvqa,
    "gqa": _write_gqa,
    "vqav2": _write_vqav2,
    "seed_bench": _write_seed_bench,
}

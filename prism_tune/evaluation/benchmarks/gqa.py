r"""GQA (testdev, balanced): 12,578 compositional questions about scenes.

Source: cs.stanford.edu/people/dorarad/gqa, `testdev_balanced_questions.json`; LLaVA's question file
    `llava_gqa_testdev_balanced.jsonl` (asks, has no answers); or the hub's parquet of questions and
    images.
Schema: {id: {question, imageId, answer, isBalanced, types: {structural, semantic, detailed},
    semantic: [{operation, argument, ...}], ...}};
    LLaVA's: {question_id, image, text, category}. Images are `<imageId>.jpg`.
Predictions: LLaVA's answer jsonl, or the list of {questionId, prediction} made of it.
Prompt: question + "\nAnswer the question using a single word or phrase."; both profiles.
Decoding: greedy, 128 new tokens (lmms_eval: 16).
Parsing: llava15 (`convert_gqa_for_eval.py`): periods at the end deleted, lower case; right if equal
    to the answer. lmms_eval: stripped, lower case and without punctuation on both sides.
Metric (`eval.py --tier testdev_balanced`): `accuracy` over the balanced questions,
    `accuracy_binary` and `accuracy_open` (structural type `query` is open, all others are binary),
    and by structural and semantic type, by reasoning steps (`steps_<n>`: the operations of
    `semantic` without those that only query in the end) and by words of the question
    (`words_<n>`), in percent.
Missing answers: wrong (the official script refuses them).
Left out: validity, plausibility, consistency, grounding and distribution need further files of the
    release.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    list_columns,
    parquet_image,
    parse_json,
    read_json_file,
    read_objects,
    read_parquet,
    require_keys,
    to_id,
    to_list,
    to_name,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import (
    find_foreign_prompts,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer the question using a single word or phrase."
_NUM_QUESTIONS = 12578
_FILE = "testdev_balanced_questions.json"
_CONFIGURATIONS = ("testdev_balanced_instructions", "testdev_balanced_images")
"""The hub's, beside those of the unbalanced questions."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_OPTIONAL = ("isBalanced", "types", "semantic")
_QUERIES = ("exist", "query: name", "choose name")


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of the official file, LLaVA's question file, or the hub's parquet.

    Raises:
        UserError: none of these, or a key is missing.
    """
    if not path.is_dir() and path.suffix == ".jsonl":
        return [_from_llava(record, where) for where, record in read_objects(path)]
    if find_parquet(path, "testdev", _CONFIGURATIONS):
        return _load_parquet(path)
    file = path / _FILE if path.is_dir() else path
    content = read_json_file(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected GQA's {{id: {{question, imageId, answer, ...}}}}")
    return [_from_official(key, entry, f"{file}, {key}") for key, entry in content.items()]


def is_right_llava15(text: str, reference: str) -> bool:
    """LLaVA's conversion, then the official equality."""
    return text.rstrip(".").lower() == reference


def is_right_lmms_eval(text: str, reference: str) -> bool:
    """lmms-eval's exact match, case and punctuation ignored."""
    strip = _PUNCTUATION
    return text.strip().lower().translate(strip) == reference.lower().translate(strip)


RULES: Mapping[Profile, Callable[[str, str], bool]] = {
    "llava15": is_right_llava15,
    "lmms_eval": is_right_lmms_eval,
}


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy over the balanced questions. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions)
    is_right = RULES[profile]
    known = [q for q in questions if q.reference is not None and q.metadata["balanced"]]
    credits = {}
    for question in known:
        text = joined.text(id_key(question))
        right = text is not None and is_right(text, question.reference)
        credits[id_key(question)] = float(right)
    num_other = sum(not question.metadata["balanced"] for question in questions)
    foreign = find_foreign_prompts(questions, joined)
    notes = [
        ""
        if len(known) == _NUM_QUESTIONS or not known
        else f"{len(known):,} balanced questions; testdev has {_NUM_QUESTIONS:,}",
        f"{num_other:,} question(s) are not balanced and do not count" if num_other else "",
        "" if known else "no references in these annotations: no score",
        name_keys(foreign, "{} answer(s) whose prompt does not contain their question"),
        *joined.notes,
    ]
    metrics = _compute_metrics(known, credits) if known else {}
    groups = {"accuracy": ""}
    return joined.make_result("gqa", profile, metrics, credits, notes, scale=100, groups=groups)


def _compute_metrics(
    questions: Sequence[Question], credits: Mapping[str, float]
) -> dict[str, float]:
    metrics = {"accuracy": percent(credits.values())}
    structural = {id_key(q): q.category for q in questions if q.category}
    kinds = {key: "open" if kind == "query" else "binary" for key, kind in structural.items()}
    semantic = {id_key(q): q.metadata["semantic"] for q in questions if q.metadata["semantic"]}
    groupings = (("accuracy", kinds), ("structural", structural), ("semantic", semantic))
    for prefix, groups in groupings:
        grouped = sorted(group_credits(credits, groups).items())
        metrics |= {f"{prefix}_{group}": percent(values) for group, values in grouped}
    steps = {id_key(q): n for q in questions if (n := q.metadata["num_steps"]) is not None}
    words = {id_key(q): len(q.metadata["question"].split()) for q in questions}
    for prefix, sizes in (("steps", steps), ("words", words)):
        by_size = sorted(group_credits(credits, sizes).items())
        metrics |= {f"{prefix}_{size}": percent(values) for size, values in by_size}
    return metrics


def count_steps(operations: Sequence[Mapping[str, Any]] | None) -> int | None:
    """Reasoning steps as `eval.py` counts them; None where the file has no operations."""
    if operations is None:
        return None
    steps = [f"{step.get('operation')}: {step.get('argument')}" for step in operations]
    return sum(not any(query in step for query in _QUERIES) for step in steps)


def _read_operations(operations: Any, where: str) -> list[Any] | None:
    if operations is None:
        return None
    for operation in to_list(operations, f"{where}: semantic"):
        require_keys(operation, (), f"{where}: semantic")
    return list(operations)


def _make_question(question_id: str, entry: Mapping[str, Any], image: str, where: str) -> Question:
    types = entry.get("types") or {}
    require_keys(types, (), f"{where}: types")
    question = to_text(entry["question"], f"{where}: question")
    answer = entry.get("answer")
    return Question(
        question_id=question_id,
        text=question + SUFFIX,
        images=(image,),
        reference=None if answer is None else to_text(answer, f"{where}: answer"),
        category=to_name(types.get("structural"), f"{where}: types: structural"),
        metadata={
            "question": question,
            "semantic": to_name(types.get("semantic"), f"{where}: types: semantic"),
            "num_steps": count_steps(_read_operations(entry.get("semantic"), where)),
            "balanced": entry.get("isBalanced") is not False,
        },
    )


def _from_official(question_id: str, entry: Mapping[str, Any], where: str) -> Question:
    require_keys(entry, ("question", "imageId"), where)
    image = to_text(entry["imageId"], f"{where}: imageId")
    return _make_question(question_id, entry, f"{image}.jpg", where)


def _from_llava(record: Mapping[str, Any], where: str) -> Question:
    require_keys(record, ("question_id", "image", "text"), where)
    text = to_text(record["text"], f"{where}: text").removesuffix(SUFFIX)
    key = str(to_id(record["question_id"], f"{where}: question_id"))
    return _make_question(key, {"question": text}, record["image"], where)


def _load_parquet(path: Path) -> list[Question]:
    """Question files have a column `question`; the others hold the images, by `id`."""
    images: dict[str, str] = {}
    questions, rows = [], []
    for file in find_parquet(path, "testdev", _CONFIGURATIONS):
        if "question" in list_columns(file):
            listed = read_parquet(file, ("id", "question", "answer", "imageId"), _OPTIONAL)
            rows += [(f"{file}, row {n}", row) for n, row in enumerate(listed)]
        else:
            found = enumerate(read_parquet(file, ("id",)))
            images |= {row["id"]: parquet_image(file, n, "image") for n, row in found}
    for where, row in rows:
        for name in ("types", "semantic"):
            value = row.get(name)
            row[name] = (
                parse_json(value, f"{where}: {name}") if isinstance(value, str) and value else value
            )
        name = to_text(row["imageId"], f"{where}: imageId")
        image, key = images.get(name, f"{name}.jpg"), str(to_id(row["id"], f"{where}: id"))
        questions.append(_make_question(key, row, image, where))
    return questions


BENCHMARK = Benchmark(
    name="gqa",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 16},
)

r"""MME: yes-or-no questions in pairs on one image, 10 perception and 4 cognition categories.

Source: the release folder `MME_Benchmark_release_version` (on application to its authors), or
    the hub's parquet {question_id "category/file", question, answer, category, image}.
Schema: `<category>/[questions_answers_YN/]<name>.txt`, two lines "question\tYes|No"; images are
    beside them or in `<category>/images/`. 2,374 questions on 1,187 images.
Ids: LLaVA's "category/[images/]file" repeats within an image, so answers are joined by category,
    file name without suffix, and prompt. Seven questions have two spaces before "Please" and one
    lacks its "?": prompts are compared without suffixes, white space and final "?".
Prompt: the question without " Please answer yes or no." +
    "\nAnswer the question using a single word or phrase."; both profiles. lmms_eval keeps the
    space that is left in the seven questions with two of them.
Predictions: LLaVA's answer jsonl; or a folder of `<category>.txt` (file, question, reference,
    answer), which is scored with the annotations, or without any from its own references.
Decoding: greedy; 128 new tokens (lmms_eval: 16).
Parsing: llava15 (`calculation.py`): lower case; exactly yes or no, else "yes" within the first 4
    characters, else "no" within them ("not ", "none" and "know" are no), else neither. Nothing is
    stripped: a leading line break shifts the window. lmms_eval: stripped, "." deleted, a single
    "y" or "n" counts, then the same window.
Metric: per category 100 x (questions right / questions + images with both right / images), at
    most 200; `perception` (at most 2,000) and `cognition` (800) are sums over their categories.
Missing answers: wrong.
Deviations: the official script pairs adjacent lines of its result files; here the two questions
    of one image are paired by name, so the order of answers does not matter. A result folder
    without annotations is read as the official script does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.mme_files import (
    COGNITION,
    LINE,
    OFFICIAL_SUFFIX,
    PERCEPTION,
    SUFFIX,
    load_questions,
    own_questions,
    read_answers,
)
from prism_tune.evaluation.metrics import mean
from prism_tune.evaluation.predictions import Joined, join_predictions
from prism_tune.run.folder import write_atomic
from prism_tune.schema import BenchmarkResult, Prediction, Question

_NUM_QUESTIONS = 2374
_WINDOW = 4


def parse_answer_llava15(text: str) -> str:
    """The official rule: "yes", "no" or "other"."""
    lowered = text.lower()
    if lowered in ("yes", "no"):
        return lowered
    window = lowered[:_WINDOW]
    return "yes" if "yes" in window else "no" if "no" in window else "other"


def parse_answer_lmms_eval(text: str) -> str:
    """lmms-eval's rule: stripped, without ".", one letter is enough."""
    stripped = text.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(stripped) or parse_answer_llava15(stripped)


PARSERS: Mapping[Profile, Callable[[str], str]] = {
    "llava15": parse_answer_llava15,
    "lmms_eval": parse_answer_lmms_eval,
}


def fold_prompt(prompt: str) -> str:
    """A prompt without its instruction, white space and final "?": what questions are joined by."""
    for suffix in (SUFFIX, OFFICIAL_SUFFIX):
        prompt = prompt.replace(suffix.strip(), " ")
    return " ".join(prompt.split()).rstrip("?").rstrip()


def question_key(question: Question) -> str:
    """Category, file and folded prompt; of a result folder's own question its line."""
    if LINE in question.metadata:
        return f"{question.question_id}, line {question.metadata[LINE]}"
    return _make_key(str(question.question_id), question.text)


def prediction_key(prediction: Prediction) -> str:
    """Category, file and folded prompt."""
    return _make_key(str(prediction.question_id), prediction.prompt)


def _join(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Joined:
    """A result folder's answers belong to its own questions by their line."""
    if any(LINE in question.metadata for question in questions):
        key = lambda p: f"{p.question_id}, line {p.metadata[LINE]}"  # noqa: E731
        return join_predictions(questions, predictions, question_key, key)
    without = [str(p.question_id) for p in predictions if not p.prompt]
    if without:
        raise UserError(
            f"mme: {len(without)} answer(s) without a prompt, first {without[0]}: an image has two "
            "questions, which only their texts tell apart; expected LLaVA's `prompt`"
        )
    return join_predictions(questions, predictions, question_key, prediction_key)


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Category scores and their two sums. Raises UserError when nothing can be joined."""
    joined = _join(questions, predictions)
    parse = PARSERS[profile]
    credits = {}
    for question in questions:
        text = joined.text(question_key(question))
        right = text is not None and parse(text) == question.reference
        credits[question_key(question)] = float(right)
    scores = _score_categories(questions, credits)
    sums = {
        name: sum(scores[category] for category in members if category in scores)
        for name, members in (("perception", PERCEPTION), ("cognition", COGNITION))
        if scores.keys() & set(members)
    }
    notes = (*_describe_data(questions, scores), *joined.notes)
    return joined.make_result("mme", profile, {**sums, **scores}, credits, notes, scale=1)


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `mme/<category>.txt` (file, question, reference, answer; tab-separated).

    The layout MME's `calculation.py` reads: the two questions of an image on adjacent lines. Tabs
    and line breaks inside an answer become spaces; a missing answer is an empty field.
    """
    joined = _join(questions, predictions)
    lines: dict[str, list[str]] = defaultdict(list)
    for pair in _pair_questions(questions).values():
        for question in pair:
            lines[question.category].append(_format_line(question, joined))
    for category, listed in lines.items():
        write_atomic(folder / "mme" / f"{category}.txt", "".join(listed))
    return folder / "mme"


def _score_categories(
    questions: Sequence[Question], credits: Mapping[str, float]
) -> dict[str, float]:
    scores = {}
    for category in dict.fromkeys(question.category for question in questions):
        listed = [question for question in questions if question.category == category]
        accuracy = mean(credits[question_key(question)] for question in listed)
        accuracy_plus = mean(
            float(all(credits[question_key(question)] for question in pair))
            for pair in _pair_questions(listed).values()
        )
        scores[category] = accuracy * 100 + accuracy_plus * 100
    return scores


def _pair_questions(questions: Sequence[Question]) -> dict[str, list[Question]]:
    pairs: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        line = question.metadata.get(LINE)
        adjacent = None if line is None else f"{question.category}, pair {line // 2 + 1}"
        pairs[adjacent or _image_key(str(question.question_id))].append(question)
    return pairs


def _describe_data(questions: Sequence[Question], scores: Mapping[str, float]) -> list[str]:
    notes = []
    if len(questions) != _NUM_QUESTIONS:
        notes.append(f"{len(questions):,} questions; the whole benchmark has {_NUM_QUESTIONS:,}")
    absent = [category for category in (*PERCEPTION, *COGNITION) if category not in scores]
    if absent:
        notes.append(f"no questions of {', '.join(absent)}: the sums leave them out")
    odd = [name for name, pair in _pair_questions(questions).items() if len(pair) != 2]
    if odd:
        notes.append(f"{len(odd)} image(s) without exactly two questions, first {odd[0]}")
    return notes


def _image_key(question_id: str) -> str:
    category, _, rest = question_id.partition("/")
    return f"{category}/{Path(rest).name.split('.')[0]}"


def _make_key(question_id: str, prompt: str) -> str:
    return f"{_image_key(question_id)}: {fold_prompt(prompt)}"


def _format_line(question: Question, joined: Joined) -> str:
    answer = " ".join((joined.text(question_key(question)) or "").split())
    name = Path(str(question.question_id)).stem + ".txt"
    reference = str(question.reference).capitalize()
    return f"{name}\t{question.metadata['question']}\t{reference}\t{answer}\n"


BENCHMARK = Benchmark(
    name="mme",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 16},
    write_submission=write_submission,
    own_questions=own_questions,
    credit_key=question_key,
)

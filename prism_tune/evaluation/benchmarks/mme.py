r"""MME: yes-or-no questions in pairs on one image, 10 perception and 4 cognition categories.

Source: the release folder `MME_Benchmark_release_version` (on application to its authors), or
    the hub's parquet {question_id "category/file", question, answer, category, image}.
Schema: `<category>/[questions_answers_YN/]<name>.txt`, two lines "question\tYes|No"; images are
    beside them or in `<category>/images/`. 2,374 questions on 1,187 images.
Ids: LLaVA's "category/[images/]file" repeats within an image, so answers are joined by category,
    file name without suffix, and prompt. Seven questions have two spaces before "Please" and one
    lacks its "?": prompts are compared without suffixes, white space and final "?".
Prompt: the question without " Please answer yes or no." +
    "\nAnswer the question using a single word or phrase."; both profiles.
Decoding: greedy; 128 new tokens (lmms_eval: 16).
Parsing: llava15 (`calculation.py`): lower case; exactly yes or no, else "yes" within the first 4
    characters, else "no" within them ("not ", "none" and "know" are no), else neither. Nothing is
    stripped: a leading line break shifts the window. lmms_eval: stripped, "." deleted, a single
    "y" or "n" counts, then the same window.
Metric: per category 100 x (questions right / questions + images with both right / images), at
    most 200; `perception` (at most 2,000) and `cognition` (800) are sums over their categories.
Missing answers: wrong.
Deviations: the official script pairs adjacent lines of its result files; here the two questions
    of one image are paired by name, so the order of answers does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import find_parquet, parquet_image, read_parquet
from prism_tune.evaluation.benchmark import Benchmark, Profile
from prism_tune.evaluation.metrics import mean
from prism_tune.evaluation.predictions import Joined, join_predictions, read_predictions
from prism_tune.run.folder import write_atomic
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer the question using a single word or phrase."
OFFICIAL_SUFFIX = " Please answer yes or no."
PERCEPTION = (
    "existence", "count", "position", "color", "posters",
    "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
_NUM_QUESTIONS = 2374
_IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")
_WINDOW = 4


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions from the release folder (with or without `questions_answers_YN/`) or parquet.

    Raises:
        UserError: no category folder, or a line that is not a question, a tab, and Yes or No.
    """
    if not path.is_dir() and path.suffix != ".parquet":
        raise UserError(f"{path}: expected MME's release folder, with one folder per category")
    categories = [c for c in (*PERCEPTION, *COGNITION) if (path / c).is_dir()]
    if not categories:
        return _load_parquet(path)
    questions = [q for category in categories for q in _read_category(path / category)]
    if not questions:
        raise UserError(f"{path}: category folders, but no <category>/[questions_answers_YN/]*.txt")
    return questions


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
    """Category, file and folded prompt."""
    return _make_key(str(question.question_id), question.text)


def prediction_key(prediction: Prediction) -> str:
    """Category, file and folded prompt."""
    return _make_key(str(prediction.question_id), prediction.prompt)


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Category scores and their two sums. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions, question_key, prediction_key)
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
    joined = join_predictions(questions, predictions, question_key, prediction_key)
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
        pairs[_image_key(str(question.question_id))].append(question)
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


def _read_category(folder: Path) -> list[Question]:
    texts = folder / "questions_answers_YN"
    images = folder / "images" if texts.is_dir() else folder
    texts = texts if texts.is_dir() else folder
    questions = []
    for file in sorted(texts.rglob("*.txt")):
        image = f"{folder.name}/{_find_image(images, file.stem).relative_to(folder)}"
        for number, line in enumerate(_read_lines(file), 1):
            if line.strip():
                where = f"{file}, line {number}"
                question, answer = _split_line(line, where)
                questions.append(_make_question(image, question, answer, image, where))
    return questions


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: expected UTF-8 text: {error}") from error


def _find_image(folder: Path, stem: str) -> Path:
    """The image of a text file; its official name where the images were not copied along."""
    candidates = [folder / f"{stem}{suffix}" for suffix in _IMAGE_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])


def _split_line(line: str, where: str) -> tuple[str, str]:
    question, tab, answer = line.strip().partition("\t")
    if not tab:
        raise UserError(f"{where}: expected a question, a tab, and Yes or No; found {line!r}")
    return question, answer


def _make_question(
    question_id: str, question: str, answer: str, image: str, where: str
) -> Question:
    if answer.strip().lower() not in ("yes", "no"):
        raise UserError(f"{where}: expected Yes or No after the question, found {answer!r}")
    return Question(
        question_id=question_id,
        text=question.replace(OFFICIAL_SUFFIX, "").strip() + SUFFIX,
        images=(image,),
        reference=answer.strip().lower(),
        category=question_id.partition("/")[0],
        metadata={"question": question},
    )


def _load_parquet(path: Path) -> list[Question]:
    files = find_parquet(path)
    if not files:
        raise UserError(
            f"{path}: none of MME's category folders ({', '.join(PERCEPTION[:3])}, ...) and no "
            "parquet file; expected the release folder or the hub's files"
        )
    return [
        _make_question(
            row["question_id"],
            row["question"],
            row["answer"],
            parquet_image(file, index, "image"),
            f"{file}, row {index}",
        )
        for file in files
        for index, row in enumerate(read_parquet(file, ("question_id", "question", "answer")))
    ]


BENCHMARK = Benchmark(
    name="mme",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 16},
    write_submission=write_submission,
)

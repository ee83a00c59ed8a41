"""Records, pool files, images and questions damaged at random, through the code that reads them.

    python tests/support/fuzz.py [--images 10000] [--pools 2000] [--records 20000]
                                 [--questions 4000] [--seed 0]

Whatever comes out has to be a `UserError`, or a record or image that is sound; anything else is
printed, with the seed that makes it again. Exit code 1 where there was any.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import contextlib

import orjson
from support.hostile_images import draw_sound, mutate
from support.official_files import WRITERS, write_official

from prism_tune.config.sections import DataConfig, Profile
from prism_tune.data.examination import examine_image
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import open_image, read_size
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError, first_line
from prism_tune.evaluation.benchmark import open_questions
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.images import find_missing
from prism_tune.evaluation.predictions import write_predictions
from prism_tune.run.fingerprints import fingerprint

SECONDS = 20
VALUES = (
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    "",
    "x",
    "<image>",
    "\ud800",
    "\0",
    [],
    {},
    [[]],
    "../a.png",
)
RECORD = {
    "id": "r",
    "image": "0.png",
    "source": "s",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
    ],
}


class Hang(BaseException):
    """It took longer than `SECONDS`."""


def fuzz_images(folder: Path, number: int, seed: int) -> Iterator[str]:
    """What was no answer, for so many images."""
    sound = list(draw_sound())
    folders = ImageFolders(folder)
    for k in range(number):
        name, content = sound[k % len(sound)]
        (folder / name).write_bytes(mutate(content, random.Random(seed * 1_000_003 + k)))

        def read(name: str = name) -> None:
            examine_image(folders, name)
            for function in (open_image, read_size):
                with contextlib.suppress(ImageError):
                    function(folder / name)

        yield from _try(read, f"image {k} ({name})")


def fuzz_pools(folder: Path, number: int, seed: int) -> Iterator[str]:
    """The same for the bytes of pool files."""
    pools = {
        "json": json.dumps([RECORD] * 3).encode(),
        "jsonl": b"\n".join([json.dumps(RECORD).encode()] * 3),
    }
    pools["parquet"] = _as_parquet()
    for k in range(number):
        kind = list(pools)[k % len(pools)]
        path = folder / f"{k}.{kind}"
        path.write_bytes(mutate(pools[kind], random.Random(seed * 1_000_003 + k)))
        yield from _try(lambda path=path: _read_pool(path), f"pool {k} ({kind})")
        path.unlink(missing_ok=True)


def fuzz_records(folder: Path, number: int, seed: int) -> Iterator[str]:
    """The same for records that are JSON and mean nothing, a hundred a file."""
    for k in range(0, number, 100):
        randomness = random.Random(seed * 1_000_003 + k)
        records = [_distort(RECORD, randomness) for _ in range(min(100, number - k))]
        path = folder / f"{k}.json"
        path.write_text(json.dumps(records))
        yield from _try(lambda path=path: _read_pool(path), f"records {k}")
        path.unlink(missing_ok=True)


def fuzz_questions(folder: Path, number: int, seed: int) -> Iterator[str]:
    """The same for a value in a benchmark's own files, or in an answer file; to the score."""
    names = list(WRITERS)
    for k in range(number):
        randomness = random.Random(seed * 1_000_003 + k)
        name, place = names[k % len(names)], folder / str(k)
        (place / "data").mkdir(parents=True)
        annotations, answers = write_official(name, place / "data")
        write_predictions(place / "answers.jsonl", answers)
        _change_a_value(place / "answers.jsonl" if k % 4 == 0 else annotations, randomness)
        profile: Profile = "llava15" if k % 2 else "lmms_eval"
        yield from _try(
            lambda name=name, place=place, annotations=annotations, profile=profile: _score(
                name, annotations, place / "answers.jsonl", profile
            ),
            f"question {k} ({name})",
        )
        shutil.rmtree(place)


def _score(name: str, annotations: Path, answers: Path, profile: Profile) -> None:
    benchmark = BENCHMARKS[name]
    questions = open_questions(benchmark, annotations, profile)
    find_missing({image for q in questions for image in q.images}, ImageFolders(annotations.parent))
    fingerprint(questions)
    predictions = benchmark.read_predictions(answers)
    orjson.dumps(asdict(benchmark.score(questions, predictions, profile)))
    if benchmark.write_submission is not None:
        benchmark.write_submission(questions, predictions, answers.parent)


def _change_a_value(path: Path, randomness: random.Random) -> None:
    """Another value, or none, in the JSON of one file; in a text, in one cell of a line."""
    file = randomness.choice([path] if path.is_file() else sorted(path.rglob("*.[jtc]*")))
    lines = file.read_text().splitlines()
    with contextlib.suppress(ValueError):
        lines = [json.dumps(json.loads(file.read_text()))]
    number = randomness.randrange(len(lines))
    try:
        content = json.loads(lines[number])
    except ValueError:
        cells = lines[number].split("\t")
        cells[randomness.randrange(len(cells))] = randomness.choice(("", "-1", "x", "nan", '"'))
        lines[number] = "\t".join(cells)
    else:
        places = list(_places(content))
        holder, key = randomness.choice(places) if places else ([content], 0)
        holder[key] = randomness.choice(VALUES)
        lines[number] = json.dumps(content if places else holder[0])
    file.write_text("\n".join(lines))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every object or list with each of its keys, at any depth."""
    if isinstance(value, dict | list):
        for key, content in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(content)


def _distort(value: Any, randomness: random.Random) -> Any:
    if randomness.random() < 0.06:
        return randomness.choice(VALUES)
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if randomness.random() > 0.04}
        return {k: _distort(v, randomness) for k, v in kept.items()}
    if isinstance(value, list):
        return [_distort(item, randomness) for item in value]
    return value


def _read_pool(path: Path) -> None:
    pool = open_pool(DataConfig(records=str(path), num_workers=0))
    for index in range(len(pool)):
        pool[index]


def _as_parquet() -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([RECORD] * 3), buffer)
    return buffer.getvalue()


def _try(call: Any, name: str) -> Iterator[str]:
    def end(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        call()
    except UserError as error:
        if not str(error).strip():
            yield f"{name}: an error without a word"
    except Hang:
        yield f"{name}: hangs"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        yield f"{name}: {type(error).__name__}: {first_line(error)}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


KINDS = {
    "images": fuzz_images,
    "pools": fuzz_pools,
    "records": fuzz_records,
    "questions": fuzz_questions,
}
_NUMBERS = {"images": 10_000, "pools": 2_000, "records": 20_000, "questions": 4_000}


def fuzz(kind: str, number: int, seed: int) -> list[str]:
    """Everything that was no answer."""
    with tempfile.TemporaryDirectory() as folder:
        return list(KINDS[kind](Path(folder), number, seed))


def main() -> int:
    """Run all kinds; print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for kind, number in _NUMBERS.items():
        parser.add_argument(f"--{kind}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    num_found = 0
    for kind in KINDS:
        found = fuzz(kind, getattr(given, kind), given.seed)
        num_found += len(found)
        sys.stdout.write(f"{kind}: {getattr(given, kind)} tried, {len(found)} without an answer\n")
        kinds = Counter(line.partition(": ")[2] for line in found)
        for what, times in kinds.most_common(20):
            first = next(line for line in found if line.endswith(what))
            sys.stdout.write(f"  {times} times: {first}\n")
    return 1 if num_found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Records, pool files and images damaged at random, through the code that reads them.

    python tests/support/fuzz.py [--images 10000] [--pools 2000] [--records 20000] [--seed 0]

Whatever comes out has to be a `UserError`, or a record or image that is sound; anything else is
printed, with the seed that makes it again. Exit code 1 where there was any.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import contextlib

from support.hostile_images import draw_sound, mutate

from prism_tune.config.sections import DataConfig
from prism_tune.data.examination import examine_image
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import open_image, read_size
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError, first_line

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
POLICY = dict.fromkeys(("malformed", "duplicate"), "skip")


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


KINDS = {"images": fuzz_images, "pools": fuzz_pools, "records": fuzz_records}


def fuzz(kind: str, number: int, seed: int) -> list[str]:
    """Everything that was no answer."""
    with tempfile.TemporaryDirectory() as folder:
        return list(KINDS[kind](Path(folder), number, seed))


def main() -> int:
    """Run all kinds; print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for kind, number in {"images": 10_000, "pools": 2_000, "records": 20_000}.items():
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

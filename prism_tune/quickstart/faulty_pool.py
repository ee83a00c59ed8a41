"""A pool whose faults are known: half of the mix, and in it what real pools suffer from.

The mix goes in; LLaVA records, the fault of each faulty one, and the pictures that only this pool
has come out. Of the 30 pictures drawn for a kind, the records become:

- exact, recoded, cropped: three more times the same, of the same file, of a JPEG (quality 85, 60,
  35), of a crop (2, 3, 4 pixels cut off) under other names;
- over: distinct records of one source, of which there are too many;
- wrong: every answer another one of the source's, yes for no;
- blank: the picture is one grey;
- mismatched: the picture is one of another source.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from prism_tune.quickstart.mix import Mix, Records, build_records, list_images
from prism_tune.quickstart.planted import KINDS as COPIED
from prism_tune.quickstart.planted import NUM_COPIES, copy_image
from prism_tune.quickstart.planted import Kind as CopyKind
from prism_tune.quickstart.sources.example import SIDE, encode_png

Record = dict[str, Any]
Kind = Literal["wrong", "blank", "mismatched"]
SPOILT: tuple[Kind, ...] = ("wrong", "blank", "mismatched")

NUM_IMAGES = 30
"""Pictures whose records get a fault, for each kind."""
_FLIPPED = {"yes": "no", "no": "yes"}


@dataclass
class FaultyPool:
    """Records, {id: {kind, of}} of the faulty ones as `compare.planted` reads it, new pictures."""

    records: Records = field(default_factory=list)
    planted: dict[str, dict[str, str | None]] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)


def plant_faults(mix: Mix) -> FaultyPool:
    """Half of the pool's pictures with all their records, half of the text-only ones, and faults.

    The same at every call.
    """
    rng = random.Random("faults")
    records = build_records(mix.pool)
    content = dict(list_images(mix.pool))
    images = rng.sample(sorted(content), len(content))
    kept, unused = images[: len(images) // 2], images[len(images) // 2 :]
    texts = [record for record in records if "image" not in record]
    by_image: dict[str, Records] = {}
    for record in records:
        by_image.setdefault(record.get("image", ""), []).append(record)
    drawn = iter(kept)
    faults = {kind: [next(drawn) for _ in range(NUM_IMAGES)] for kind in (*COPIED, *SPOILT)}
    pool = FaultyPool(records=rng.sample(texts, len(texts) // 2))
    spoil = _Spoiler(rng, records, unused)
    for image in drawn:
        pool.records += by_image[image]
    for kind in COPIED:
        for image in faults[kind]:
            pool.records += by_image[image]
            _add_copies(pool, kind, by_image[image], content[image])
    for spoilt in SPOILT:
        for image in faults[spoilt]:
            for record in by_image[image]:
                pool.records.append(spoil.record(record, spoilt, pool.images))
                pool.planted[record["id"]] = {"kind": spoilt, "of": None}
    over = build_records(mix.spare)
    pool.records += over
    pool.planted |= {record["id"]: {"kind": "over", "of": None} for record in over}
    rng.shuffle(pool.records)
    return pool


def _add_copies(pool: FaultyPool, kind: CopyKind, originals: Records, content: bytes) -> None:
    for number in range(NUM_COPIES):
        stem = originals[0]["image"].removesuffix(".png")
        name = f"{stem}-{kind}-{number}.{'jpg' if kind == 'recoded' else 'png'}"
        pool.images[name] = copy_image(content, kind, number)
        for record in originals:
            copy = {**record, "id": f"{record['id']}-{kind}-{number}", "image": name}
            pool.records.append(copy)
            pool.planted[copy["id"]] = {"kind": kind, "of": record["id"]}


class _Spoiler:
    """Makes a record wrong, blank or mismatched."""

    def __init__(
        self, rng: random.Random, records: Sequence[Record], others: Sequence[str]
    ) -> None:
        self._rng = rng
        self._others = list(others)
        self._answers: dict[str, list[str]] = {}
        for source, answer in sorted({*_list_answers(records)}):
            self._answers.setdefault(source, []).append(answer)

    def record(self, record: Record, kind: Kind, images: dict[str, bytes]) -> Record:
        """The record with its fault; a picture that has to be made is added to `images`."""
        source = record["source"]
        if kind == "wrong":
            turns = [self._answer_wrongly(turn, source) for turn in record["conversations"]]
            return {**record, "conversations": turns}
        if kind == "mismatched":
            others = (n for n, o in enumerate(self._others) if not o.startswith(f"{source}/"))
            return {**record, "image": self._others.pop(next(others))}
        name = f"blank/{record['id']}.png"
        grey = self._rng.randint(120, 255)
        images[name] = encode_png(Image.new("RGB", (SIDE, SIDE), (grey, grey, grey)))
        return {**record, "image": name}

    def _answer_wrongly(self, turn: Mapping[str, str], source: str) -> dict[str, str]:
        right = turn["value"]
        if turn["from"] == "human":
            return dict(turn)
        others = [a for a in self._answers[source] if a != right and a not in _FLIPPED]
        return {**turn, "value": _FLIPPED.get(right) or self._rng.choice(others)}


def _list_answers(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    for record in records:
        for turn in record["conversations"][1::2]:
            yield record["source"], turn["value"]

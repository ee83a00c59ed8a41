"""The kills of one run, a line each: a run of an hour goes on where it stopped, and is summed."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KINDS = {
    "another result": "again: another result",
    "hangs": "hangs",
    "left running": "still running",
    "left lying about": ("left over", "temporary"),
    "else": "",
}
"""Columns of the table, and how the lines begin that are counted in them; else: all the others."""


@dataclass(frozen=True)
class Kill:
    """One kill, and what was not as it should be.

    Attributes:
        case: what was killed.
        number: of the case's kills, from 0.
        signal: that it got.
        share: of the seconds it takes undisturbed, after which it got it.
        whole_group: or the process alone.
        faults: a line each.
    """

    case: str
    number: int
    signal: str
    share: float
    whole_group: bool
    faults: list[str] = field(default_factory=list)


def plan_kills(cases: Sequence[str], num_kills: int, seed: int) -> list[Kill]:
    """So many, dealt out over the cases; each is drawn by its own name, whatever runs before."""
    dealt = Counter(cases[number % len(cases)] for number in range(num_kills))
    return [_draw(case, number, seed) for case in cases for number in range(dealt[case])]


def _draw(case: str, number: int, seed: int) -> Kill:
    rand = random.Random(f"{seed} {case} {number}")
    return Kill(case, number, rand.choice(SIGNALS).name, rand.random(), rand.random() < 0.5)


class Record:
    """What has been made already.

    Args:
        path: of a file of JSON lines; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        made = [Kill(**json.loads(line)) for line in lines]
        self._made: dict[tuple[str, int], Kill] = {(kill.case, kill.number): kill for kill in made}

    def find(self, planned: Kill) -> Kill | None:
        """The same kill where it has been made."""
        made = self._made.get((planned.case, planned.number))
        assert made is None or _drawn(made) == _drawn(planned), f"{self._path}: of another seed"
        return made

    def add(self, kill: Kill) -> None:
        """Keep it."""
        self._made[kill.case, kill.number] = kill
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(kill)) + "\n")


def _drawn(kill: Kill) -> tuple[str, float, bool]:
    return kill.signal, kill.share, kill.whole_group


def summarise(kills: Sequence[Kill]) -> str:
    """A table in Markdown: a row a case, and their sum."""
    cases: Mapping[str, list[Kill]] = {
        case: [kill for kill in kills if kill.case == case]
        for case in dict.fromkeys(kill.case for kill in kills)
    }
    head = ["killed at a random moment", "kills", *KINDS]
    rows = [head, ["---"] * len(head)]
    for case, made in [*cases.items(), ("all", list(kills))]:
        counts = Counter(_kind_of(line) for kill in made for line in kill.faults)
        rows.append([case, str(len(made)), *(str(counts[kind]) for kind in KINDS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _kind_of(line: str) -> str:
    return next(kind for kind, begins in KINDS.items() if line.startswith(begins))

"""What each stage took, in `runs/<name>/timings.json`, summed over resumed attempts.

One entry per attempt: {stage, fingerprint, evidence, device, num_devices, start, end, finished,
wall_seconds, device_seconds, counts}; counts are flops (an estimate from the model's architecture),
tokens, images and records or questions.
The entry is rewritten at every `tick`, so that an attempt that was killed still counts. Where the
stage has finished before, a new attempt stands under `<stage>.next` until it has finished too; then
it takes the place of the others, as what it made does. `evidence` is null, or the kind of evidence
that the stage read and is charged for, whichever attempt of whichever run has computed it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_entries, write_json
from prism_tune.run.log import open_log

_NUMBERS = ("wall_seconds", "device_seconds", "num_devices")
_NEXT = ".next"


class StageTimer:
    """Meters one attempt of one stage, from when it is made; a context manager.

    On the main process only. Nothing is written before it is entered.

    Args:
        run: the run whose `timings.json` is written.
        stage: "audit", "selection", "training" or "evaluation/<benchmark>".
        fingerprint: what the stage reads (see `run/fingerprints.py`).
        device: the device's name, for example "cpu" or "NVIDIA H100".
        num_devices: processes that work at the same time.
        restart: forget earlier attempts of the stage, because nothing of theirs is used.
    """

    def __init__(
        self,
        run: RunDir,
        stage: str,
        *,
        fingerprint: str,
        device: str,
        num_devices: int = 1,
        restart: bool = False,
    ) -> None:
        self._run = run
        self._stage = stage
        self._names = (stage, f"{stage}{_NEXT}")
        self._restart = restart
        self._left_out = 0.0
        self._charged: list[dict[str, Any]] = []
        self._begin = time.perf_counter()
        self._entry: dict[str, Any] = {
            "stage": stage,
            "fingerprint": fingerprint,
            "evidence": None,
            "device": device,
            "num_devices": num_devices,
            "start": _now(),
            "end": None,
            "finished": False,
            "wall_seconds": 0.0,
            "device_seconds": 0.0,
            "counts": {},
        }

    def __enter__(self) -> StageTimer:
        open_log(self._run.log)
        own = self._entry["fingerprint"]
        finished = [entry["fingerprint"] for entry in self._of_stage() if entry["finished"]]
        is_other = self._restart or any(other != own for other in finished)
        if finished and (is_other or self._is_begun()):
            self._entry["stage"] += _NEXT
        self._before = self._earlier()
        self._save()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entry["finished"] = kind is None
        if kind is None and self._entry["stage"] != self._stage:
            own = [entry for entry in self._before if entry["stage"] == self._entry["stage"]]
            self._before = _put_in_place(self._before, self._stage, own)
            self._entry["stage"] = self._stage
        self._save()

    def tick(self, **counts: float) -> None:
        """Save the time so far, adding `counts` (images, tokens, flops, records) to the entry."""
        totals = self._entry["counts"]
        for name, value in counts.items():
            totals[name] = totals.get(name, 0) + value
        self._save()

    def leave_out(self, device_seconds: float) -> None:
        """Seconds of the attempt that are not its own; saves the time so far."""
        self._left_out += device_seconds
        self._save()

    def charge(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Charge the stage for evidence: entries of it beside this attempt's own.

        Each has `evidence`, `device`, `num_devices`, `wall_seconds`, `device_seconds`, `counts`.
        """
        self._charged = [dict(entry) for entry in entries]
        self._save()

    def _of_stage(self) -> list[dict[str, Any]]:
        return [entry for entry in read_timings(self._run) if entry["stage"] == self._stage]

    def _is_begun(self) -> bool:
        """Whether a restart on the same inputs has been killed, which this attempt goes on with."""
        following, own = self._names[1], self._entry["fingerprint"]
        return any(
            entry["stage"] == following and entry["fingerprint"] == own
            for entry in read_timings(self._run)
        )

    def _earlier(self) -> list[dict[str, Any]]:
        """What `timings.json` keeps beside this attempt: what is charged is charged anew."""
        here = self._entry["stage"]
        others = [entry for entry in read_timings(self._run) if entry["stage"] not in self._names]
        replaced = self._of_stage() if here != self._stage else []
        gone_on_with = [
            entry
            for entry in read_timings(self._run)
            if entry["stage"] == here
            and entry["fingerprint"] == self._entry["fingerprint"]
            and entry["evidence"] is None
            and not self._restart
        ]
        return [*others, *replaced, *gone_on_with]

    def _save(self) -> None:
        num_devices = self._entry["num_devices"]
        wall = time.perf_counter() - self._begin - self._left_out / num_devices
        self._entry.update(
            end=_now(),
            wall_seconds=round(wall, 3),
            device_seconds=round(wall * num_devices, 3),
        )
        charged = [{**self._entry, **entry} for entry in self._charged]
        write_json(self._run.timings, [*self._before, *charged, self._entry])


def read_timings(run: RunDir) -> list[dict[str, Any]]:
    """Every attempt of every stage of the run; empty before the first."""
    if not run.timings.exists():
        return []
    lost = "delete it: only what the stages took is lost"
    try:
        entries = read_entries(run.timings, "stage", "fingerprint", "finished", "counts")
    except UserError as error:
        raise UserError(f"{error}; {lost}") from error
    for entry in entries:
        if fault := _find_fault(entry):
            raise UserError(f"{run.timings}: not as it was written: {fault}; {lost}")
    return entries


def forget_finished(run: RunDir, stage: str, fingerprint: str) -> None:
    """Drop the attempts of a stage that has finished with these inputs: what it made is gone."""
    entries = read_timings(run)
    own = [e for e in entries if (e["stage"], e["fingerprint"]) == (stage, fingerprint)]
    if any(entry["finished"] for entry in own):
        write_json(run.timings, [entry for entry in entries if entry not in own])


def close_finished(run: RunDir, stage: str, fingerprint: str, *, beside: bool) -> None:
    """Close the attempts of a stage that has finished, where a kill came before its timer's end.

    To be called where the stage's record says that it has; where all is well nothing is written.

    Args:
        run: the run.
        stage: as `StageTimer`.
        fingerprint: what it has finished with.
        beside: it lies beside an earlier one yet, whose place it is about to take.
    """
    entries = read_timings(run)
    name = f"{stage}{_NEXT}" if beside else stage
    own = [e for e in entries if (e["stage"], e["fingerprint"]) == (name, fingerprint)]
    if not own or (own[-1]["finished"] and not beside):
        return
    own[-1]["finished"] = True
    if beside:
        entries = _put_in_place(entries, stage, own)
    write_json(run.timings, entries)


def _put_in_place(
    entries: Sequence[Mapping[str, Any]], stage: str, own: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The entries with `own` as those of the stage, in place of all others of it."""
    replaced = (stage, f"{stage}{_NEXT}")
    others = [dict(entry) for entry in entries if entry["stage"] not in replaced]
    return [*others, *({**entry, "stage": stage} for entry in own)]


def _find_fault(entry: Mapping[str, Any]) -> str:
    """A value that is not of the kind that a stage writes; empty where all are."""
    if not isinstance(entry["counts"], dict):
        return f"`counts` = {entry['counts']!r}"
    numbers = {key: entry.get(key) for key in _NUMBERS} | entry["counts"]
    for key, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"`{key}` = {value!r}"
    if entry.get("num_devices", 1) is None:
        return "`num_devices` = None"
    words = ("stage", "fingerprint")
    return next((f"`{key}` = {entry[key]!r}" for key in words if type(entry[key]) is not str), "")


def latest_attempts(run: RunDir, stage: str) -> list[dict[str, Any]]:
    """Those of the stage that is under way, else of the one that has finished."""
    entries = read_timings(run)
    following = [entry for entry in entries if entry["stage"] == f"{stage}{_NEXT}"]
    return following or [entry for entry in entries if entry["stage"] == stage]


def sum_attempts(entries: Sequence[Mapping[str, Any]], quantity: str) -> float | None:
    """Sum of a quantity or a count (`flops`, `tokens`, ...) over attempts.

    None where there is none, or an attempt's quantity is not known; an attempt that was killed
    before its first count has gone through nothing.
    """
    if any(quantity in entry["counts"] for entry in entries):
        return float(sum(entry["counts"].get(quantity, 0) for entry in entries))
    values = [entry.get(quantity) for entry in entries]
    known = [float(value) for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""Every verb, killed at random: the same command again ends in what an undisturbed one leaves.

    python tests/support/torture.py [--kills 162] [--seed 0] [--cases select,train]
                                    [--record kills.jsonl [--seconds 600]]

A verb is forked from this process, which has the libraries loaded (the script is started). It gets
SIGKILL, SIGTERM or SIGINT at a random moment, alone or with all it has started. Then: nothing of it
is left running after `GONE_SECONDS`; a request to end has the exit code 143 or 130, no
traceback, and leaves no temporary file; the same command ends with 0; what it leaves is, byte for
byte, what it leaves undisturbed; no partial file lies about. Whatever is not so is printed, and the
kills are summed; exit code 1 where there was any. With `--record` each kill is kept: the same
command goes on with those that are due, and leaves with exit code 3 once `--seconds` are over.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import contextlib
from dataclasses import replace

import support.environment  # noqa: F401 - variables, before they are read
from support.torture_cases import CASES, Case, command_of, content_of, furnish
from support.torture_record import Kill, Record, plan_kills, summarise

import prism_tune.evaluation.evaluate
import prism_tune.models.export
import prism_tune.report.build
import prism_tune.selection.select
import prism_tune.training.train  # noqa: F401 - loaded once, for all
from prism_tune.cli.app import main as command_line
from prism_tune.interrupts import remove_temporary_folders

GONE_SECONDS = 60
HANG_SECONDS = 400
_PR_SET_CHILD_SUBREAPER = 36
_TORN = 70
"""Of a command line that was left in another way than by an exit."""
_LEFT = re.compile(r"\.partial|\.writer\.json|^\.report-|^\.[^.]+\.\w{8}$|\.next$|\.replaced$")
_NEW = re.compile(r"there already; (name a new|remove it)|already there; name a new")
"""Said where the kill came after the last step, of verbs that make what is not there yet."""


class Torture:
    """A workplace, and a copy of it before each verb.

    Args:
        folder: new.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder / "place"
        self.place.mkdir(parents=True)
        self._before: dict[tuple[str, ...], Path] = {}
        furnish(self.place)
        self.temporary = folder / "tmp"
        os.environ |= {
            "PRISM_TUNE_CACHE": str(self.place / "cache"),
            "PRISM_TUNE_VENV": str(self.place / "venv"),
            "TMPDIR": str(self.temporary),
        }
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._keep(())

    def measure(self, name: str) -> tuple[float, str]:
        """Seconds that a verb takes undisturbed, and what it leaves."""
        case = CASES[name]
        self.reset(case.after)
        begin = time.monotonic()
        code, printed = self.wait(self.start(case))
        assert code == 0, f"{name}: {code}\n{printed[-3000:]}"
        return time.monotonic() - begin, self.digest(case)

    def kill_once(self, planned: Kill, seconds: float, expected: str) -> Kill:
        """The same with everything that was not as it should be."""
        case = CASES[planned.case]
        self.reset(case.after)
        signum = signal.Signals[planned.signal]
        pid = self.start(case)
        time.sleep(planned.share * seconds)
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if planned.whole_group else os.kill)(pid, signum)
        code, printed = self.wait(pid)
        found = self._judge(signum, code, printed, is_started=case.program != "prism-tune")
        left = self._wait_for_rest()
        found += [f"still running: {line}" for line in left]
        is_done = "thumbnail: " in printed and "ends here" not in printed  # of preview, to look at
        if signum != signal.SIGKILL and not is_done:
            found += [f"temporary: {path.name}" for path in self.temporary.iterdir()]
        code, printed = self.wait(self.start(case))
        if code != 0 and not _NEW.search(printed):
            found.append(f"again: exit code {code}: {printed[-600:]}")
        elif self.digest(case) != expected:
            found.append("again: another result")
        found += [f"left over: {path}" for path in self._leftovers()]
        return replace(planned, faults=found)

    def reset(self, after: tuple[str, ...]) -> None:
        """The workplace as it is when these verbs have run."""
        if after not in self._before:
            self.reset(after[:-1])
            code, printed = self.wait(self.start(CASES[after[-1]]))
            assert code == 0, printed[-3000:]
            self._keep(after)
        shutil.rmtree(self.place)
        shutil.copytree(self._before[after], self.place, symlinks=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()

    def start(self, case: Case) -> int:
        """Fork the command line, in a session of its own."""
        output = self.place.with_name("printed.txt")
        output.write_text("")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            return pid
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(self.place)
        tempfile.tempdir = str(self.temporary)  # this process has found another one already
        typed = output.with_name("typed.txt")
        typed.write_text(case.typed)
        os.dup2(os.open(typed, os.O_RDONLY), 0)
        if program := command_of(case, self.place):
            os.execvp(program[0], program)
        sys.argv = ["prism-tune", *case.arguments.split()]
        code = _TORN
        try:
            command_line()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:  # not as Python ends, for nothing of the parent's may be cleaned up here
            remove_temporary_folders()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, pid: int) -> tuple[int, str]:
        """Exit code (-9: killed) and what was printed."""
        deadline = time.monotonic() + HANG_SECONDS
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                return 999, "hangs: " + self.place.with_name("printed.txt").read_text()[-2000:]
            time.sleep(0.02)
        printed = self.place.with_name("printed.txt").read_text(errors="replace")
        return os.waitstatus_to_exitcode(ended[1]), printed

    def digest(self, case: Case) -> str:
        """Of what the command leaves: tensors, texts, and JSON without times."""
        hashed = hashlib.sha256()
        for pattern in case.leaves:
            paths = sorted(path for path in self.place.glob(pattern) if path.is_file())
            assert paths, pattern
            for path in paths:
                hashed.update(f"{path.relative_to(self.place)} {content_of(path)}".encode())
        return hashed.hexdigest()

    def _judge(self, signum: int, code: int, printed: str, *, is_started: bool) -> list[str]:
        if code == 999:
            return [printed]
        asked = {signal.SIGTERM: 143, signal.SIGINT: 130}
        allowed = {0, asked.get(signal.Signals(signum), -signum)}
        # Before the command line has begun, a signal is Python's own affair; or a launcher's.
        is_early = "ends here" not in printed and (is_started or len(printed) < 200)
        allowed |= {-signum} if is_early else set()
        found = [] if code in allowed else [f"exit code {code}: {printed[-600:]}"]
        if signum != signal.SIGKILL and "Traceback" in printed and code not in (-signum, 1):
            found.append(f"a traceback: {printed[-1200:]}")
        return found

    def _wait_for_rest(self) -> list[str]:
        """What still runs of it in the end; all of it becomes this process's own children."""
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return []
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        left = list(_children(os.getpid()))
        lines = [f"{pid} {_command(pid)}" for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return lines

    def _leftovers(self) -> list[str]:
        paths = (path.relative_to(self.place) for path in self.place.rglob("*"))
        return [str(path) for path in paths if path.parts[0] != "venv" and _LEFT.search(path.name)]

    def _keep(self, after: tuple[str, ...]) -> None:
        self._before[after] = self.place.with_name("-".join(("before", *after)))
        shutil.copytree(self.place, self._before[after], symlinks=True)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-200:]
    except OSError:
        return "gone"


def torture(planned: list[Kill], record: Record, deadline: float) -> list[Kill]:
    """Make those that are due, case by case; prints what was not as it should be.

    Returns:
        All that have been made: fewer than planned where the deadline came first.
    """
    made: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        workplace = Torture(Path(folder) / "torture")
        for name in dict.fromkeys(kill.case for kill in planned):
            own = [kill for kill in planned if kill.case == name]
            found = {kill.number: record.find(kill) for kill in own}
            made += [kill for kill in found.values() if kill is not None]
            due = [kill for kill in own if found[kill.number] is None]
            if not due or time.monotonic() > deadline:
                continue
            seconds, expected = workplace.measure(name)
            for kill in due:
                if time.monotonic() > deadline:
                    break
                made.append(workplace.kill_once(kill, seconds, expected))
                record.add(made[-1])
                _tell(made[-1], seconds)
    return made


def _tell(kill: Kill, seconds: float) -> None:
    group = " (group)" if kill.whole_group else ""
    what = f"{kill.case} {kill.signal} at {kill.share * seconds:.2f} of {seconds:.2f} s{group}"
    sys.stdout.write("".join(f"{what}: {line}\n" for line in kill.faults or ["as it should be"]))
    sys.stdout.flush()


def main() -> int:
    """Read the arguments; print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=162)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    planned = plan_kills(given.cases.split(","), given.kills, given.seed)
    made = torture(planned, Record(given.record), time.monotonic() + given.seconds)
    num_faults = sum(len(kill.faults) for kill in made)
    sys.stdout.write(f"{summarise(made)}{len(made)} of {len(planned)} kills, {num_faults} faults\n")
    if len(made) < len(planned):
        return 3
    return 1 if num_faults else 0


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "disabled"
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())

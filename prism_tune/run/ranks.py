"""Processes that were started together: where they meet, and whether they do the same.

Who does not come is named within minutes; the group that they open can be closed for a library
that opens one of its own. What each was given and has read goes in, and nothing comes out, or an
error on every rank that says what differs: one with another seed would end without a word, one with
more steps would hang.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

import orjson

from prism_tune.config.depends import list_fields
from prism_tune.config.secrets import redact
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, SharedError, UserError, list_some
from prism_tune.processes import PATIENCE, gather, is_main, rank, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.provenance import describe_software

_LONGEST_SHOWN = 60
_NUM_SHOWN = 5
_MOST_ABSENT = 8
_NUMBERS = itertools.count()

MEETING_SECONDS = 300.0
"""How long a process waits for the others to come, before they do anything together."""


@lru_cache(maxsize=1)
def meet() -> Any:
    """Wait until every launched process has come; to be called before a group is opened.

    Returns:
        The store that they meet in, which outlives every group.

    Raises:
        ConfigError: the environment does not say where.
        UserError: some have not come within `MEETING_SECONDS`; it names them.
    """
    from torch.distributed import DistError, PrefixStore, TCPStore

    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if not address or not port.isdecimal():
        raise ConfigError(
            f"WORLD_SIZE = {world_size()} in the environment, and no MASTER_ADDR and MASTER_PORT "
            "beside it: several processes are started by torchrun; `unset WORLD_SIZE` runs one"
        )
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        server = TCPStore(
            address,
            int(port),
            is_master=is_main() and not has_agent,
            timeout=timedelta(seconds=MEETING_SECONDS),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except DistError as error:
        raise UserError(_missing([0])) from error
    store = PrefixStore(f"meeting{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", server)
    store.set(str(rank()), "here")
    everybody = [str(other) for other in range(world_size())]
    try:
        store.wait(everybody, timedelta(seconds=MEETING_SECONDS))
    except DistError as error:
        absent = [int(other) for other in everybody if not store.check([other])]
        kind = UserError if 0 in absent else SharedError
        raise kind(_missing(absent)) from error
    return store


def _missing(absent: list[int]) -> str:
    named = ", ".join(map(str, absent[:_MOST_ABSENT])) + (" ..." if absent[_MOST_ABSENT:] else "")
    return (
        f"rank {named} of {world_size()} did not come within {MEETING_SECONDS:g} seconds: it has "
        "ended before (what it printed says why), was not started, or cannot reach "
        f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    )


@contextmanager
def process_group() -> Iterator[None]:
    """Join the launched processes for as long as they work together."""
    import torch.distributed

    if world_size() == 1 or torch.distributed.is_initialized():
        yield
        return
    open_group("gloo", PATIENCE)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():  # not where an error came out of `outside_group`
            torch.distributed.destroy_process_group()


@contextmanager
def outside_group() -> Iterator[None]:
    """Leave the processes' group for what opens one of its own, and join them again behind it."""
    import torch.distributed

    if not torch.distributed.is_initialized():
        yield
        return
    torch.distributed.destroy_process_group()
    yield
    open_group("gloo", PATIENCE)


def open_group(backend: str, timeout: timedelta) -> None:
    """Open the processes' group, the first or another after it was closed.

    Each finds its members under keys of its own: those of a group before would lead to sockets that
    are closed, for a launcher's store outlives the groups.

    Args:
        backend: "gloo" or "nccl".
        timeout: how long one waits for the others.

    Raises:
        UserError: as `meet`.
    """
    import torch.distributed

    store = torch.distributed.PrefixStore(f"group {next(_NUMBERS)}", meet())
    store.set_timeout(timeout)
    torch.distributed.init_process_group(
        backend, store=store, rank=rank(), world_size=world_size(), timeout=timeout
    )


def require_same_run(config: Config) -> None:
    """Compare the config and the code of every rank; within a process group.

    Raises:
        SharedError: naming the fields, the versions and the ranks that differ from rank 0.
    """
    if world_size() == 1:
        return
    software = describe_software()
    versions = {name: f"{name} {number}" for name, number in software["packages"].items()}
    commits = gather(software["git_commit"])
    known = {"git commit": software["git_commit"]} if all(commits) else {}
    code = {"prism_tune": software["prism_tune"], **versions, **known}
    require_same({**list_fields(config), **code})


def require_same(values: Mapping[str, Any]) -> None:
    """Compare named values (settings, fingerprints of what was read) of every rank.

    Raises:
        SharedError: as `require_same_run`.
    """
    if world_size() == 1:
        return
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS
    written = {k: orjson.dumps(redact(v), option=options).decode() for k, v in values.items()}
    shown = {k: v if len(v) <= _LONGEST_SHOWN else fingerprint(v) for k, v in written.items()}
    first, *others = gather(shown)
    lines = []
    for number, other in enumerate(others, start=1):
        names = sorted(n for n in first.keys() | other.keys() if first.get(n) != other.get(n))
        told = [f"{n} is {other.get(n, 'not set')} for {first.get(n, 'not set')}" for n in names]
        if told:
            lines.append(f"  rank {number}: {list_some(told, _NUM_SHOWN)}")
    if lines:
        raise SharedError(
            "the processes do not do the same; against rank 0\n"
            + "\n".join(lines[:_NUM_SHOWN])
            + "\nstart every rank with the same command, of the same code, on the same files: "
            "output_dir lies on storage that all nodes share"
        )

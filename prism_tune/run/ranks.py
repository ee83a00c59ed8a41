"""Processes that were started together: do they do the same?

In: what each was given and has read. Out: nothing, or an error on every rank that says what
differs. A rank with another seed would end without a word, one with more steps would hang.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from prism_tune.config.depends import list_fields
from prism_tune.config.secrets import redact
from prism_tune.config.sections import Config
from prism_tune.errors import SharedError, list_some
from prism_tune.processes import gather, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.provenance import describe_software

_LONGEST_SHOWN = 60
_NUM_SHOWN = 5


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
    for rank, other in enumerate(others, start=1):
        names = sorted(n for n in first.keys() | other.keys() if first.get(n) != other.get(n))
        told = [f"{n} is {other.get(n, 'not set')} for {first.get(n, 'not set')}" for n in names]
        if told:
            lines.append(f"  rank {rank}: {list_some(told, _NUM_SHOWN)}")
    if lines:
        raise SharedError(
            "the processes do not do the same; against rank 0\n"
            + "\n".join(lines[:_NUM_SHOWN])
            + "\nstart every rank with the same command, of the same code, on the same files: "
            "output_dir lies on storage that all nodes share"
        )

"""Evidence on disk, by content: one store is one matrix with a row per unit.

```
<output_dir>/evidence/<kind>/<fingerprint>/
  manifest.json                what the fingerprint stands for, and how prompts are made
  shard-<hash>.safetensors     rows: float32 (rows, D); metadata: keys, failed, counts, seconds, ...
  lock                         held by the one run that computes
```
The fingerprint is of everything that a row depends on besides its unit, so all runs below one
`output_dir` share a store and none has to be refused. A shard is written atomically when it is
finished, and named after its keys: a killed run resumes at the last finished shard, and a pool that
grew finds every row it has. `features/shards.py` reads them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from prism_tune.errors import UserError
from prism_tune.features.shards import Shard, digest_rows, list_shards, read_shard
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import locked, read_json, write_json
from prism_tune.run.partial import is_left_over

logger = logging.getLogger(__name__)

_WAITS = "%s: another run computes them; waiting for it"

UNITS_PER_SHARD = 512
"""What a kill can lose, and what one process takes at a time."""


class EvidenceStore:
    """One store.

    Args:
        output_dir: whose runs share it.
        kind: what a row is, for example "features".
        depends: everything a row depends on besides its unit, by name.
    """

    def __init__(self, output_dir: str, kind: str, depends: Mapping[str, Any]) -> None:
        self.kind = kind
        self.depends = dict(depends)
        self.fingerprint = fingerprint(self.depends)
        self.folder = Path(output_dir) / "evidence" / kind / self.fingerprint[:32]

    @property
    def manifest(self) -> Path:
        """What the store's rows depend on, for people; and what was found out once for all."""
        return self.folder / "manifest.json"

    def begin(self, **about: Any) -> None:
        """Write the manifest."""
        write_json(self.manifest, {"kind": self.kind, "depends_on": self.depends, **about})

    def about(self, key: str) -> Any:
        """What `begin` was told; None before, and where the manifest was damaged."""
        if not self.manifest.exists():
            return None
        try:
            manifest = read_json(self.manifest)
        except UserError as error:
            self._give_up(self.manifest, str(error))
            return None
        if isinstance(manifest, dict):
            return manifest.get(key)
        self._give_up(self.manifest, "not an object")
        return None

    def shards(self) -> list[Shard]:
        """The finished shards, by name; what is none is deleted, for all of it can be made anew."""
        found = []
        for path in list_shards(self.folder):
            try:
                found.append(read_shard(path))
            except FileNotFoundError:  # another run has begun to compute it anew
                continue
            except UserError as error:
                self._give_up(path, str(error))
        return found

    def _give_up(self, path: Path, why: str) -> None:
        logger.warning("%s: damaged, so it is deleted and made anew (%s)", path, why)
        path.unlink(missing_ok=True)

    def find(self, keys: Sequence[str]) -> list[tuple[Shard, float]]:
        """The shards with rows of these units, and which share of a shard's rows these are."""
        wanted = set(keys)
        found = [(shard, len(wanted.intersection(shard.keys))) for shard in self.shards()]
        return [(shard, number / len(shard.keys)) for shard, number in found if number]

    def missing(self, keys: Sequence[str]) -> set[str]:
        """Those of the units that have no row."""
        return set(keys).difference(*(shard.keys for shard in self.shards()))

    def forget(self, keys: Sequence[str]) -> None:
        """Delete every shard with a row of these units, so that they are computed anew."""
        for shard, _ in self.find(keys):
            shard.path.unlink(missing_ok=True)

    def take(self, keys: Sequence[str], folder: Path) -> list[tuple[Shard, float]] | None:
        """As `find`, but of links in `folder`, which then holds these shards and no others.

        What is linked stays readable, whatever becomes of the store.

        Returns:
            None where a row is missing: somebody has deleted shards meanwhile, or their rows are
            not those that were written; then they are deleted here.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        taken = []
        for shard, share in self.find(keys):
            try:
                _link(shard.path, folder / shard.path.name)
            except FileNotFoundError:
                return None
            taken.append((replace(shard, path=folder / shard.path.name), share))
        with ThreadPoolExecutor() as threads:
            sound = list(threads.map(lambda item: item[0].is_sound(), taken))
        for (shard, _), is_sound in zip(taken, sound, strict=True):
            if not is_sound:
                self._give_up(self.folder / shard.path.name, "its rows have another digest")
        if not all(sound):
            return None
        is_whole = set(keys).issubset(key for shard, _ in taken for key in shard.keys)
        return taken if is_whole else None

    def write_shard(
        self, keys: Sequence[str], rows_UD: NDArray[np.float32], described: Mapping[str, Any]
    ) -> None:
        """Write a finished shard atomically; `described` is the rest of a `Shard`."""
        content = {"keys": list(keys), "digest": digest_rows(rows_UD), **described}
        metadata = {"content": json.dumps(content)}
        path = self.folder / f"shard-{fingerprint(list(keys))[:16]}.safetensors"
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as scratch:
            unfinished = Path(scratch) / path.name
            save_file({"rows": rows_UD}, unfinished, metadata=metadata)
            os.replace(unfinished, path)

    def remove_partial(self) -> None:
        """Delete what a killed process left half written; call it on a locked store."""
        for path in self.folder.glob(".partial-*"):
            with suppress(OSError):  # finished meanwhile by a run that no lock shows, or not ours
                if is_left_over(path):
                    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lock_stores(stores: Sequence[EvidenceStore]) -> Iterator[float]:
    """Keep other runs from computing the same; gives the seconds that this took.

    A killed process leaves no lock behind.
    """
    began = time.perf_counter()
    with ExitStack() as held:
        for store in sorted(stores, key=lambda store: store.folder):
            say = partial(logger.info, _WAITS, store.kind)
            held.enter_context(locked(store.folder / "lock", say))
        yield time.perf_counter() - began


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where there are none."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            copied = shutil.copyfile(source, Path(scratch) / target.name)
            os.replace(copied, target)

"""Features on disk: one safetensors file per finished shard, and what they were computed with.

```
features/manifest.json        inputs (model, pooling, dtype, ...), layers, prompt kind
features/shard-<hash>.safetensors   layer_<k>: float32 (rows, D); metadata: keys, failed, counts
```
A shard is written atomically when it is finished, and named after the keys of its rows. So a
killed run resumes at the last finished shard, and a pool that grew finds every row it has.
`features/shards.py` reads them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from prism_tune.errors import UserError
from prism_tune.features.shards import Shard, list_shards, read_shard
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import read_json, write_json
from prism_tune.selection.evidence.prompts import PromptKind

logger = logging.getLogger(__name__)

UNITS_PER_SHARD = 512
"""What a kill can lose, and what one process takes at a time."""


class FeatureStore:
    """The store in one folder.

    Args:
        folder: `runs/<name>/selection/features`.
        inputs: everything a feature depends on, by the name shown when it differs.
        layers: the hidden states wanted; a store that has more will do.
        about: what a reader of the manifest wants to know besides; never compared.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        layers: Sequence[int],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.inputs = dict(inputs)
        self.layers = tuple(layers)
        self.about = dict(about or {})

    @property
    def manifest(self) -> Path:
        """What the features were computed with."""
        return self.folder / "manifest.json"

    @cached_property
    def fingerprint(self) -> str:
        """Stands for the inputs, and is written into every shard."""
        return fingerprint(self.inputs)

    def differences(self) -> list[str]:
        """What differs from the store on disk; empty when it fits, or when there is none."""
        if not self.manifest.exists():
            return []
        stored = read_json(self.manifest)
        before = stored["inputs"]
        differing = sorted(
            key
            for key in before.keys() | self.inputs.keys()
            if before.get(key) != self.inputs.get(key)
        )
        found = [_describe(key, before.get(key), self.inputs.get(key)) for key in differing]
        if not set(self.layers) <= set(stored["layers"]):
            found.append(_describe("selection.layer", stored["layers"], list(self.layers)))
        return found

    def refuse_other(self) -> None:
        """Refuse to go on where there are features that were computed with other settings.

        Raises:
            UserError: naming what differs.
        """
        differences = self.differences()
        if differences and list_shards(self.folder):
            raise UserError(
                f"{self.folder}: what is stored there was computed with other settings: "
                f"{', '.join(differences)}. Features are never mixed: choose another `name` for "
                "this run, or rerun with --force to compute all anew"
            )

    def read_prompt_kind(self) -> PromptKind | None:
        """How the store's prompts were made; None before the first run."""
        if not self.manifest.exists():
            return None
        kind: PromptKind = read_json(self.manifest)["prompt"]
        return kind

    def open(self, title: str, *, force: bool) -> PromptKind | None:
        """Make what is on disk fit; how its prompts were made, or None where it has to begin.

        Args:
            title: what is stored, for the log.
            force: forget everything.

        Raises:
            UserError: the store holds something else; not with `force`.
        """
        self.remove_partial()
        if force:
            logger.info("%s: all computed anew (--force)", title)
            self.clear()
        self.refuse_other()
        if self.differences():  # a run that finished no shard left its manifest
            self.clear()
        return self.read_prompt_kind()

    def begin(self, prompt_kind: PromptKind) -> None:
        """Write the manifest; the first thing done to an empty store."""
        content = {"inputs": self.inputs, "layers": self.layers, "prompt": prompt_kind}
        write_json(self.manifest, {**content, **self.about})

    def clear(self) -> None:
        """Delete every feature (hashes of images and prompts stay)."""
        self.manifest.unlink(missing_ok=True)
        for path in self.folder.glob("*shard-*.safetensors*"):
            path.unlink()

    def shards(self) -> list[Shard]:
        """The finished shards, by name.

        Raises:
            UserError: a file that is not a shard of this store.
        """
        return [self._read_shard(path) for path in list_shards(self.folder)]

    def plan(self, keys: Sequence[str]) -> list[tuple[str, ...]]:
        """The shards still to be computed for `keys`, which must be sorted.

        Whole shards are taken out of the sorted keys, so what remains after a kill falls into
        the same shards as before.
        """
        finished = {key for shard in self.shards() for key in shard.keys}
        missing = [key for key in keys if key not in finished]
        starts = range(0, len(missing), UNITS_PER_SHARD)
        return [tuple(missing[start : start + UNITS_PER_SHARD]) for start in starts]

    def write_shard(
        self,
        keys: Sequence[str],
        features: Mapping[int, NDArray[np.float32]],
        failed: Mapping[str, Sequence[str]],
        counts: Mapping[str, float],
    ) -> None:
        """Write a finished shard atomically; `features` maps a layer to (rows, D)."""
        described = {"keys": list(keys), "failed": failed, "counts": counts}
        metadata = {"fingerprint": self.fingerprint, "content": json.dumps(described)}
        tensors = {f"layer_{layer}": rows for layer, rows in features.items()}
        path = self.folder / f"shard-{fingerprint(list(keys))[:16]}.safetensors"
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as scratch:
            partial = Path(scratch) / path.name
            save_file(tensors, partial, metadata=metadata)
            os.replace(partial, path)

    def remove_partial(self) -> None:
        """Delete what a killed process left half written."""
        for path in self.folder.glob(".partial-*"):
            shutil.rmtree(path)

    def _read_shard(self, path: Path) -> Shard:
        shard = read_shard(path)
        if shard.fingerprint != self.fingerprint:
            raise UserError(
                f"{path}: computed with other settings than {self.manifest} says; features are "
                "never mixed: delete this file, or rerun with --force to compute all anew"
            )
        return shard


def _describe(key: str, before: Any, now: Any) -> str:
    """A setting and both its values, unless these are hashes."""
    if key == "model":
        return "model"
    return f"{key} ({before} there, {now} asked)"

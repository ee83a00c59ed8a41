"""Features computed once for many cells: hard links, and their cost in every cell's timings."""

from __future__ import annotations

import os
from typing import Any

from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.timings import read_timings

_STAGE = "selection"


def share_features(source: RunDir, target: RunDir) -> None:
    """Give `target` what `source`, a finished selection, computed with a model, and charge for it.

    That is the stores below selection/. The target's selection then takes the time of filling them
    and of its own scoring, as if it had been the only one. Nothing happens the second time. Files
    of a store are replaced whole, never written into, so that a link is as good as a copy.
    """
    entries = read_timings(target)
    if any("shared_from" in entry for entry in entries):
        return
    for path in sorted(source.selection.glob("*/*")):
        place = target.selection / path.relative_to(source.selection)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not place.exists():
            os.link(path, place)
    charged = [_charge(entry, source) for entry in read_timings(source) if entry["stage"] == _STAGE]
    write_json(target.timings, [*entries, *charged])


def _charge(entry: dict[str, Any], source: RunDir) -> dict[str, Any]:
    """The entry with the extraction's seconds alone; all seconds of an attempt that was killed.

    It keeps its fingerprint, that of the features, so that the target's own attempt adds to it.
    """
    seconds = entry["counts"].get("feature_seconds", entry["wall_seconds"])
    return {
        **entry,
        "wall_seconds": round(seconds, 3),
        "device_seconds": round(seconds * entry["num_devices"], 3),
        "shared_from": str(source.root),
    }

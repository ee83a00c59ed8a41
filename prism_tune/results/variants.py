"""How a run's PRISM departs from the paper's own: which printed row it stands beside."""

from __future__ import annotations

from prism_tune.results.runs import TableRun

_SHALLOW, _DEEP = 1 / 4, 3 / 4
"""Shares of a model's layers; the paper says shallow, middle and deep, and no numbers."""


def find_variant(run: TableRun) -> str:
    """The departure of a PRISM run from the paper's setting, at any budget; empty for none."""
    selection = run.config.selection
    if selection.keep not in (None, "low"):
        return f"keep {selection.keep}"
    if selection.pooling != "mean":
        return f"pooling {selection.pooling}"
    if selection.centering != "corpus":
        return f"centering {selection.centering}"
    if selection.features != "visual":
        return f"features {selection.features}"
    if selection.scope != "per_source":
        return f"scope {selection.scope}"
    return _find_depth(run, selection.layer)


def _find_depth(run: TableRun, layer: int) -> str:
    evidence = (run.manifest or {}).get("evidence", {})
    depth = evidence.get("features", {}).get("num_model_layers")
    # The first layer is shallow in a model of any depth.
    if depth is None or layer <= max(1, _SHALLOW * depth):
        return ""
    return "layer deep" if layer > _DEEP * depth else "layer middle"

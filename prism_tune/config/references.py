"""The model that a method reads its evidence from, where the config leaves it to the method.

A selection goes in; its reference comes out, or None for the target as it is. Planning reads it as
well, before anything is loaded.
"""

from __future__ import annotations

from prism_tune.config.sections import ReferenceConfig, SelectionConfig, WarmupConfig

_REFERENCES = {
    "tive": ReferenceConfig(warmup=WarmupConfig()),
    "icons_heldout": ReferenceConfig(warmup=WarmupConfig(share=0.05, per_source="proportional")),
    "less_heldout": ReferenceConfig(warmup=WarmupConfig(share=0.05, per_source="proportional")),
}
"""Warm-ups as they are published; two methods that ask for the same share one."""


def reference_of(selection: SelectionConfig) -> ReferenceConfig | None:
    """What `selection.reference` says, else the method's own; `{}` is the target itself."""
    if selection.reference is not None:
        return selection.reference
    return _REFERENCES.get(selection.scorer)

"""prism_tune: visual instruction tuning with built-in, training-free data selection.

As a library (docs/python.md) it offers what stands below, by the module that has it: loaded when it
is first used, so that the import itself takes no time.
"""

from importlib import import_module

__version__ = "0.1.0"

_LIBRARY = {
    "Benchmark": "evaluation.benchmark",
    "BenchmarkResult": "schema",
    "ChosenRows": "selection.arrays",
    "Config": "config.sections",
    "ConfigError": "errors",
    "Family": "models.families",
    "Pool": "data.records",
    "Prediction": "schema",
    "Question": "schema",
    "ScoredRecords": "selection.scorers.scorer",
    "Scorer": "selection.scorers.scorer",
    "ScorerOptions": "selection.scorer_options",
    "ScoringContext": "selection.scorers.scorer",
    "Subset": "selection.finished",
    "UserError": "errors",
    "audit_pool": "api",
    "evaluate": "api",
    "evidence": "selection.evidence.names",
    "join_predictions": "evaluation.predictions",
    "load_config": "config.load",
    "open_pool": "api",
    "read_options": "selection.scorer_options",
    "read_predictions": "evaluation.predictions",
    "select": "api",
    "select_rows": "selection.arrays",
    "train": "api",
}


def __getattr__(name: str) -> object:
    if name not in _LIBRARY:
        raise AttributeError(f"module 'prism_tune' has no attribute {name!r}")
    return getattr(import_module(f"prism_tune.{_LIBRARY[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LIBRARY])

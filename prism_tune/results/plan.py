"""`prism-tune plan TABLE`: which runs a table of the paper takes, what is done, what is left.

In: the presets in `configs/experiments/`, seeds, and the run folders so far. Out: the plan as a
table, or as steps for `scripts/reproduce_table.sh`, one a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage

EXPERIMENTS = Path("configs/experiments")
Verb = Literal["select", "train", "evaluate"]

_A100_TFLOPS = 125.0  # 312 at 40 % utilisation
_TWO_CORES_TFLOPS = 0.17  # docs/results.md: 1,970 records in 371 s


@dataclass(frozen=True)
class TablePlan:
    """What to run for a table, and what to print at the end.

    Attributes:
        tables: kind of table -> patterns of the presets that are its rows, the first one first.
        tflops: what a device is assumed to compute in a second, in 10^12 FLOPs, until measured.
    """

    tables: Mapping[str, tuple[str, ...]]
    tflops: float = _A100_TFLOPS


_MAIN = tuple(f"paper/main/{name}_7b_full.yaml" for name in ("pool", "random", "prism"))
_QUICKSTART = tuple(
    f"quickstart_tables/quickstart_{name}.yaml" for name in ("untuned", "random", "prism", "pool")
)
_QUICKSTART_ABLATION = ("layer_*", "pooling_*", "keep_*", "centering_*")

PLANS = {
    "main": TablePlan(dict.fromkeys(("main", "cost"), (*_MAIN, "paper/main/*_full.yaml"))),
    "main_lora": TablePlan(dict.fromkeys(("main", "cost"), ("paper/main/*_lora.yaml",))),
    "ablation": TablePlan({"ablation": (_MAIN[-1], "paper/ablation/*.yaml")}),
    "visionflan": TablePlan(
        dict.fromkeys(("visionflan", "cost"), ("paper/visionflan/*_full.yaml",))
    ),
    "visionflan_lora": TablePlan(
        dict.fromkeys(("visionflan", "cost"), ("paper/visionflan/*_lora.yaml",))
    ),
    "models": TablePlan({"models": (*_MAIN, "paper/models/*.yaml")}),
    "language": TablePlan({"language": ("paper/language/*.yaml",)}),
    "quickstart": TablePlan(
        {
            "main": _QUICKSTART,
            "ablation": (
                "quickstart_tables/quickstart_prism.yaml",
                *(f"quickstart_tables/quickstart_{name}.yaml" for name in _QUICKSTART_ABLATION),
            ),
            "cost": _QUICKSTART[1:],
        },
        tflops=_TWO_CORES_TFLOPS,
    ),
}


@dataclass(frozen=True)
class PlannedRun:
    """One preset under one seed, and the stages that it still needs.

    A run that only precedes others (an alignment) keeps its own name: it has no `overrides`.
    """

    path: Path
    config: Config
    overrides: tuple[str, ...]
    remaining: tuple[Verb, ...]

    @property
    def run(self) -> RunDir:
        """Its folder."""
        return RunDir(Path(self.config.output_dir) / self.config.name)


@dataclass(frozen=True)
class Plan:
    """The runs of a table, those before them, and which run is a row of which table."""

    name: str
    alignments: tuple[PlannedRun, ...]
    runs: tuple[PlannedRun, ...]
    tables: Mapping[str, tuple[PlannedRun, ...]]

    def steps(self) -> Iterator[tuple[str, ...]]:
        """What is left to do, in order.

        `("prepare", config)`, `("audit", config, override...)`,
        `("stage", run folder, verb, config, override...)`, `("table", kind, run folder...)`.
        """
        due = [run for run in (*self.alignments, *self.runs) if run.remaining]
        prepared = [str(run.path) for run in due if run.config.data.prepare]
        if prepared:
            yield ("prepare", prepared[0])
        pools: dict[str, PlannedRun] = {}
        for run in due:
            if {"select", "train"} & set(run.remaining):
                pools.setdefault(run.config.data.records, run)
        for run in pools.values():
            yield ("audit", str(run.path), *run.overrides)
        for run in due:
            for verb in run.remaining:
                yield ("stage", str(run.run.root), verb, str(run.path), *run.overrides)
        for kind, rows in self.tables.items():
            yield ("table", kind, *(str(run.run.root) for run in rows))


def make_plan(name: str, seeds: Sequence[int], rows: Sequence[str] = ("*",)) -> Plan:
    """The plan of a table.

    Args:
        name: a key of `PLANS`.
        seeds: every preset is run under each.
        rows: patterns; presets whose name matches none are left out.

    Raises:
        ConfigError: no such plan, or no row that matches.
        UserError: the presets are not here.
    """
    if name not in PLANS:
        raise ConfigError(f"plan: no table {name!r}; there are {', '.join(PLANS)}")
    if not EXPERIMENTS.is_dir():
        raise UserError(f"{EXPERIMENTS}: no such folder; call this in the repository")
    planned: dict[tuple[Path, int], PlannedRun] = {}
    tables: dict[str, tuple[PlannedRun, ...]] = {}
    for kind, patterns in PLANS[name].tables.items():
        found = dict.fromkeys(path for p in patterns for path in sorted(EXPERIMENTS.glob(p)))
        chosen = [path for path in found if any(fnmatch(path.stem, row) for row in rows)]
        for path in chosen:
            for seed in seeds:
                planned.setdefault((path, seed), _plan_run(path, seed))
        tables[kind] = tuple(planned[path, seed] for path in chosen for seed in seeds)
    if not planned:
        raise ConfigError(f"plan {name}: no row is called {' or '.join(rows)}")
    runs = tuple(planned.values())
    return Plan(name, _plan_alignments(runs), runs, {k: v for k, v in tables.items() if v})


def find_missing(plan: Plan) -> list[str]:
    """Files that the remaining runs read and that are not there; not what the plan itself makes."""
    made = {str(run.run.checkpoint) for run in plan.alignments}
    missing: dict[str, None] = {}
    for run in (*plan.alignments, *plan.runs):
        config = run.config
        if not run.remaining or config.data.prepare:
            continue
        benchmarks = config.evaluation.benchmarks if "evaluate" in run.remaining else ()
        paths = [config.model.path, config.data.records, config.data.image_dir]
        for name in benchmarks:
            data = config.evaluation.data.get(name)
            paths += [data.annotations, data.image_dir] if data else []
        missing |= dict.fromkeys(
            path for path in paths if path and path not in made and _is_local_and_absent(path)
        )
    return list(missing)


def _plan_run(path: Path, seed: int) -> PlannedRun:
    overrides = (f"name={path.stem}-seed{seed}", f"seed={seed}")
    config = load_config(path, overrides)
    return PlannedRun(path, config, overrides, _find_remaining(config))


def _plan_alignments(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Runs of ours that others start from: `model.path` is what they write."""
    found: dict[Path, PlannedRun] = {}
    for run in runs:
        parts = Path(run.config.model.path).parts
        if len(parts) != 4 or parts[2:] != ("training", "final") or not run.remaining:
            continue
        path = EXPERIMENTS / f"{parts[1]}.yaml"
        if path.exists():
            config = load_config(path)
            remaining = tuple(verb for verb in _find_remaining(config) if verb == "train")
            found[path] = PlannedRun(path, config, (), remaining)
    return tuple(found.values())


def _find_remaining(config: Config) -> tuple[Verb, ...]:
    """The stages that have not finished, all of them where the config has changed.

    A change of files behind an equal config is for the stages themselves to find.
    """
    run = RunDir(Path(config.output_dir) / config.name)
    tunes = config.training.tuning != "none"
    stages: dict[Verb, list[Path]] = {}
    if tunes and config.training.records == "subset":
        stages["select"] = [run.selection]
    if tunes:
        stages["train"] = [run.training]
    stages["evaluate"] = [run.benchmark(name) for name in config.evaluation.benchmarks]
    if not run.config.exists() or _recipe(load_config(run.config)) != _recipe(config):
        return tuple(stages)
    return tuple(
        verb
        for verb, folders in stages.items()
        if not all(Stage(folder).path.exists() for folder in folders)
    )


def _recipe(config: Config) -> dict[str, Any]:
    """The config without what leaves the results of its stages as they are."""
    tree = config.model_dump(mode="json", exclude={"tracking", "compare", "compare_random"})
    for key in ("benchmarks", "data"):
        del tree["evaluation"][key]
    return tree


def _is_local_and_absent(path: str) -> bool:
    return Path(path).parts[0] in ("data", "runs") and not Path(path).exists()

"""A finished selection in Python: what it kept, its verdict on every record, and where it goes.

In: a run folder. Out: records, scores and files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import ExportLayout
from prism_tune.data.records import Pool, open_pool
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.stage import Stage
from prism_tune.run.subset_file import name_column, read_scores, subset_data
from prism_tune.schema import Record
from prism_tune.selection.budgets import name_budget
from prism_tune.selection.export.layouts import as_in_file, export_pool, list_kept_ids, write_own
from prism_tune.selection.export.tables import build_dataset

if TYPE_CHECKING:
    from datasets import Dataset


class Subset:
    """What a selection kept, and the verdict on every record of the pool.

    Attributes:
        run: the run folder.
        config: what the selection ran with.
        pool: the kept records, as a pool of their own; one without id is called by its place there.
    """

    def __init__(self, run: RunDir, budget: str | None = None) -> None:
        stage = Stage(run.selection)
        stage.require("select")
        config = stage.config()
        assert config is not None
        self.run, self.config = run, config
        self._further, self._column = budget, name_column(budget)
        self.pool: Pool = open_pool(subset_data(config.data, run, budget))
        self.manifest: dict[str, Any] = read_object(run.selection / "manifest.json")
        self.table = read_scores(run)

    def __repr__(self) -> str:
        num_pool = self.table.num_rows
        return f"Subset({len(self)} of {num_pool} records, {self.config.selection.scorer})"

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> Record:
        """A kept record, parsed now."""
        return replace(self.pool[index], id=self.ids[index])

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def ids(self) -> list[str]:
        """Of the kept records, in their order; ids may repeat in a pool."""
        return list_kept_ids(self.table, self._column)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Of every record of the pool, in its order; NaN where one is not ranked."""
        return self.table.column("score").to_numpy().astype(np.float64)

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Where the kept records stand in the pool."""
        return np.flatnonzero(self.table.column(self._column).to_numpy())

    @property
    def reasons(self) -> list[str]:
        """Of every record of the pool: selected, below_cut, text_only, or why it was skipped.

        Under the run's own budget, whichever of its budgets this is of.
        """
        reasons: list[str] = self.table.column("reason").to_pylist()
        return reasons

    def at(self, budget: float | int) -> Subset:
        """What another of the run's budgets keeps (`selection.budgets`).

        Raises:
            UserError: the run has cut no such budget.
        """
        name = name_budget(budget)
        is_own = name == name_budget(self.config.selection.budget)
        return Subset(self.run, None if is_own else name)

    def save(self, path: str | Path, layout: ExportLayout | None = None) -> None:
        """Write the kept records.

        Args:
            path: a file; of `trl` a new folder.
            layout: a trainer's (docs/data.md); by default the records as they stand in the pool.

        Raises:
            UserError: a name that does not fit the format, or what `export_pool` raises.
        """
        if layout is None:
            write_own(self.pool, Path(path))
        else:
            export_pool(self.pool, layout, Path(path), self.ids)

    def to_dataset(self) -> Dataset:
        """The kept records as `datasets` has them; images are decoded when they are read.

        The columns are those of the layout `trl`: `SFTTrainer(train_dataset=subset.to_dataset())`.
        """
        return build_dataset(as_in_file(self.pool), self.ids)

    def push_to_hub(self, repository: str, *, private: bool = False) -> None:
        """Share the kept records' hashes and ids, with a dataset card; no text and no images.

        Raises:
            UserError: this is of a further budget, no token, or the hub refuses.
        """
        if self._further is not None:
            raise UserError(
                f"push_to_hub: hashes are shared of the run's own budget alone, and "
                f"{self._further} is a further one: select it as a run of its own"
            )
        from prism_tune.selection.export.push_subset import push_subset
        from prism_tune.selection.shared_subset import export_subset

        shared = self.run.exports / "shared" / f"{self.run.root.name}.parquet"
        export_subset(self.run, shared)
        push_subset(self.run, shared, repository, private=private)

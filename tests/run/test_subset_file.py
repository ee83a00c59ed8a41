"""A selection's scores that are not as it wrote them: the column, and how to write them anew."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir
from prism_tune.run.subset_file import read_scores

SOUND = {
    "uid": ["a"],
    "id": ["1"],
    "source": ["s"],
    "score": [0.5],
    "rank": [1],
    "selected": [True],
    "reason": ["selected"],
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"score": None}, "no column score"),
        ({"score": ["high"]}, "column score holds string"),
        ({"selected": [1]}, "column selected holds int64"),
        ({"selected_0.2": ["yes"]}, "column selected_0.2 holds string"),
        ({"uid": [7]}, "column uid holds int64"),
    ],
)
def test_a_column_that_is_not_as_it_was_written(tmp_path, changes, says):
    run = RunDir(tmp_path)
    run.selection.mkdir()
    columns = {key: value for key, value in {**SOUND, **changes}.items() if value is not None}
    pq.write_table(pa.table(columns), run.selection / "scores.parquet")
    with pytest.raises(UserError, match=rf"scores\.parquet: {says}; write it anew with"):
        read_scores(run)


def test_scores_as_they_are_written_may_have_columns_of_their_own(tmp_path):
    run = RunDir(tmp_path)
    run.selection.mkdir()
    pq.write_table(pa.table({**SOUND, "own": [3]}), run.selection / "scores.parquet")
    assert read_scores(run).column_names == [*SOUND, "own"]

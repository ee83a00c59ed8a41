"""What subsets share, and shares of planted redundancy, counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from prism_tune.errors import UserError
from prism_tune.results.overlap import (
    measure_overlap,
    read_planted,
    removed_shares,
    repeated_share,
)
from prism_tune.results.records import Categories, RecordTable


def keep(ids: str, selected: str, text_only: str = "") -> RecordTable:
    """A pool of records that are called so, each its own uid."""
    column = pa.chunked_array([pa.array(list(ids))])
    one = Categories(("s",), np.zeros(len(ids), dtype=np.int32))
    return RecordTable(
        uids=column,
        ids=column,
        sources=one,
        reasons=one,
        score_N=np.array([np.nan if name in text_only else 1.0 for name in ids]),
        rank_N=np.ones(len(ids), dtype=np.int64),
        selected_N=np.array([name in selected for name in ids], dtype=bool),
        feature_keys=None,
    )


@pytest.fixture
def planted(tmp_path):
    """b and c repeat a, e repeats d, f is one of too many of its class."""
    content = {
        "b": {"kind": "exact", "of": "a"},
        "c": {"kind": "crop", "of": "a"},
        "e": {"kind": "exact", "of": "d"},
        "f": {"kind": "over", "of": None},
    }
    path = tmp_path / "planted.json"
    path.write_text(json.dumps(content))
    return read_planted(path)


def test_removed_is_what_is_not_kept_of_each_kind(planted):
    assert removed_shares(keep("abcdef", "abd"), planted) == {"crop": 1, "exact": 0.5, "over": 1}
    assert removed_shares(keep("abcdef", "cef"), planted) == {"crop": 0, "exact": 0.5, "over": 0}


def test_repeated_counts_all_but_one_of_each_original(planted):
    assert repeated_share(keep("abcdef", "abcd"), planted) == 0.5  # a once, d once, of four
    assert repeated_share(keep("abcdef", "bc"), planted) == 0.5  # copies without their original
    assert repeated_share(keep("abcdef", "cdf"), planted) == 0
    assert repeated_share(keep("abcdef", ""), planted) == 0


def test_a_planted_record_that_the_pool_lacks_is_named(planted):
    with pytest.raises(UserError, match="'f' is not the id of a record"):
        removed_shares(keep("abcde", "a"), planted)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "planted.json"
    path.write_text('{"a": {"of": null}}')
    with pytest.raises(UserError, match="expected an object of record ids"):
        read_planted(path)


def test_jaccard():
    def jaccard(first, second):
        pair = measure_overlap(keep("abcd", first), keep("dcba", second))
        return pair.jaccard

    assert jaccard("abc", "bcd") == 0.5
    assert jaccard("ab", "cd") == 0
    assert jaccard("", "") == 0


def test_text_only_records_do_not_make_subsets_alike():
    """Every selector keeps them: here x, y and z beside one image record of two."""
    first, second = (keep("abxyz", f"{name}xyz", "xyz") for name in "ab")
    pair = measure_overlap(first, second)
    assert (pair.num_first, pair.num_shared, pair.jaccard) == (1, 0, 0)
    assert pair.expected == pytest.approx(1 / 3)


def test_what_is_expected_of_random_subsets_takes_the_same_records():
    """Two pools of four records, of which they share two, are not the same by their size."""
    assert measure_overlap(keep("abcd", "ab"), keep("dcba", "ac")).expected == pytest.approx(1 / 3)
    assert measure_overlap(keep("abcd", "ab"), keep("cdef", "cd")).expected is None

"""Short rows of a pool's records: of their images, of their texts, and of both together.

Evidence goes in; rows of K numbers and which records share them come out.

Shape legend: M records to be scored, U rows of evidence, P pairs of a row and a group, Q the same
of texts, K components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.reduction import ReducedFeatures, reduce_features
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.row_pairs import RowPairs, pair_rows

FloatArray = NDArray[np.float64]

SAMPLE_ROWS = 1000
"""Distinct features that a bandwidth is chosen by."""


@dataclass(frozen=True)
class ShortRows:
    """Rows of norm 1 (or 0), centred in their group, and which records share one.

    Attributes:
        pairs: the records of each row; `row_P` is the image's row of the evidence.
        values_PK: the rows; behind the first `num_columns` stands the text's, where there is one.
        num_columns: of an image's row.
    """

    pairs: RowPairs
    values_PK: FloatArray
    num_columns: int

    @property
    def of_record_M(self) -> NDArray[np.int64]:
        """Each record's row."""
        of_record_M = self.pairs.of_record_N
        assert of_record_M is not None
        return of_record_M


@dataclass(frozen=True)
class Reduction:
    """How a matrix of features is made short: `selection.options`."""

    num_components: int
    whitening: bool

    def shorten(
        self,
        rows: tuple[RowBlocks, NDArray[np.int64]],
        groups_M: NDArray[np.str_] | None,
    ) -> tuple[ShortRows, ReducedFeatures]:
        """The short rows of a matrix and of each record's row of it; what else is known of them."""
        features_UD, row_M = rows
        pairs = pair_rows(features_UD.shape[0], groups_M, row_M)
        reduced = reduce_features(
            features_UD, pairs, num_components=self.num_components, whitening=self.whitening
        )
        return ShortRows(pairs, reduced.values_PK, reduced.values_PK.shape[1]), reduced


def join_rows(images: ShortRows, texts: ShortRows) -> ShortRows:
    """[image; text] of every two that some record has; both cover the same records and groups."""
    num_texts = len(texts.values_PK)
    codes_M = images.of_record_M * num_texts + texts.of_record_M
    codes_P, of_record_M, count_P = np.unique(codes_M, return_inverse=True, return_counts=True)
    image_P, text_P = np.divmod(codes_P, num_texts)
    of_images = images.pairs
    pairs = RowPairs(
        of_images.row_P[image_P],
        of_images.group_P[image_P],
        count_P,
        of_images.size_G,
        of_record_M,
    )
    values_PK = np.concatenate([images.values_PK[image_P], texts.values_PK[text_P]], axis=1)
    return ShortRows(pairs, values_PK, images.num_columns)


def sample_rows(rows: ShortRows, order_M: NDArray[np.int64]) -> FloatArray:
    """Distinct rows, those of the records that come first."""
    drawn = rows.of_record_M[order_M]
    _, first = np.unique(rows.pairs.row_P[drawn], return_index=True)
    return rows.values_PK[drawn[np.sort(first)[:SAMPLE_ROWS]]]

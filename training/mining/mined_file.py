"""Mined negatives as a Parquet file: triplets, or scored pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.array_types import RowIndices, Texts
from common.errors import InputError
from training.mining.mine_negatives import MinedNegatives

TRIPLETS = ("anchor", "positive", "negative")


def build_triplets(mined: MinedNegatives, names: Texts) -> pa.Table:
    """A row a negative: anchor, positive, negative, and the cosines of the anchor to both, float32."""
    line, column = np.nonzero(mined.negatives >= 0)
    return pa.table(
        {
            "anchor": names[line],
            "positive": names[mined.positives[line]],
            "negative": names[mined.negatives[line, column]],
            "positive_score": mined.positive_scores[line],
            "negative_score": mined.negative_scores[line, column],
        }
    )


def build_pairs(mined: MinedNegatives, names: Texts) -> pa.Table:
    """A row a pair: a, b, whether they are the same, and their cosine; each pair once."""
    line, column = np.nonzero(mined.negatives >= 0)
    anchors = np.unique(line)
    a = np.concatenate([anchors, line])
    b = np.concatenate([mined.positives[anchors], mined.negatives[line, column]])
    score = np.concatenate([mined.positive_scores[anchors], mined.negative_scores[line, column]])
    same = np.arange(len(a)) < len(anchors)
    _, first = np.unique(np.sort(np.stack([a, b], axis=1), axis=1), axis=0, return_index=True)
    first = np.sort(first)
    return pa.table({"a": names[a[first]], "b": names[b[first]], "same": same[first], "score": score[first]})


def read_triplets(path: Path, ids: Texts, most: int) -> tuple[RowIndices, RowIndices]:
    """Positive int [n] and negatives int [n, most] of each item, -1 where there are none.

    Args:
        most: negatives of each anchor, the first that the file names.

    Raises:
        InputError: a file that holds no triplets, or one of an item that the data does not have.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"mining.file: {path} cannot be read: {error}.") from None
    if missing := [name for name in TRIPLETS if name not in table.column_names]:
        raise InputError(
            f"mining.file: {path} has no column '{missing[0]}': give the triplets that `limen mine` writes."
        )
    anchors, positives, negatives = (
        _find_rows(np.asarray(table.column(name).to_pylist()).astype(np.str_), ids, path) for name in TRIPLETS
    )
    chosen = np.full(len(ids), -1, dtype=np.int64)
    chosen[anchors[::-1]] = positives[::-1]
    order = np.argsort(anchors, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(anchors[order], anchors[order])
    kept = order[rank < most]
    hard = np.full((len(ids), most), -1, dtype=np.int64)
    hard[anchors[kept], rank[rank < most]] = negatives[kept]
    return chosen, hard


def _find_rows(names: Texts, ids: Texts, path: Path) -> RowIndices:
    order = np.argsort(ids, kind="stable")
    rows: RowIndices = order[np.searchsorted(ids[order], names).clip(max=len(ids) - 1)]
    unknown = np.flatnonzero(ids[rows] != names)
    if len(unknown):
        raise InputError(
            f"mining.file: {path} names item '{names[unknown[0]]}', which is not among the training items: "
            "mine the embeddings of this data, by their ids."
        )
    return rows

"""Labelled embeddings to a table of triplets, of scored pairs or of a sample, as ``limen mine`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api_schemas.config import MiningRule
from common.array_types import Texts
from common.atomic_files import write_atomically
from common.errors import InputError
from common.progress import Track
from embeddings.embedding_set import EmbeddingSet, read_single_values
from training.mining.mine_negatives import mine_negatives
from training.mining.mined_file import build_pairs, build_triplets
from training.mining.sensitivity import sample_by_sensitivity


def mine_items(
    items: EmbeddingSet,
    rule: MiningRule,
    form: Literal["triplets", "pairs"],
    text_column: str | None,
    seed: int,
    track: Track,
) -> tuple[pa.Table, str]:
    """The table that is written, and a sentence on what was found.

    Raises:
        InputError: items of one class alone, no negative that passes, or a column that the items do not have.
    """
    labels, codes = np.unique(items.labels, return_inverse=True)
    if len(labels) < 2 or len(labels) == len(codes):
        raise InputError(
            f"Mining needs two classes and one of them with two items, found {len(labels)} classes of "
            f"{len(codes)} items: give embeddings with their labels."
        )
    names = items.ids if text_column is None else _read_names(items, text_column)
    mined = mine_negatives(items.vectors, codes, rule, seed, track)
    if not (mined.negatives >= 0).any():
        raise InputError(
            f"All {mined.n_candidates} candidates were left out by the filters: loosen them, or raise --top."
        )
    dropped = (
        f"{mined.n_dropped} of {mined.n_candidates} candidates ({mined.n_dropped / mined.n_candidates:.1%})"
    )
    anchors = int((mined.negatives[:, 0] >= 0).sum())
    sentence = f"{anchors} of {len(codes)} items have hard negatives; filters left out {dropped}."
    return (build_triplets if form == "triplets" else build_pairs)(mined, names), sentence


def choose_items(
    items: EmbeddingSet, count: int, clusters: int | None, loss_column: str | None, seed: int
) -> pa.Table:
    """Ids and weights of a sample; as many clusters as a tenth of it unless given."""
    if count > len(items):
        raise InputError(f"--select {count}: there are {len(items)} items.")
    losses = None
    if loss_column is not None:
        values = items.metadata.get(loss_column)
        if values is None or values.dtype.kind not in "iuf" or np.ma.getmaskarray(values).any():
            raise InputError(f"--loss-column: the items have no column '{loss_column}' of numbers.")
        losses = np.asarray(values, dtype=np.float32)
        if not (np.isfinite(losses).all() and (losses >= 0).all() and losses.any()):
            raise InputError(f"--loss-column: losses in '{loss_column}' must be finite and not negative.")
    sample = sample_by_sensitivity(items.vectors, count, clusters or max(2, count // 10), losses, seed=seed)
    return pa.table({"id": items.ids[sample.rows], "weight": sample.weights})


def _read_names(items: EmbeddingSet, column: str) -> Texts:
    values = read_single_values(
        items.metadata,
        column,
        lambda known: f"--text-column: the items have no column '{column}'; found {known}.",
    )
    return np.ma.getdata(values).astype(np.str_)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet; a crash leaves the old file or none."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue().to_pybytes())

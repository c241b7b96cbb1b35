"""Pairs that are left out: of one camera, of one person and camera, of one burst, of one item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.array_types import Float64s, Int64s
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet, read_single_values
from evaluation.pairs.copies import group_bursts, group_shared_items

if TYPE_CHECKING:
    import pyarrow as pa

ExcludeSame = str | Sequence[str] | None
"""What a pair must share to be left out: one or several of the forms of ``describe_exclusion``."""

MARKET, NEAR_COPY, NEAR_TIME = "market-1501", "near-copy", "near-time"
FILE_TIME = "file_time"
SECONDS_OF_BURST = 60


def list_exclusions(exclude_same: ExcludeSame) -> list[str]:
    """The forms as a list."""
    if exclude_same is None:
        return []
    return [exclude_same] if isinstance(exclude_same, str) else list(exclude_same)


def describe_exclusion(form: str) -> str:
    """Which pairs a form leaves out, in words.

    ``COLUMN``: every pair with one value of that column, of two people as well. ``market-1501:COLUMN``: pairs
    of one label and one value, as Market-1501 leaves out the same person on the same camera. ``near-copy``:
    pairs of one label that lie in a burst. ``near-time`` or ``near-time:COLUMN``: pairs of one label taken
    within a minute of each other, or joined by such.
    """
    name, _, column = form.partition(":")
    if name == MARKET:
        return f"pairs of one label and one '{column}' (Market-1501's rule)"
    if name == NEAR_COPY:
        return "near copies within a label"
    if name == NEAR_TIME:
        return f"pairs of one label whose '{column or FILE_TIME}' is within {SECONDS_OF_BURST} s, in a chain"
    return f"every pair with one '{form}', of different labels as well"


def describe_exclusions(exclude_same: ExcludeSame) -> str | None:
    """A sentence about everything that is left out; None where nothing is."""
    parts = [describe_exclusion(form) for form in list_exclusions(exclude_same)]
    return f"Left out: {'; '.join(parts)}." if parts else None


def read_groups(
    items: EmbeddingSet, gallery: EmbeddingSet | None, exclude_same: ExcludeSame
) -> tuple[Int64s | None, Int64s | None]:
    """int64 [n, k] of items and gallery: pairs that share the group of any column are left out; else None.

    Items of the gallery that are queries too, by id or by vector, are left out of those queries' matches.

    Raises:
        InputError: no such column, or no times in it.
    """
    sets = [items] if gallery is None else [items, gallery]
    columns = [np.concatenate(_read_column(sets, form)) for form in list_exclusions(exclude_same)]
    if gallery is not None and (shared := group_shared_items(items, gallery)) is not None:
        columns.append(np.concatenate(shared))
    if not columns:
        return None, None
    groups = np.stack([np.unique(column, return_inverse=True)[1].reshape(-1) for column in columns], axis=1)
    return groups[: len(items)], None if gallery is None else groups[len(items) :]


def _read_column(sets: list[EmbeddingSet], form: str) -> list[Int64s]:
    """int64 [n] of each set: the group of every item."""
    name, _, column = form.partition(":")
    is_column = all(form in part.metadata for part in sets)
    has_rule = not is_column and name in _RULES
    codes = _RULES[name](sets, column) if has_rule else _group_by_value(sets, form)
    return np.split(codes, np.cumsum([len(part) for part in sets])[:-1])


def _get_column(sets: list[EmbeddingSet], column: str, kind: pa.DataType) -> pa.Array:
    """A metadata column of all sets, one after the other, in a type to compare in; null where missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = []
    for part in sets:
        values = read_single_values(
            part.metadata,
            column,
            lambda known: (
                f"There is no column '{column}' to exclude pairs by; the data has: {known}. Besides columns "
                f"there are {MARKET}:COLUMN, {NEAR_COPY} and {NEAR_TIME}:COLUMN."
            ),
        )
        array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
        parts.append(pc.cast(array, kind))
    return pa.concat_arrays(parts)


def _group_by_value(sets: list[EmbeddingSet], column: str) -> Int64s:
    """Equal where the values are, as text; a value that is missing or empty is shared with no other item."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _get_column(sets, column, pa.large_string())
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    encoded = texts.dictionary_encode()
    rank = np.argsort(np.array(pc.array_sort_indices(encoded.dictionary)))  # the same for any order of rows
    first = np.array(pc.fill_null(encoded.indices, -1), dtype=np.int64)
    alone = first < 0
    codes = np.empty(len(first), dtype=np.int64)
    codes[~alone] = rank[first[~alone]]
    codes[alone] = len(rank) + np.arange(int(alone.sum()))
    return codes


def _group_by_market(sets: list[EmbeddingSet], column: str) -> Int64s:
    labels = np.concatenate([part.labels for part in sets])
    codes = np.stack([np.unique(labels, return_inverse=True)[1].reshape(-1), _group_by_value(sets, column)])
    return np.unique(codes, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _group_by_burst(sets: list[EmbeddingSet], column: str) -> Int64s:
    labels = np.concatenate([part.labels for part in sets])
    vectors = np.concatenate([part.vectors for part in sets])
    return group_bursts(vectors, np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64))


def _group_by_time(sets: list[EmbeddingSet], column: str) -> Int64s:
    import pyarrow as pa

    name = column or FILE_TIME
    try:
        times = _get_column(sets, name, pa.timestamp("us", "UTC"))
    except pa.ArrowException:
        raise InputError(
            f"The column '{name}' holds something other than times: {NEAR_TIME} needs dates with times, such "
            "as 2024-01-31T12:00:00Z."
        ) from None
    labels = np.concatenate([part.labels for part in sets])
    seconds = np.asarray(times.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.float64) / 1e6
    return group_runs(np.unique(labels, return_inverse=True)[1].reshape(-1), seconds)


def group_runs(codes: Int64s, seconds: Float64s) -> Int64s:
    """int64 [n]: equal for items of one class that steps of a minute at most join; NaN is joined to none."""
    order = np.lexsort((seconds, codes))
    goes_on = (np.diff(codes[order]) == 0) & (np.diff(seconds[order]) <= SECONDS_OF_BURST)
    groups = np.empty(len(codes), dtype=np.int64)
    groups[order] = np.concatenate([[0], np.cumsum(~goes_on)])
    return groups


_RULES: dict[str, Callable[[list[EmbeddingSet], str], Int64s]] = {
    MARKET: _group_by_market,
    NEAR_COPY: _group_by_burst,
    NEAR_TIME: _group_by_time,
}

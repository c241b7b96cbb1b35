"""Splits items into train, validation and test parts: by class, group, time or column."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.data_config import DataConfig, SplitConfig
from common.array_types import Int64s, RowIndices, Texts
from common.errors import InputError
from embeddings.embedding_set import read_single_values
from training.data.items import Items

PARTS = ("train", "validation", "test")


def split_items(items: Items, data: DataConfig, source: str) -> dict[str, RowIndices]:
    """Row numbers of each part, ascending; a part that gets nothing is empty.

    Raises:
        InputError: what ``check_usable`` refuses, a value missing in the column to split by, or items for
            testing where ``data.test_path`` gives them.
    """
    _check_classes(items.labels, source)
    split = data.split
    if split.by == "column":
        parts = _split_by_column(items, data.split_column, source)
    elif split.by == "time":
        parts = _split_by_time(items, str(data.time_column), split, source)
    else:
        column = items.labels if split.by == "class" else _read_column(items, str(data.group_column), source)
        parts = _split_by_value(column, split)
    if data.test_paths and len(parts["test"]):
        raise InputError(
            f"{source}: {len(parts['test'])} items are marked for testing, but data.test_path gives the test "
            "set: leave data.test_path out, or those items."
        )
    check_usable({name: items.labels[rows] for name, rows in parts.items()}, source)
    return parts


def check_usable(labels: Mapping[str, Texts], source: str) -> None:
    """Check that every part can be trained on or measured.

    Args:
        labels: text [n] of each part.

    Raises:
        InputError: one class only, no class with two items, or a part that cannot be used.
    """
    everything = np.concatenate(list(labels.values()))
    _check_classes(everything, source)
    n_train = len(np.unique(labels["train"]))
    if n_train < 2:
        raise InputError(
            f"{source}: {n_train} of {len(np.unique(everything))} classes are left for training, at least 2 "
            "are needed: give more classes or raise data.split.train."
        )
    validation = labels.get("validation", everything[:0])
    n_validation = len(np.unique(validation))
    if len(validation) and not 2 <= n_validation < len(validation):
        raise InputError(
            f"{source}: {len(validation)} items of {n_validation} classes are left for validation, "
            "which needs 2 classes and 2 items of one: raise data.split.validation, or set it to 0."
        )


def _check_classes(labels: Texts, source: str) -> None:
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) == 1:
        raise InputError(
            f"{source} has one class only, '{labels[0]}' ({counts[0]} items): at least 2 are needed."
        )
    if counts.max() < 2:
        raise InputError(
            f"{source} has {len(counts)} classes but no class with two items: without two items of a "
            "class there is nothing to match."
        )


def _split_by_value(column: Texts, split: SplitConfig) -> dict[str, RowIndices]:
    """Distinct values are shuffled and dealt out by fraction, or by fold."""
    values, codes = np.unique(column, return_inverse=True)
    order = np.random.default_rng(split.seed).permutation(len(values))
    part_of = np.empty(len(values), dtype=np.int64)
    if split.folds:
        fold = np.arange(len(values)) % split.folds
        rotated = (fold - split.fold) % split.folds
        part_of[order] = np.where(rotated == 0, 2, np.where(rotated == 1, 1, 0))
    else:
        ends = _compute_ends(split, len(values))
        part_of[order] = np.searchsorted(ends, np.arange(len(values)), side="right")
    return {name: np.flatnonzero(part_of[codes] == number) for number, name in enumerate(PARTS)}


def _split_by_time(items: Items, column: str, split: SplitConfig, source: str) -> dict[str, RowIndices]:
    """Cuts as near to the wanted fractions as items of one time allow, which stay together."""
    times = _parse_times(_read_column(items, column, source), column, source)
    order = np.argsort(times, kind="stable")
    sorted_times = times[order]
    borders = np.flatnonzero(np.r_[True, sorted_times[1:] != sorted_times[:-1], True])
    wanted = np.array([split.train, split.validation, split.test]) > 0
    if len(borders) - 1 < wanted.sum():
        raise InputError(
            f"{source}: column '{column}' has {len(borders) - 1} different times, too few for {wanted.sum()} "
            "parts: items of one time stay together."
        )
    ends = _compute_ends(split, len(items))
    cuts, at = [], 0
    for number in range(2):
        if wanted[number]:
            allowed = borders[at + 1 : len(borders) - int(wanted[number + 1 :].sum())]
            at += 1 + int(np.abs(allowed - ends[number]).argmin())
        cuts.append(borders[at])
    return {name: np.sort(rows) for name, rows in zip(PARTS, np.split(order, cuts), strict=True)}


def _compute_ends(split: SplitConfig, n: int) -> Int64s:
    """End of each part among n values that are dealt out by the fractions: int [3]."""
    fractions = np.array([split.train, split.validation, split.test])
    ends: Int64s = np.round(np.cumsum(fractions) / fractions.sum() * n).astype(np.int64)
    return ends


def _parse_times(values: NDArray[Any], column: str, source: str) -> NDArray[Any]:
    """Numbers and dates as they are, ISO 8601 texts as dates [n]: as text 10/1/2024 comes before 9/1/2024."""
    if values.dtype.kind in "iufmM":
        return values
    return np.array([_parse_time(str(text), row, column, source) for row, text in enumerate(values)])


def _parse_time(text: str, row: int, column: str, source: str) -> np.datetime64:
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"{source}: row {row} of column '{column}' is '{text[:50]}', which is no time: write dates as "
            "2024-01-31 or 2024-01-31T12:00:00 (ISO 8601), or numbers that grow with time."
        ) from None
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time, "us")


def _split_by_column(items: Items, column: str, source: str) -> dict[str, RowIndices]:
    values = _read_column(items, column, source)
    aliases: Mapping[str, str] = {"val": "validation", "valid": "validation", "dev": "validation"}
    named = np.array([aliases.get(str(value), str(value)) for value in values])
    wrong = np.flatnonzero(~np.isin(named, PARTS))
    if len(wrong):
        raise InputError(
            f"{source}: row {wrong[0]} of column '{column}' is '{values[wrong[0]]}', expected train, "
            "validation or test."
        )
    return {name: np.flatnonzero(named == name) for name in PARTS}


def _read_column(items: Items, column: str, source: str) -> NDArray[Any]:
    """A column to split by [n], every value there; text where it is no number and no date."""
    given = read_single_values(
        items.metadata, column, lambda known: f"{source} has no column '{column}' to split by; found {known}."
    )
    values, is_missing = np.ma.getdata(given), np.ma.getmaskarray(given)
    if values.dtype.kind == "U":
        is_missing = is_missing | (np.strings.strip(values) == "")
    else:
        is_missing = is_missing | (values != values)  # NaN and NaT
    if is_missing.any():
        row = int(is_missing.argmax())
        raise InputError(
            f"{source}: row {row} (id '{items.ids[row]}') has no value in column '{column}', which the split "
            "goes by: fill it in, or leave the row out."
        )
    return values

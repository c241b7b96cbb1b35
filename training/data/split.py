"""Cuts items into train, validation and test, so that what is proven is proven on the unseen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.config import DataConfig, SplitConfig
from common.array_types import RowIndices, Texts
from common.errors import InputError
from training.data.items import Items

PARTS = ("train", "validation", "test")


def split_items(items: Items, data: DataConfig, source: str) -> dict[str, RowIndices]:
    """Row numbers of each part, ascending; a part that gets nothing is empty.

    Raises:
        InputError: what ``refuse_unusable`` refuses, a value missing in the column to split by, or items for
            testing where ``data.test_path`` gives them.
    """
    _refuse_alike(items, source)
    split = data.split
    if split.by == "column":
        parts = _by_column(items, data.split_column, source)
    elif split.by == "time":
        parts = _by_time(items, str(data.time_column), split, source)
    else:
        column = items.labels if split.by == "class" else _column(items, str(data.group_column), source)
        parts = _by_value(column, split)
    if data.test_paths and len(parts["test"]):
        raise InputError(
            f"{source}: {len(parts['test'])} items are marked for testing, but data.test_path gives the test "
            "set: leave data.test_path out, or those items."
        )
    refuse_unusable(items, parts, source)
    return parts


def refuse_unusable(items: Items, parts: Mapping[str, RowIndices], source: str) -> None:
    """Raise InputError for one class only, no class with two items, or a part that cannot be used."""
    _refuse_alike(items, source)
    train = items.subset(parts["train"])
    if train.n_classes < 2:
        raise InputError(
            f"{source}: {train.n_classes} of {items.n_classes} classes are left for training, at least 2 are "
            "needed: give more classes or raise data.split.train."
        )
    validation = items.subset(parts["validation"])
    if len(validation) and not validation.measurable:
        raise InputError(
            f"{source}: {len(validation)} items of {validation.n_classes} classes are left for validation, "
            "which needs 2 classes and 2 items of one: raise data.split.validation, or set it to 0."
        )


def _refuse_alike(items: Items, source: str) -> None:
    _, counts = np.unique(items.labels, return_counts=True)
    if len(counts) == 1:
        raise InputError(
            f"{source} has one class only, '{items.labels[0]}' ({counts[0]} items): at least 2 are needed."
        )
    if counts.max() < 2:
        raise InputError(
            f"{source} has {len(counts)} classes but no class with two items: without two items of a "
            "class there is nothing to match."
        )


def _by_value(column: Texts, split: SplitConfig) -> dict[str, RowIndices]:
    """Distinct values are shuffled and dealt out by share, or by fold."""
    values, codes = np.unique(column, return_inverse=True)
    order = np.random.default_rng(split.seed).permutation(len(values))
    part_of = np.empty(len(values), dtype=np.int64)
    if split.folds:
        fold = np.arange(len(values)) % split.folds
        turned = (fold - split.fold) % split.folds
        part_of[order] = np.where(turned == 0, 2, np.where(turned == 1, 1, 0))
    else:
        shares = np.array([split.train, split.validation, split.test])
        ends = np.round(np.cumsum(shares) / shares.sum() * len(values)).astype(np.int64)
        part_of[order] = np.searchsorted(ends, np.arange(len(values)), side="right")
    return {name: np.flatnonzero(part_of[codes] == number) for number, name in enumerate(PARTS)}


def _by_time(items: Items, column: str, split: SplitConfig, source: str) -> dict[str, RowIndices]:
    """Cuts as near to the shares as items of one time allow, which stay together."""
    times = _times(_column(items, column, source), column, source)
    order = np.argsort(times, kind="stable")
    sorted_times = times[order]
    borders = np.flatnonzero(np.r_[True, sorted_times[1:] != sorted_times[:-1], True])
    shares = np.array([split.train, split.validation, split.test])
    wanted = shares > 0
    if len(borders) - 1 < wanted.sum():
        raise InputError(
            f"{source}: column '{column}' has {len(borders) - 1} different times, too few for {wanted.sum()} "
            "parts: items of one time stay together."
        )
    ends = np.round(np.cumsum(shares) / shares.sum() * len(items)).astype(np.int64)
    cuts, at = [], 0
    for number in range(2):
        if wanted[number]:
            allowed = borders[at + 1 : len(borders) - int(wanted[number + 1 :].sum())]
            at += 1 + int(np.abs(allowed - ends[number]).argmin())
        cuts.append(borders[at])
    pieces = np.split(order, cuts)
    return {name: np.sort(piece) for name, piece in zip(PARTS, pieces, strict=True)}


def _times(values: NDArray[Any], column: str, source: str) -> NDArray[Any]:
    """Numbers and dates as they are, ISO 8601 texts as dates [n]: as text 10/1/2024 comes before 9/1/2024."""
    if values.dtype.kind in "iufmM":
        return values
    return np.array([_moment(str(text), row, column, source) for row, text in enumerate(values)])


def _moment(text: str, row: int, column: str, source: str) -> np.datetime64:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"{source}: row {row} of column '{column}' is '{text[:50]}', which is no time: write dates as "
            "2024-01-31 or 2024-01-31T12:00:00 (ISO 8601), or numbers that grow with time."
        ) from None
    return np.datetime64(found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found, "us")


def _by_column(items: Items, column: str, source: str) -> dict[str, RowIndices]:
    values = _column(items, column, source)
    aliases: Mapping[str, str] = {"val": "validation", "valid": "validation", "dev": "validation"}
    named = np.array([aliases.get(str(value), str(value)) for value in values])
    wrong = np.flatnonzero(~np.isin(named, PARTS))
    if len(wrong):
        raise InputError(
            f"{source}: row {wrong[0]} of column '{column}' is '{values[wrong[0]]}', expected train, "
            "validation or test."
        )
    return {name: np.flatnonzero(named == name) for name in PARTS}


def _column(items: Items, column: str, source: str) -> NDArray[Any]:
    """A column to split by [n], every value there; text where it is no number and no date."""
    if column not in items.metadata:
        known = ", ".join(sorted(items.metadata)) or "none"
        raise InputError(f"{source} has no column '{column}' to split by; found {known}.")
    values = np.asarray(items.metadata[column])
    if values.dtype.kind == "O":
        values = np.array(["" if value is None else str(value) for value in values])
    missing = np.char.strip(values) == "" if values.dtype.kind == "U" else values != values  # NaN and NaT
    if missing.any():
        row = int(missing.argmax())
        raise InputError(
            f"{source}: row {row} (id '{items.ids[row]}') has no value in column '{column}', which the split "
            "goes by: fill it in, or leave the row out."
        )
    return values

"""Near duplicates: images of different parts that are scaled or recompressed copies of each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s
from training.data.items import Items
from training.data.row_store import read_blocks

ROWS_AT_ONCE = 256
SIDE = 16  # of the grid that a hash is taken from
NOISE = 4.0  # grey levels between neighbours that say nothing
MAX_DIFFERENCE = 4.0  # mean difference in grey levels of copies
BAND_BYTES = 4  # of a hash that must agree before two images are compared
MIN_BAND_BITS = 8  # set in a band; one with fewer is nearly blank
MAX_PER_BAND = 20


@dataclass(frozen=True)
class NearDuplicates:
    """Items of two parts that look nearly the same, as pairs of ids."""

    first_part: str
    second_part: str
    pairs: list[tuple[str, str]]


def find_near_duplicates(parts: Mapping[str, Items]) -> Iterator[NearDuplicates]:
    """Images, uint8 [n, channels, h, w] of one size, that differ by a few grey levels, but not equal ones."""
    hashes = {name: compute_difference_hashes(items.inputs) for name, items in parts.items()}
    for first, second in combinations(parts, 2):
        pairs = []
        for row, other_row in _find_candidates(hashes[first], hashes[second]):
            image, other = (
                parts[name].inputs[index].astype(int) for name, index in ((first, row), (second, other_row))
            )
            if 0 < np.abs(image - other).mean() <= MAX_DIFFERENCE:
                pairs.append((str(parts[first].ids[row]), str(parts[second].ids[other_row])))
        if pairs:
            yield NearDuplicates(first, second, pairs)


def compute_thumbnails(images: Any) -> Float32s:
    """Mean grey levels of at most 16 x 16 fields, less the image's mean: float32 [n, fields]."""
    return np.concatenate([_compute_thumbnails(block) for block in read_blocks(images, ROWS_AT_ONCE)])


def _compute_thumbnails(images: NDArray[np.uint8]) -> Float32s:
    grey = images.mean(axis=1, dtype=np.float32)
    rows, columns = (
        np.linspace(0, side, min(SIDE, side), endpoint=False).astype(int) for side in grey.shape[1:]
    )
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=1), columns, axis=2)
    sizes = np.outer(np.diff([*rows, grey.shape[1]]), np.diff([*columns, grey.shape[2]]))
    fields = (sums / sizes).reshape(len(images), -1)
    return np.asarray(fields - fields.mean(axis=1, keepdims=True), dtype=np.float32)


def compute_difference_hashes(images: Any) -> NDArray[np.uint8]:
    """Bits that say which neighbour is brighter on a 16 x 16 grid: uint8 [n, 32], 256 bits an image.

    Equal for copies that were scaled or recompressed; images are uint8 [n, channels, h, w].
    """
    return np.concatenate([_compute_hashes(block) for block in read_blocks(images, ROWS_AT_ONCE)])


def _compute_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = images.mean(axis=1, dtype=np.float64)
    rows = np.linspace(0, grey.shape[1], SIDE, endpoint=False).astype(int)
    columns = np.linspace(0, grey.shape[2], SIDE + 1, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=1), columns, axis=2)
    sizes = np.outer(np.diff([*rows, grey.shape[1]]), np.diff([*columns, grey.shape[2]]))
    is_brighter = np.diff(sums / np.maximum(sizes, 1), axis=2) > NOISE
    return np.packbits(is_brighter.reshape(len(images), -1), axis=1)


def _find_candidates(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Rows of two sets of hashes that agree in one band of 32 bits at least; blank bands say nothing."""
    candidates: set[tuple[int, int]] = set()
    for start in range(0, first.shape[1], BAND_BYTES):
        rows_of: dict[bytes, list[int]] = defaultdict(list)
        for row, band in enumerate(first[:, start : start + BAND_BYTES]):
            if np.unpackbits(band).sum() >= MIN_BAND_BITS and len(rows_of[band.tobytes()]) < MAX_PER_BAND:
                rows_of[band.tobytes()].append(row)
        for row, band in enumerate(second[:, start : start + BAND_BYTES]):
            candidates.update((twin, row) for twin in rows_of.get(band.tobytes(), ()))
    return sorted(candidates)

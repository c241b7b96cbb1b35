"""What is in a data set, before anything is trained on it: sizes, duplicates, leakage, imbalance."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from api_schemas.config import DataConfig
from common.progress import Track, silent
from training.data.items import Splits
from training.data.load_data import Say, load_data

IMBALANCED = 10.0
NOISE = 4.0  # grey levels between neighbours that say nothing
ALIKE = 4.0  # mean difference in grey levels of copies
BAND = 4  # bytes of a hash that must agree before two images are compared
FEWEST_BITS = 8  # of a band; one with fewer is nearly blank
MOST_ALIKE = 20
NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing to know; ``warns`` when it is likely to spoil training or its figures."""

    sentence: str
    warns: bool = False


def check_data(data: DataConfig, track: Track = silent, say: Say = lambda _: None) -> list[Finding]:
    """Read a data set as training would and describe it.

    Raises:
        InputError: what training would refuse, in the same words.
    """
    splits = load_data(data, track, say)
    findings = [_sizes(splits), *(Finding(text, warns=True) for text in unmeasurable(splits, data))]
    findings += _imbalance(splits)
    findings += _duplicates(splits)
    if splits.preprocessing.kind == "image":
        findings += _near_duplicates(splits)
    return findings


def unmeasurable(splits: Splits, data: DataConfig) -> list[str]:
    """A sentence for each part that was asked for and got nothing, or nothing that can be measured."""
    found = []
    for name in ("validation", "test"):
        items, asked = splits.parts().get(name), getattr(data.split, name) > 0 or data.split.folds > 0
        if items is None and asked and data.split.by != "column":
            found.append(
                f"{name} got no items, though data.split asks for some: give more classes, or set "
                f"data.split.{name} to 0."
            )
        elif items is not None and not items.measurable:
            found.append(
                f"{name} has {len(items)} items of {items.n_classes} classes, which cannot be measured: at "
                "least two classes are needed, and two items of one."
            )
    return found


def _sizes(splits: Splits) -> Finding:
    shape = " x ".join(map(str, splits.preprocessing.shape))
    return Finding(f"{splits.sizes()}. Input: {splits.preprocessing.kind}, {shape}.")


def _imbalance(splits: Splits) -> Iterable[Finding]:
    for name, items in splits.parts().items():
        classes, counts = np.unique(items.labels, return_counts=True)
        low, middle, high = counts.min(), float(np.median(counts)), counts.max()
        if low == high:
            yield Finding(f"{name}: {low} items in every class.")
        else:
            yield Finding(
                f"{name}: {low} to {high} items a class, median {middle:g}, most in "
                f"'{classes[counts.argmax()]}'.",
                warns=high > IMBALANCED * middle,
            )
        single = int((counts == 1).sum())
        if single:
            yield Finding(
                f"{name}: {single} of {len(classes)} classes have one item, which no other can find.",
                warns=2 * single > len(classes),
            )


def _duplicates(splits: Splits) -> Iterable[Finding]:
    """Items whose prepared inputs are equal: within a class, of two classes, and across parts."""
    places: dict[bytes, list[tuple[str, str, str]]] = defaultdict(list)
    for name, items in splits.parts().items():
        for row in range(len(items)):
            key = hashlib.blake2b(np.ascontiguousarray(items.inputs[row]).data, digest_size=16).digest()
            places[key].append((name, str(items.labels[row]), str(items.ids[row])))
    groups = [group for group in places.values() if len(group) > 1]
    same = [group for group in groups if len({label for _, label, _ in group}) == 1]
    contradicting = [group for group in groups if len({label for _, label, _ in group}) > 1]
    leaking = [group for group in groups if len({part for part, _, _ in group}) > 1]
    for found, what in (
        (same, "are exact copies within their class"),
        (contradicting, "are the same input under two labels: no answer can be right for both"),
        (leaking, "are in two parts at once: figures on them prove nothing"),
    ):
        if found:
            yield Finding(_named(found, what), warns=found is not same)


def _near_duplicates(splits: Splits) -> Iterable[Finding]:
    """Images of different parts that differ by a few grey levels: scaled or recompressed copies."""
    parts = splits.parts()
    hashes = {name: difference_hashes(items.inputs) for name, items in parts.items()}
    for name, other in combinations(parts, 2):
        near: list[list[tuple[str, str, str]]] = []
        for first, second in _candidates(hashes[name], hashes[other]):
            a, b = parts[name].inputs[first].astype(int), parts[other].inputs[second].astype(int)
            if 0 < np.abs(a - b).mean() <= ALIKE:
                ids = str(parts[name].ids[first]), str(parts[other].ids[second])
                near.append([(name, "", ids[0]), (other, "", ids[1])])
        if near:
            yield Finding(_named(near, f"of {name} and {other} look nearly the same"), warns=True)


def _candidates(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Rows of two sets of hashes that agree in one band of 32 bits at least; blank bands say nothing."""
    found: set[tuple[int, int]] = set()
    for start in range(0, first.shape[1], BAND):
        where: dict[bytes, list[int]] = defaultdict(list)
        for row, band in enumerate(first[:, start : start + BAND]):
            if np.unpackbits(band).sum() >= FEWEST_BITS and len(where[band.tobytes()]) < MOST_ALIKE:
                where[band.tobytes()].append(row)
        for row, band in enumerate(second[:, start : start + BAND]):
            found.update((twin, row) for twin in where.get(band.tobytes(), ()))
    return sorted(found)


def difference_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Which neighbour is brighter on a 16 x 16 grid: uint8 [n, 32], 256 bits an image.

    Equal for copies that were scaled or recompressed; images are uint8 [n, channels, h, w].
    """
    grey = images.mean(axis=1, dtype=np.float64)
    rows = np.linspace(0, grey.shape[1], 16, endpoint=False).astype(int)
    columns = np.linspace(0, grey.shape[2], 17, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=1), columns, axis=2)
    sizes = np.outer(np.diff([*rows, grey.shape[1]]), np.diff([*columns, grey.shape[2]]))
    brighter = np.diff(sums / np.maximum(sizes, 1), axis=2) > NOISE
    return np.packbits(brighter.reshape(len(images), -1), axis=1)


def _named(groups: list[list[tuple[str, str, str]]], what: str) -> str:
    items = sum(len(group) for group in groups)
    examples = ", ".join(" = ".join(name for _, _, name in group[:3]) for group in groups[:NAMED])
    more = f" and {len(groups) - NAMED} more groups" if len(groups) > NAMED else ""
    return f"{items} items {what}: {examples}{more}."

"""The rows that every engine holds, the queries, and their true neighbours, in files that are mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

K = 10
QUERIES = 1_000
ITEMS_PER_CLASS = 20
VALUES = 10_000  # the metadata column ``value`` is uniform below this
RANGES = {"range 1 %": VALUES // 100, "range 10 %": VALUES // 10}
FILTERS = ("label", *RANGES)
SPREAD = 1.2
Condition = dict[str, Any]  # {"label": name}, or {"value": [low, high)} as a pair


@dataclass(frozen=True)
class Dataset:
    """Unit rows float32 [n, d] with a label and a value each, queries [q, d], true neighbours [q, K]."""

    rows: np.ndarray
    queries: np.ndarray
    labels: np.ndarray
    values: np.ndarray
    neighbours: np.ndarray

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return int(self.rows.shape[1])

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """What ``write_dataset`` wrote."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls.__dataclass_fields__))

    def draw_conditions(self, name: str, count: int) -> list[Condition]:
        """Conditions of one kind, each at a place of its own."""
        rng = np.random.default_rng(2)
        if name == "label":
            return [{"label": str(self.labels[row])} for row in rng.integers(0, len(self.rows), count)]
        width = RANGES[name]
        return [{"value": [int(low), int(low) + width]} for low in rng.integers(0, VALUES - width + 1, count)]

    def find_exact(self, query: np.ndarray, condition: Condition) -> set[int]:
        """The nearest rows of one query among those that the condition holds for."""
        if "label" in condition:
            chosen = np.flatnonzero(self.labels == condition["label"])
        else:
            low, high = condition["value"]
            chosen = np.flatnonzero((self.values >= low) & (self.values < high))
        best = np.argsort(-(self.rows[chosen] @ query), kind="stable")[:K]
        return set(chosen[best].tolist())


def write_dataset(folder: Path, items: int, dim: int, seed: int = 0) -> None:
    """Rows around items / 20 centres, ``unit(centre + 1.2 / sqrt(d) * normal)``; queries alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, items // ITEMS_PER_CLASS), dim)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    codes = np.concatenate([np.arange(items) % len(centres), rng.integers(0, len(centres), QUERIES)])
    rows = np.empty((len(codes), dim), dtype=np.float32)
    for start in range(0, len(codes), 65_536):
        part = slice(start, start + 65_536)
        noise = rng.normal(size=(len(codes[part]), dim), scale=SPREAD / dim**0.5)
        block = centres[codes[part]] + noise
        rows[part] = block / np.linalg.norm(block, axis=1, keepdims=True)
    base, queries = rows[:items], rows[items:]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "labels.npy", codes[:items].astype(np.str_))
    np.save(folder / "values.npy", rng.integers(0, VALUES, items))
    np.save(folder / "queries.npy", queries)
    np.save(folder / "neighbours.npy", _find_neighbours(base, queries))
    np.save(folder / "rows.npy", base)  # the last: what is here is whole


def _find_neighbours(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The K rows of the largest inner product with each query, best first."""
    found = []
    for start in range(0, len(queries), 100):
        products = queries[start : start + 100] @ rows.T
        best = np.argpartition(-products, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(products, best, axis=1), axis=1)
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)

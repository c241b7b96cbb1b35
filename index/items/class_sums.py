"""What a gallery knows of its classes as wholes: sums of their items, kept up item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.array_types import Float32s, Int32s, Int64s, UnitVectors
from common.progress import Track, silent
from decision.class_evidence import ClassModels, EvidenceScorer, PreparedClasses, from_fixed, to_fixed

NUMBERS_AT_ONCE = 1 << 22  # of rows, when all classes are summed


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums over the items of each class, in the fixed point of ``to_fixed``.

    They are whole numbers, so that items added and removed in any order give the bits of a fresh sum.

    Attributes:
        vectors: int64 [c, d], of unit rows.
        counts: int64 [c].
        densities: int64 [c] by key, of local densities.
    """

    vectors: Int64s
    counts: Int64s
    densities: Mapping[str, Int64s]
    _prepared: dict[str, PreparedClasses] = field(default_factory=dict, repr=False)

    @classmethod
    def zeros(cls, n: int, dim: int, keys: Sequence[str]) -> ClassSums:
        """The sums of classes without items."""
        densities = {key: np.zeros(n, dtype=np.int64) for key in keys}
        return cls(np.zeros((n, dim), dtype=np.int64), np.zeros(n, dtype=np.int64), densities)

    @classmethod
    def from_rows(
        cls,
        vectors: UnitVectors,
        codes: Int32s | Int64s,
        n_classes: int,
        densities: Mapping[str, Float32s],
        signs: Int64s | None = None,
        track: Track = silent,
    ) -> ClassSums:
        """The sums of items.

        Args:
            vectors: float32 [n, d] unit rows.
            codes: [n], the class of each.
            n_classes: how many classes there are.
            densities: float32 [n] by key.
            signs: int64 [n], -1 for an item that is taken away; all are added unless given.
        """
        n, dim = vectors.shape
        sums = cls.zeros(n_classes, dim, list(densities))
        order = np.argsort(codes, kind="stable")
        step = max(1, NUMBERS_AT_ONCE // dim)
        starts = range(0, n, step)
        for start in track(starts, "class sums", len(starts)):
            rows = order[start : start + step]
            of_rows = codes[rows]
            firsts = np.flatnonzero(np.diff(of_rows, prepend=-1))
            present = of_rows[firsts]
            weights = np.ones(len(rows), dtype=np.int64) if signs is None else signs[rows]
            fixed = to_fixed(vectors[rows])
            if signs is not None:
                fixed *= weights[:, None]
            sums.vectors[present] += np.add.reduceat(fixed, firsts, axis=0)
            sums.counts[present] += np.add.reduceat(weights, firsts)
            for key, values in densities.items():
                sums.densities[key][present] += np.add.reduceat(to_fixed(values[rows]) * weights, firsts)
        return sums

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, rows: Sequence[int] | Int64s | slice) -> ClassSums:
        """The classes at these positions."""
        densities = {key: values[rows] for key, values in self.densities.items()}
        return ClassSums(self.vectors[rows], self.counts[rows], densities)

    def add(self, other: ClassSums, sign: int = 1) -> ClassSums:
        """The sums with those of another, class by class, added or, by the sign, taken away."""
        densities = {key: values + sign * other.densities[key] for key, values in self.densities.items()}
        return ClassSums(self.vectors + sign * other.vectors, self.counts + sign * other.counts, densities)

    def to_models(self, density_key: str | None) -> ClassModels:
        """The classes as a score sees them; ``density_key`` names the densities of its cohort."""
        means = None
        if density_key is not None:
            means = from_fixed(self.densities[density_key]) / np.maximum(self.counts, 1)
        return ClassModels(from_fixed(self.vectors), self.counts, means)

    def prepare(self, scorer: EvidenceScorer) -> PreparedClasses:
        """What a score needs of each class, computed once."""
        prepared = self._prepared.get(scorer.key)
        if prepared is None:
            prepared = self._prepared[scorer.key] = scorer.prepare(self.to_models(scorer.density_key))
        return prepared


def concatenate_sums(parts: Sequence[ClassSums]) -> ClassSums:
    """The classes of all parts, one after the other."""
    keys = parts[0].densities
    return ClassSums(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.counts for part in parts]),
        {key: np.concatenate([part.densities[key] for part in parts]) for key in keys},
    )

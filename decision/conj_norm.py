"""The score kind ``conjnorm``: similarity corrected by a density under class prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import Score
from common.array_types import Float32s, Float64s, Texts, UnitVectors
from common.errors import InputError
from decision.scorers import CohortScorer, Densities

LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class ConjNormScorer(CohortScorer):
    """The similarity, and the log density of both items: ``slope s(a, b) - weight (g(a) + g(b)) / 2 + b``.

    ConjNorm (Peng et al., ICLR 2024, arXiv 2402.17888): ``g(x) = log sum_k e^{-D(x, m_k) / t} / Z_k``, m_k
    the mean of class k of the cohort, ``Z_k`` the mean of ``e^{-D / t}`` over all of the cohort: the estimate
    of the partition function by importance sampling. D is the Bregman divergence of ``|.|_q^2 / 2``, ``D(x,
    m) = |x|_q^2 / 2 - |m|_q^2 / 2 - <x - m, grad(m)>``, of vectors brought to p-norm 1, ``1/p + 1/q = 1``: p
    is the parameter ``norm``. Slope, weight and b make the log-odds of a match at prior 0.5.

    Reference implementation: leaves out the part of D that depends on m alone, which is constant for p = 2; a
    query with all classes is scored by g alone.
    """

    required = ("classes", "norm", "temperature", "weight", "slope", "intercept")

    @classmethod
    def _check_parameters(cls, score: Score) -> None:
        norm, temperature = (float(np.asarray(score.parameters[name])) for name in ("norm", "temperature"))
        if norm <= 1 or temperature <= 0:
            raise InputError("The norm of a conjnorm score must be above 1, its temperature above 0.")

    @classmethod
    def _check_size(cls, score: Score, n: int) -> None:
        if len(np.atleast_1d(score.parameters["classes"])) != n:
            raise InputError(f"A conjnorm score needs a class for each of its {n} cohort vectors.")

    def compute_densities(self, vectors: UnitVectors, labels: Texts | None = None) -> Float32s:
        """float32 [n]: g of each, by itself, so that it is the same whatever others there are."""
        slopes, offsets, shares = self._prototypes
        values = np.empty(len(vectors))
        for row, vector in enumerate(vectors):
            values[row] = _add_exponentials(self._diverge(vector, slopes, offsets) - shares)
        return values.astype(np.float32)

    def __call__(self, similarities: ArrayLike, a: Densities = None, b: Densities = None) -> Float32s:
        """float32 scores; computed in float64 and rounded once."""
        if a is None or b is None:
            raise TypeError("a conjnorm score needs the densities of both ends")
        density = (np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64)) / 2
        straight = np.asarray(similarities, dtype=np.float64) * self._get("slope")
        return np.asarray(straight - self._get("weight") * density + self._get("intercept"), dtype=np.float32)

    def list_contributions(
        self, similarities: ArrayLike, a: Densities = None, b: Densities = None
    ) -> dict[str, Float64s]:
        weight = self._get("weight")
        return {
            "similarity": np.asarray(similarities, dtype=np.float64) * self._get("slope"),
            "query_density": np.asarray(a, dtype=np.float64) * weight / -2,
            "item_density": np.asarray(b, dtype=np.float64) * weight / -2,
            "intercept": np.float64(self._get("intercept")),  # type: ignore[dict-item]
        }

    @cached_property
    def _prototypes(self) -> tuple[Float64s, Float64s, Float64s]:
        """Of each class's mean: gradients [k, d], what of -D does not depend on x [k], and log Z [k]."""
        codes = np.asarray(self.score.parameters["classes"], dtype=np.int64)
        items = self._normalise(self.cohort.astype(np.float64))
        sums = np.zeros((int(codes.max()) + 1, items.shape[1]))
        np.add.at(sums, codes, items)
        means = self._normalise(sums[np.bincount(codes) > 0])
        length = np.linalg.norm(means, ord=self._conjugate, axis=1, keepdims=True)
        powers = np.sign(means) * np.abs(means) ** (self._conjugate - 1)
        slopes = powers / np.maximum(length, LEAST) ** (self._conjugate - 2)
        offsets = length[:, 0] ** 2 / 2 - (means * slopes).sum(axis=1)
        of_items = np.stack([self._diverge(item, slopes, offsets) for item in self.cohort])
        top = of_items.max(axis=0)
        shares = top + np.log(np.exp(of_items - top).mean(axis=0))
        return slopes, offsets, shares

    def _diverge(self, vector: UnitVectors, slopes: Float64s, offsets: Float64s) -> Float64s:
        """``-D(x, m_k) / t`` of one vector, float64 [k]."""
        x = self._normalise(vector.astype(np.float64)[None])[0]
        own = float(np.linalg.norm(x, ord=self._conjugate)) ** 2 / 2
        return np.asarray((slopes @ x + offsets - own) / self._get("temperature"))

    def _normalise(self, vectors: Float64s) -> Float64s:
        length = np.linalg.norm(vectors, ord=self._get("norm"), axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(length, LEAST))

    @property
    def _conjugate(self) -> float:
        return 1 / (1 - 1 / self._get("norm"))

    def _get(self, name: str) -> float:
        return float(np.asarray(self.score.parameters[name]))


def _add_exponentials(values: Float64s) -> float:
    top = float(values.max())
    return top + float(np.log(np.exp(values - top).sum()))

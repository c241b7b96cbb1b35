"""The score kind ``evidence``: how well a query fits a whole class, not only its nearest item.

A gallery class is known by the sum of its unit rows and their number. With q the query and x_i the n items:

- ``best``: ``max_i q.x_i``, what a nearest match decides by;
- ``mean``: ``q . (sum_i x_i) / n``, one dot product with the class sum;
- ``tightness``: the mean similarity of two items of the class, ``(|sum_i x_i|^2 - n) / (n (n-1))``, shrunk
  towards the usual one as if by three more pairs; classes of one item have the usual one;
- ``query_density``, ``class_density``: mean similarity to the nearest items of a cohort, without those
  that carry the class's own label; of a class the mean over its items;
- ``plda``: the log-likelihood ratio of a two-covariance model (Prince & Elder 2007; Garcia-Romero &
  Espy-Wilson 2011): with g = b / (b + 1/n) and m the projected class mean, summed over dimensions,
  ``log N(q; g m, 1 + b - g b) - log N(q; 0, 1 + b)``.

Their weighted sum is the log-odds that the query belongs to the class, at prior 0.5. A form is the list of
features it weighs; the weights are fitted (``evaluation/calibration/fit_class_evidence.py``). The answer is
the class with the highest score.

A query that is a copy of an item (``best`` as ``are_copies`` has it) is of that item's class, however loose
the class is: its score is at least the parameter ``copy``, above which no threshold is calibrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from api_schemas.operating_point import Score
from common.array_types import Float32s, Float64s, Int64s, Texts, UnitVectors
from common.errors import InputError
from decision.class_arrays import ClassArrays, Plda
from decision.scorers import (
    CosineScorer,
    Densities,
    Scorer,
    check_cohort_hash,
    check_neighbours,
    compute_neighbour_means,
    iterate_neighbours,
    stretch_near_pole,
)
from embeddings.similarity import are_copies

FIXED_POINT = 2.0**40  # units of a sum: rows of length one, so that 2^23 items of a class fit
SHRINKAGE = 3.0  # pairs of usual tightness that a class's own is averaged with
FEATURES = ("best", "mean", "tightness", "query_density", "class_density", "plda")
FORMS: dict[str, tuple[str, ...]] = {
    "similarity": ("best", "mean", "tightness"),
    "similarity-density": ("best", "mean", "tightness", "query_density", "class_density"),
    "plda": ("plda",),
    "similarity-plda": ("best", "mean", "tightness", "plda"),
    "all": FEATURES,
}


def to_fixed(rows: NDArray[np.floating]) -> Int64s:
    """int64, the shape of ``rows``, in units of 2^-40: sums of them do not depend on their order."""
    return np.rint(np.asarray(rows, dtype=np.float64) * FIXED_POINT).astype(np.int64)


def from_fixed(sums: Int64s) -> Float64s:
    """float64 of sums of ``to_fixed``."""
    return sums / FIXED_POINT


class ClassModels(NamedTuple):
    """Gallery classes as a score sees them.

    Attributes:
        sums: float64 [c, d]: sums of unit rows.
        counts: int64 [c]: items.
        densities: float64 [c]: mean local density of a class's items; None for scores without.
    """

    sums: Float64s
    counts: Int64s
    densities: Float64s | None = None

    def select(self, rows: Int64s) -> ClassModels:
        """The classes at these positions."""
        densities = None if self.densities is None else self.densities[rows]
        return ClassModels(self.sums[rows], self.counts[rows], densities)


class PreparedClasses(NamedTuple):
    """What a score needs of each class; every row is computed from its own class alone.

    Attributes:
        means: float64 [c, d]: mean unit row.
        counts: int64 [c].
        tightness: float64 [c], shrunk.
        densities: float64 [c], or zeros.
        projected: float64 [c, k]: mean in the coordinates of the covariances; k is 0 for forms without.
    """

    means: Float64s
    counts: Int64s
    tightness: Float64s
    densities: Float64s
    projected: Float64s

    def select(self, rows: NDArray[np.integer]) -> PreparedClasses:
        """The classes at these positions."""
        return PreparedClasses(*(column[rows] for column in self))


class PldaTerms(NamedTuple):
    """Coefficients of the log-likelihood ratio for classes of n items and queries of v vectors, float64 [k].

    It is ``constant + sum(q (linear m) + q^2 square + m^2 own)`` with q and m projected.
    """

    linear: Float64s
    square: Float64s
    own: Float64s
    constant: float | Float64s


def compute_plda_terms(between: Float64s, count: int, vectors: int) -> PldaTerms:
    """The terms of classes with ``count`` items: b is ``between``, within-class variance is 1."""
    gain = between / (between + 1 / count)
    noise = 1 / vectors
    inside = noise + between - gain * between
    outside = noise + between
    return PldaTerms(
        linear=gain / inside,
        square=0.5 * (1 / outside - 1 / inside),
        own=-0.5 * gain**2 / inside,
        constant=float(0.5 * np.sum(np.log(outside) - np.log(inside))),
    )


@dataclass(frozen=True, eq=False)
class EvidenceScorer(Scorer):
    """Scores of queries with classes; with single items, as a nearest search orders them, the similarity.

    Attributes:
        cohort: float32 [n, d], for forms with densities.
        arrays: the covariances, and the classes of the cohort.
    """

    is_similarity: ClassVar[bool] = True
    score: Score
    cohort: UnitVectors | None = None
    arrays: ClassArrays = field(default_factory=ClassArrays)

    @classmethod
    def open(cls, score: Score, cohort: UnitVectors | None, class_arrays: ClassArrays | None = None) -> Self:
        """Check that form, weights, cohort and arrays belong together."""
        if score.form not in FORMS:
            raise InputError(
                f"An evidence score of the form '{score.form}' is not known; there are {', '.join(FORMS)}."
            )
        features = FORMS[score.form]
        has_density, has_plda = "query_density" in features, "plda" in features
        needed = {*features, "intercept", "usual_tightness", *(["neighbours"] if has_density else [])}
        missing = sorted(needed - set(score.parameters))
        if missing:
            raise InputError(f"An evidence score of the form {score.form} lacks {', '.join(missing)}.")
        if float(np.min(score.parameters.get("pole", 2.0))) <= 1:
            raise InputError("The pole of an evidence score must be above 1, the highest similarity.")
        arrays = class_arrays or ClassArrays()
        if (has_plda and arrays.plda is None) or (has_density and arrays.cohort_labels is None):
            raise InputError(f"An evidence score of the form {score.form} needs the arrays of its classes.")
        if (has_plda or has_density) and arrays.compute_hash() != score.class_model_sha256:
            raise InputError(
                f"The class model has hash {arrays.compute_hash()[:12]}, the score was fitted with "
                f"{str(score.class_model_sha256)[:12]}."
            )
        if not has_density:
            return cls(score, None, arrays)
        if cohort is None:
            raise InputError("An evidence score with densities needs its cohort of vectors; there is none.")
        check_cohort_hash(score, cohort)
        check_neighbours(score, len(cohort))
        assert arrays.cohort_labels is not None
        if len(np.unique(arrays.cohort_labels)) < 2:
            raise InputError("The cohort of an evidence score needs vectors of at least two classes.")
        if len(arrays.cohort_labels) != len(cohort):
            raise InputError(f"{len(cohort)} vectors of the cohort have {len(arrays.cohort_labels)} labels.")
        return cls(score, cohort, arrays)

    @cached_property
    def key(self) -> str:
        """The key under which a gallery keeps what this score needs of its classes."""
        return hashlib.sha256(self.score.model_dump_json().encode()).hexdigest()[:16]

    # -- single items ---------------------------------------------------------------------------------
    def __call__(self, similarities: ArrayLike, a: Densities = None, b: Densities = None) -> Float32s:
        """The similarity: items of a class are proposed by it."""
        return CosineScorer()(similarities)

    @cached_property
    def density_key(self) -> str | None:
        """The key of this cohort and this number of neighbours; None for forms without densities."""
        if not self.has_densities:
            return None
        parts = f"{self.score.cohort_sha256} {self.score.class_model_sha256} {self._neighbours}"
        return "evidence-" + hashlib.sha256(parts.encode()).hexdigest()[:16]

    @property
    def has_densities(self) -> bool:
        """Whether the form weighs densities."""
        return "query_density" in self.features

    def compute_densities(self, vectors: UnitVectors, labels: Texts | None = None) -> Float32s:
        """float32 [n] mean similarities to the nearest cohort items; zeros for forms without.

        Items of the cohort with an item's own label are left out, so that a class that the cohort holds is
        no denser for it.
        """
        if not self.has_densities:
            return np.zeros(len(vectors), dtype=np.float32)
        own = None if labels is None else self.find_cohort_codes(labels)
        return self._compute_densities(vectors, own)

    def compute_trial_densities(
        self, queries: UnitVectors, query: Int64s, labels: Sequence[str] | Texts
    ) -> Float32s:
        """float32 [m]: the density of the query of each trial, without the cohort's items of its class.

        ``query`` are rows of ``queries``, ``labels`` the classes, [m] each.
        """
        if not self.has_densities:
            return np.zeros(len(query), dtype=np.float32)
        assert self.cohort is not None
        own, codes = self.find_cohort_codes(np.asarray(labels, dtype=np.str_)), self._cohort_classes[1]
        # so many of the nearest hold enough of other classes, whatever class is left out
        left_out = self._cohort_sizes[own[own >= 0]].max(initial=0)
        wanted = min(self._neighbours + int(left_out), len(codes))
        densities, order = np.empty(len(query), dtype=np.float32), np.argsort(query, kind="stable")
        distinct, starts = np.unique(query[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        neighbours = iterate_neighbours(queries[distinct], self.cohort, wanted)
        for (near, similarities), start, end in zip(neighbours, starts.tolist(), ends, strict=True):
            trials = order[start:end]
            kept = codes[near] != own[trials, None]
            places = np.cumsum(kept, axis=1)
            counted = np.where(kept & (places <= self._neighbours), similarities, 0.0)
            # a running sum, as over the neighbours alone, so that it has the same bits
            sums = np.cumsum(counted, axis=1)[:, -1]
            densities[trials] = sums / np.minimum(places[:, -1], self._neighbours)
        return densities

    def describe_cohort(self) -> tuple[UnitVectors, Int64s, int]:
        """The cohort's vectors, the code of each one's class, and how many neighbours are averaged."""
        assert self.cohort is not None
        return self.cohort, self._cohort_classes[1], self._neighbours

    def find_cohort_codes(self, labels: Texts) -> Int64s:
        """int64 [n]: which class of the cohort each label is; -1 for none."""
        classes = self._cohort_classes[0]
        codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
        return np.where(classes[codes] == labels, codes, -1).astype(np.int64)

    def _compute_densities(self, vectors: UnitVectors, own: Int64s | None) -> Float32s:
        assert self.cohort is not None
        means = compute_neighbour_means(
            vectors, self.cohort, [self._neighbours], own, self._cohort_classes[1]
        )
        return means[:, 0].astype(np.float32)

    # -- classes ----------------------------------------------------------------------------------------
    def prepare(self, models: ClassModels, *, exact: bool = True) -> PreparedClasses:
        """What is per class alone; a class's row is the same bits whatever others it is computed with.

        Faster, and equal but for rounding, where it need not be ``exact``.
        """
        counts = models.counts.astype(np.float64)
        squares = np.add.reduce(models.sums * models.sums, axis=1)
        own = (squares - counts) / np.maximum(counts * (counts - 1), 1.0)
        usual = self._get("usual_tightness")
        tightness = (np.where(counts > 1, counts * own, 0.0) + SHRINKAGE * usual) / (
            np.where(counts > 1, counts, 0.0) + SHRINKAGE
        )
        means = models.sums / counts[:, None]
        densities = models.densities
        if densities is None:
            if self.has_densities:
                raise TypeError("this form needs the mean densities of classes")
            densities = np.zeros(len(counts))
        return PreparedClasses(
            means,
            models.counts,
            tightness,
            np.asarray(densities, dtype=np.float64),
            self.project(means, exact=exact),
        )

    def project(self, rows: NDArray[np.floating], *, exact: bool = True) -> Float64s:
        """float64 [n, k]: rows in the coordinates of the covariances, each computed by itself if exact."""
        plda = self.plda
        if plda is None:
            return np.zeros((len(rows), 0))
        if not exact:
            return np.asarray((rows - plda.mean) @ plda.projection)
        projected = np.empty((len(rows), len(plda.between)))
        for number, row in enumerate(np.asarray(rows, dtype=np.float64)):
            np.einsum("kd,d->k", self._axes, row - plda.mean, out=projected[number])
        return projected

    def score_trials(
        self,
        queries: NDArray[np.floating],
        query: Int64s,
        best: NDArray[np.floating],
        prepared: PreparedClasses,
        klass: Int64s,
        densities: NDArray[np.floating] | None = None,
        vectors: int = 1,
        projected: Float64s | None = None,
    ) -> Float32s:
        """float32 [m] scores of trials; each is the same bits whatever others it is computed with.

        Args:
            queries: [q, d]: unit rows, or means of the unit rows of queries of several vectors.
            query, klass: int64 [m]: the rows of ``queries`` and of ``prepared`` of each trial.
            best: [m]: similarity of the query with the nearest item of the class, or the mean of those of
                its vectors.
            densities: [m], of ``compute_trial_densities``, or their means; for forms that have them.
            vectors: how many vectors each query has.
            projected: float64 [q, k], of ``project(queries)``, where it is known already.
        """
        features = self.compute_features(queries, query, best, prepared, klass, densities, vectors, projected)
        return self.combine(features)

    def compute_features(
        self,
        queries: NDArray[np.floating],
        query: Int64s,
        best: NDArray[np.floating],
        prepared: PreparedClasses,
        klass: Int64s,
        densities: NDArray[np.floating] | None = None,
        vectors: int = 1,
        projected: Float64s | None = None,
    ) -> dict[str, Float64s]:
        """float64 [m] by name: what the form weighs of each trial; arguments as of ``score_trials``."""
        features: dict[str, Float64s] = {"best": np.asarray(best, dtype=np.float64)}
        is_one = len(queries) == 1  # broadcast then
        if "mean" in self.features:
            own = queries if is_one else queries[query]
            products = np.multiply(own, prepared.means[klass], dtype=np.float64)
            features["mean"] = np.add.reduce(products, axis=1)
        features["tightness"] = prepared.tightness[klass]
        if self.has_densities:
            if densities is None:
                raise TypeError("this form needs the densities of queries")
            features["query_density"] = np.asarray(densities, dtype=np.float64)
            features["class_density"] = prepared.densities[klass]
        if self.plda is not None:
            known = self.project(queries) if projected is None else projected
            features["plda"] = self._compute_ratios(
                known if is_one else known[query], prepared.projected[klass], prepared.counts[klass], vectors
            )
        return features

    def _compute_ratios(self, query: Float64s, mean: Float64s, counts: Int64s, vectors: int) -> Float64s:
        first = counts[0]
        if len(counts) == 1 or (counts == first).all():
            terms = self.get_plda_terms(int(first), vectors)
        else:
            terms = self._get_terms_of_each(counts, vectors)
        inner = query * (mean * terms.linear + query * terms.square) + mean * mean * terms.own
        return np.asarray(np.add.reduce(inner, axis=1) + terms.constant)

    def _get_terms_of_each(self, counts: Int64s, vectors: int) -> PldaTerms:
        """The terms of classes with ``counts`` [m] items: float64 [m, k], constants [m]."""
        known, table = self._tables.get(vectors, (np.empty(0, dtype=np.int64), None))
        rows = np.minimum(np.searchsorted(known, counts), len(known) - 1)
        if table is None or (known[rows] != counts).any():
            known = np.union1d(known, counts)
            terms = [self.get_plda_terms(count, vectors) for count in known.tolist()]
            table = PldaTerms(*(np.array(column) for column in zip(*terms, strict=True)))
            self._tables[vectors] = known, table
            rows = np.searchsorted(known, counts)
        constants = np.asarray(table.constant)[rows]
        return PldaTerms(table.linear[rows], table.square[rows], table.own[rows], constants)

    def get_plda_terms(self, count: int, vectors: int = 1) -> PldaTerms:
        """The terms of classes of ``count`` items, computed once."""
        assert self.plda is not None
        known = self._terms.get((count, vectors))
        if known is None:
            known = self._terms[count, vectors] = compute_plda_terms(self.plda.between, count, vectors)
        return known

    def combine(self, features: dict[str, Float64s]) -> Float32s:
        """float32: the log-odds from the features, all of one shape or broadcast to it, rounded once."""
        total: Float64s = self.intercept
        for name in self.features:
            total = total + self.weigh(name, features[name])
        return np.asarray(self.raise_copies(total, features["best"]), dtype=np.float32)

    def raise_copies(self, total: Float64s, best: Float64s) -> Float64s:
        """The log-odds, at least ``least_of_copies`` where the query is a copy of the nearest item."""
        if self.least_of_copies is None:
            return total
        is_copy = are_copies(best)
        return np.where(is_copy, np.maximum(total, self.least_of_copies), total) if is_copy.any() else total

    def weigh(self, name: str, values: Float64s) -> Float64s:
        """What a feature of these values adds to the log-odds."""
        if self._pole is not None and name != "plda":
            values = stretch_near_pole(values, self._pole)
        return self._weights[name] * values

    # -- parameters ------------------------------------------------------------------------------------
    @cached_property
    def least_of_copies(self) -> float | None:
        """The least score of a query with the class of an item that it is a copy of; None in older points."""
        return self._get("copy") if "copy" in self.score.parameters else None

    @cached_property
    def intercept(self) -> Float64s:
        return np.asarray(self._get("intercept"), dtype=np.float64)

    @cached_property
    def _weights(self) -> dict[str, float]:
        return {name: self._get(name) for name in self.features}

    @cached_property
    def _tables(self) -> dict[int, tuple[Int64s, PldaTerms]]:
        """By the number of vectors: counts of items, ascending, and the terms of each."""
        return {}

    @cached_property
    def _terms(self) -> dict[tuple[int, int], PldaTerms]:
        return {}

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The features that the form weighs."""
        return FORMS[str(self.score.form)]

    @cached_property
    def _cohort_classes(self) -> tuple[Texts, Int64s]:
        """The distinct classes of the cohort, and the code of each of its vectors."""
        assert self.arrays.cohort_labels is not None
        classes, codes = np.unique(self.arrays.cohort_labels, return_inverse=True)
        return classes, codes.astype(np.int64)

    @cached_property
    def _cohort_sizes(self) -> Int64s:
        """int64, the number of vectors of each class of the cohort."""
        return np.bincount(self._cohort_classes[1])

    @cached_property
    def plda(self) -> Plda | None:
        """The covariances, for forms that need them."""
        return self.arrays.plda if "plda" in self.features else None

    @cached_property
    def _axes(self) -> Float64s:
        """float64 [k, d]: the projection, an axis a contiguous row."""
        assert self.plda is not None
        return np.ascontiguousarray(self.plda.projection.T)

    @cached_property
    def _neighbours(self) -> int:
        return int(np.max(self.score.parameters["neighbours"]))

    @cached_property
    def _pole(self) -> float | None:
        return self._get("pole") if "pole" in self.score.parameters else None

    def _get(self, name: str) -> float:
        return float(np.max(self.score.parameters[name]))

"""Features of every query with every class of a gallery, as matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Float64s, Int64s, UnitVectors
from common.progress import Track, silent
from decision.class_evidence import ClassModels, EvidenceScorer, PreparedClasses
from evaluation.pairs.ordered_items import OrderedItems
from evaluation.pairs.pairs import Pairs

CELLS = 2**22  # similarities in memory at a time
Floats = TypeVar("Floats", bound=NDArray[Any])


@dataclass(frozen=True, eq=False)
class ExcludedItems:
    """Trials of which items are left out, as of a query's own class the query itself.

    Attributes:
        query, column: int64 [t]: row of the strip and class of each trial.
        models: of the classes without these items; classes that nothing is left of have a count of 0.
    """

    query: Int64s
    column: Int64s
    models: ClassModels


@dataclass(frozen=True, eq=False)
class FeatureStrip:
    """What rows of queries have in common with every class of the gallery.

    Attributes:
        rows: of ``pairs.a``.
        vectors: float32 [m, d].
        best: float64 [m, classes], without the items that are left out; -inf where none is left.
        excluded: the trials of which items are left out.
    """

    rows: slice
    vectors: UnitVectors
    best: Float64s
    excluded: ExcludedItems

    def combine(self, n: int) -> FeatureStrip:
        """The strip of queries of ``n`` vectors, consecutive rows that leave out the same: their means."""
        if n == 1:
            return self
        left = self.excluded
        chosen = np.flatnonzero(left.query % n == 0)
        return FeatureStrip(
            rows=slice(self.rows.start // n, self.rows.stop // n),
            vectors=average_rows(self.vectors, n),
            best=average_rows(self.best, n),
            excluded=ExcludedItems(left.query[chosen] // n, left.column[chosen], left.models.select(chosen)),
        )


def average_rows(values: Floats, n: int) -> Floats:
    """[t, ...]: the mean of each ``n`` consecutive rows of [t * n, ...], in float64 and rounded once."""
    means = values.reshape(-1, n, *values.shape[1:]).mean(axis=1, dtype=np.float64)
    rounded: Floats = means.astype(values.dtype)
    return rounded


@dataclass(frozen=True, eq=False)
class GalleryClasses:
    """The classes of the gallery of some pairs that have items, in the order of their codes.

    Attributes:
        codes: int64 [c]: of each class among the classes of the pairs.
        densities: float64 [items] of the gallery's items, for scores that have them.
    """

    items: OrderedItems
    codes: Int64s
    models: ClassModels
    densities: Float64s | None

    @classmethod
    def measure(cls, pairs: Pairs, scorer: EvidenceScorer) -> GalleryClasses:
        """Sums over the gallery's items; densities as the scorer has them."""
        items = pairs.b
        codes = np.flatnonzero(items.sizes)
        starts, counts = items.starts[codes], items.sizes[codes]
        densities = None
        if scorer.has_densities:
            labels = pairs.classes[items.codes]
            densities = scorer.compute_densities(items.vectors, labels).astype(np.float64)
        models = ClassModels(
            np.add.reduceat(items.vectors, starts, axis=0, dtype=np.float64),
            counts,
            None if densities is None else np.add.reduceat(densities, starts) / counts,
        )
        return cls(items, codes, models, densities)

    def iterate_strips(
        self, pairs: Pairs, name: str, track: Track = silent, vectors: int = 1
    ) -> Iterator[FeatureStrip]:
        """Strips of queries with their best similarities and with what is left out.

        Queries of several ``vectors``, that many consecutive rows, are never cut.
        """
        numbers = np.full(len(pairs.classes), -1, dtype=np.int64)
        numbers[self.codes] = np.arange(len(self.codes))
        height = vectors * max(1, CELLS // max(1, vectors * len(pairs.b)))
        strips = [slice(first, min(first + height, len(pairs.a))) for first in range(0, len(pairs.a), height)]
        everything = slice(0, len(pairs.b))
        for rows in track(strips, name, len(strips)):
            scores = pairs.score_block(rows, everything).similarities
            query, item = np.nonzero(pairs.mask_left_out(rows))
            if len(query):
                scores = scores.copy()
                scores[query, item] = -np.inf
            yield FeatureStrip(
                rows=rows,
                vectors=pairs.a.vectors[rows],
                best=np.maximum.reduceat(scores, self.items.starts[self.codes], axis=1).astype(np.float64),
                excluded=self._leave_out(query, item, numbers[self.items.codes[item]]),
            )

    def _leave_out(self, query: Int64s, item: Int64s, column: Int64s) -> ExcludedItems:
        """Classes without some items, one for each pair of a query and a class that loses any."""
        keys, trial = np.unique(query * len(self.codes) + column, return_inverse=True)
        of_query, of_column = keys // len(self.codes), keys % len(self.codes)
        sums, counts = self.models.sums[of_column], self.models.counts[of_column]
        np.subtract.at(sums, trial, self.items.vectors[item].astype(np.float64))
        left = counts - np.bincount(trial, minlength=len(keys))
        densities = None
        if self.densities is not None and self.models.densities is not None:
            total = self.models.densities[of_column] * counts
            total -= np.bincount(trial, self.densities[item], minlength=len(keys))
            densities = total / np.maximum(left, 1)
        return ExcludedItems(of_query, of_column, ClassModels(sums, left, densities))


def compute_query_densities(
    pairs: Pairs, strip: FeatureStrip, gallery: GalleryClasses, scorer: EvidenceScorer
) -> Float64s:
    """float64 [m, classes]: each query's density, for every class without the cohort's items of it."""
    plain = scorer.compute_densities(strip.vectors).astype(np.float64)
    densities = np.repeat(plain[:, None], strip.best.shape[1], axis=1)
    codes = scorer.find_cohort_codes(pairs.classes[gallery.codes])
    present = np.flatnonzero(codes >= 0)
    if not len(present):
        return densities
    cohort, of_cohort, wanted = scorer.describe_cohort()
    most = int(np.bincount(of_cohort).max())
    top = min(wanted + most, len(cohort))
    similarities = strip.vectors @ cohort.T
    nearest = np.argpartition(-similarities, top - 1, axis=1)[:, :top]
    near = np.take_along_axis(similarities, nearest, axis=1).astype(np.float64)
    order = np.argsort(-near, axis=1, kind="stable")
    near, of_near = np.take_along_axis(near, order, axis=1), of_cohort[np.take_along_axis(nearest, order, 1)]
    for column in present:
        own = of_near == codes[column]
        rows = np.flatnonzero(own[:, :wanted].any(axis=1))
        kept = ~own[rows]
        kept &= np.cumsum(kept, axis=1) <= wanted
        densities[rows, column] = (near[rows] * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
    return densities


def compute_ratios(
    scorer: EvidenceScorer, projected: Float64s, prepared: PreparedClasses, vectors: int = 1
) -> Float64s:
    """float64 [m, classes]: the log-likelihood ratio of every projected query, [m, k], with every class."""
    ratios = np.empty((len(projected), len(prepared.counts)))
    squares = projected * projected
    for count in np.unique(prepared.counts):
        columns = np.flatnonzero(prepared.counts == count)
        terms, means = scorer.get_plda_terms(int(count), vectors), prepared.projected[columns]
        of_query = squares @ terms.square + terms.constant
        of_class = (means * means) @ terms.own
        ratios[:, columns] = projected @ (means * terms.linear).T + of_query[:, None] + of_class[None, :]
    return ratios


def score_cells(
    strip: FeatureStrip,
    scorer: EvidenceScorer,
    prepared: PreparedClasses,
    densities: Float64s | None,
    rows: Int64s,
    columns: Int64s,
    vectors: int = 1,
) -> Float32s:
    """float32 [rows, columns]: the scores of some queries of a strip with some classes; -inf where no item of
    the class is left.

    ``prepared`` are all classes of the gallery, ``densities`` those of ``compute_query_densities``; each
    query is the mean of so many ``vectors``.
    """
    cells = np.ix_(rows, columns)
    queries, of_columns = strip.vectors[rows], prepared.select(columns)
    projected = scorer.project(queries, exact=False)
    finite = np.isfinite(strip.best[cells])
    features = {
        "best": np.where(finite, strip.best[cells], 0.0),
        "tightness": of_columns.tightness[None, :],
        "class_density": of_columns.densities[None, :],
    }
    if "mean" in scorer.features:
        features["mean"] = queries.astype(np.float64) @ of_columns.means.T
    if densities is not None:
        features["query_density"] = densities[cells]
    if scorer.plda is not None:
        features["plda"] = compute_ratios(scorer, projected, of_columns, vectors)
    scores = np.where(finite, scorer.combine(features), np.float32(-np.inf)).astype(np.float32)
    left = strip.excluded
    row_of, column_of = (np.full(n, -1, dtype=np.int64) for n in strip.best.shape)
    row_of[rows], column_of[columns] = np.arange(len(rows)), np.arange(len(columns))
    query, column = row_of[left.query], column_of[left.column]
    some = np.flatnonzero((left.models.counts > 0) & (query >= 0) & (column >= 0))
    if len(some):
        at = left.query[some], left.column[some]
        scores[query[some], column[some]] = scorer.score_trials(
            queries,
            query[some],
            strip.best[at],
            scorer.prepare(left.models.select(some), exact=False),
            np.arange(len(some)),
            None if densities is None else densities[at],
            vectors=vectors,
            projected=projected,
        )
    return scores

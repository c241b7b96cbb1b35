"""What the rules of a 1:N search share: from a query and the k nearest items to classes with scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from common.array_types import Bools, Float32s, Int64s, RowIndices, UnitVectors
from decision.decider import Decider
from index.search.gallery_view import GalleryView, SearchHit, sort_by_score
from index.search.generation import Generation
from index.search.rescoring import compute_similarities


class Members(NamedTuple):
    """Every item of some classes that counts for a query.

    Attributes:
        classes: int64 [m], the position of each item's class.
        similarities: float32 [v, m], with each vector of the query.
        densities: float32 [m], local densities; None for scores without.
    """

    classes: Int64s
    similarities: Float32s
    densities: Float32s | None


@dataclass(frozen=True)
class MatchRule(ABC):
    """A rule, applied to one view.

    Attributes:
        reads_whole_classes: it takes longer than a plain search.
        condition: only items it holds for count.
        exclude_ids: for each query an id that does not count.
        n_best: how many of the best classes are wanted.
    """

    reads_whole_classes: ClassVar[bool] = False
    view: GalleryView
    decider: Decider
    condition: Mapping[str, Any] | None = None
    exclude_ids: Sequence[str | None] | None = None
    n_best: int = 2

    @abstractmethod
    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        """The hits of each query [q, d] from the k nearest items, best score first, ties by id.

        The first decides, and its margin is to the first of another label.
        """

    @abstractmethod
    def score_together(
        self, vectors: UnitVectors, labels: list[str], members: Members, excluded: str | None
    ) -> Float32s:
        """float32 [c]: the scores of classes with one query of several vectors [v, d]."""

    def propose_together(self, vectors: UnitVectors, sizes: Sequence[int], k: int) -> list[list[SearchHit]]:
        """The hits of queries of several vectors each, which are consecutive rows of ``vectors``.

        Candidates are the classes of the k nearest items of any of its vectors, each with all of its
        items; a class is named by the item that is the most similar to any of them.
        """
        exclude_ids = self.exclude_ids or [None] * len(sizes)
        of_vectors = None
        if self.exclude_ids is not None:
            repeated = zip(exclude_ids, sizes, strict=True)
            of_vectors = [item_id for item_id, size in repeated for _ in range(size)]
        results = self.view.search(
            vectors, k, decider=self.decider, condition=self.condition, exclude_ids=of_vectors
        )
        proposed = []
        for excluded, (start, end) in zip(exclude_ids, pairwise([0, *np.cumsum(sizes)]), strict=True):
            near = sorted(
                (hit for hits in results[start:end] for hit in hits),
                key=lambda hit: (-hit.similarity, hit.id),
            )
            nearest = {hit.label: hit for hit in reversed(near)}
            labels, own = sorted(nearest), vectors[start:end]
            scores = np.empty(0, dtype=np.float32)
            if labels:
                members = self._find_members(own, labels, excluded)
                scores = self.score_together(own, labels, members, excluded)
            scored = zip(labels, scores.tolist(), strict=True)
            proposed.append(sort_by_score(nearest[label]._replace(score=score) for label, score in scored))
        return proposed

    def _search(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        return self.view.search(
            queries, k, decider=self.decider, condition=self.condition, exclude_ids=self.exclude_ids
        )

    def _find_members(self, vectors: UnitVectors, labels: list[str], excluded: str | None) -> Members:
        """The items of classes that count, and their similarities with the vectors of one query."""
        key = self.decider.scorer.density_key
        found = []
        for part, counting in self.counting_rows:
            rows, classes = select_members(part, labels, counting, excluded)
            near = [compute_similarities(part.vectors, vector[None], rows, rows) for vector in vectors]
            densities = np.empty(0, np.float32) if key is None else part.items.densities[key][rows]
            found.append((classes, np.stack(near), densities))
        classes, similarities, densities = (
            np.concatenate(column, axis=-1) for column in zip(*found, strict=True)
        )
        return Members(classes, similarities, None if key is None else densities)

    def _score_members(self, vectors: UnitVectors, members: Members) -> Float32s:
        """float32 [v, m]: the score of each vector with each item."""
        scorer = self.decider.scorer
        own = None if members.densities is None else scorer.compute_densities(vectors)[:, None]
        return scorer(members.similarities, own, members.densities)

    @cached_property
    def counting_rows(self) -> list[tuple[Generation, Bools | None]]:
        return self.view.select_counting(self.condition)


def select_members(
    part: Generation, labels: Sequence[str], counting: Bools | None, excluded: str | None = None
) -> tuple[RowIndices, Int64s]:
    """The rows of classes, int64 [m], and for each the position of its class among ``labels``."""
    items = part.items
    codes = (items.get_code(label) for label in labels)
    groups = [
        np.empty(0, dtype=np.int64) if code is None else items.get_rows_of_class(code) for code in codes
    ]
    rows = np.concatenate(groups)
    classes = np.repeat(np.arange(len(labels)), [len(group) for group in groups])
    kept = np.ones(len(rows), dtype=bool) if counting is None else counting[rows]
    row = None if excluded is None else items.get_row(excluded)
    if row is not None:
        kept = kept & (rows != row)
    return rows[kept], classes[kept]


def find_best_of_classes(scores: Float32s, classes: Int64s, n: int) -> Float32s:
    """float32 [v, n]: the highest of the scores [v, m] of each class's items, whose ``classes`` are [m]."""
    best = np.full((len(scores), n), -np.inf, dtype=np.float32)
    for row, values in zip(best, scores, strict=True):
        np.maximum.at(row, classes, values)
    return best

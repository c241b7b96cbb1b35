"""What the rules of a 1:N search share: from a query and the k nearest items to classes with scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from common.array_types import Bools, Float32s, Float64s, Int64s, RowIndices, UnitVectors
from decision.decider import Decider, MatchExplanation, ScorePart
from index.search.gallery_view import GalleryView, SearchHit, sort_by_score
from index.search.generation import Generation
from index.search.rescoring import compute_similarities

ROWS_AT_ONCE = 8_192


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

    @abstractmethod
    def list_parts(
        self, vectors: UnitVectors, label: str, members: Members, excluded: str | None
    ) -> dict[str, tuple[float, float]]:
        """By name, what the score of a class with a query's vectors [v, d] is made of: value, contribution.

        The contributions add up to the score; the ``intercept`` is among them.
        """

    def explain(self, vectors: UnitVectors, label: str, excluded: str | None) -> MatchExplanation:
        """Why a class has the score that it has with the vectors [v, d] of one query."""
        members = self._find_members(vectors, [label], excluded)
        parts = self.list_parts(vectors, label, members, excluded)
        intercept = parts.pop("intercept", (0.0, 0.0))[1]
        near = members.similarities.astype(np.float64)
        return MatchExplanation(
            label=label,
            items=near.shape[1],
            best=float(near.max(axis=1).mean()),
            mean=float(near.mean()),
            tightness=self._compute_tightness(label, excluded),
            intercept=intercept,
            parts=tuple(ScorePart(name, *of_part) for name, of_part in parts.items()),
        )

    def _compute_tightness(self, label: str, excluded: str | None) -> float | None:
        """The mean similarity of two items of a class that count; None for one item."""
        selected = [
            (part, select_members(part, [label], counting, excluded)[0])
            for part, counting in self.counting_rows
        ]
        return compute_tightness([(part, rows) for part, rows in selected])

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

    def _list_contributions(self, vectors: UnitVectors, members: Members) -> dict[str, Float64s]:
        """float64 [v, m] by name: what each vector's score with each item is made of."""
        scorer, shape = self.decider.scorer, members.similarities.shape
        own = None if members.densities is None else scorer.compute_densities(vectors)[:, None]
        parts = scorer.list_contributions(members.similarities, own, members.densities)
        return {name: np.broadcast_to(values, shape) for name, values in parts.items()}

    @cached_property
    def counting_rows(self) -> list[tuple[Generation, Bools | None]]:
        return self.view.select_counting(self.condition)


def compute_tightness(parts: Sequence[tuple[Generation, RowIndices]]) -> float | None:
    """The mean similarity of two different items of all of these rows; None for fewer than two.

    ``(|sum_i x_i|^2 - n) / (n (n - 1))``, as the evidence of a class has it, but not shrunk.
    """
    n = sum(len(rows) for _, rows in parts)
    if n < 2:
        return None
    blocks = (
        part.vectors[rows[start : start + ROWS_AT_ONCE]]
        for part, rows in parts
        for start in range(0, len(rows), ROWS_AT_ONCE)
    )
    total = sum(block.sum(axis=0, dtype=np.float64) for block in blocks)
    return float((np.dot(total, total) - n) / (n * (n - 1)))


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

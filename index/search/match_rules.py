"""The rules of a 1:N search: how the items of a class make one score. A rule is one class and one line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from api_schemas.operating_point import Aggregate
from common.array_types import Float32s, Float64s, UnitVectors
from embeddings.similarity import are_copies
from index.search.evidence_of_class import EvidenceOfClass
from index.search.gallery_view import SearchHit, sort_by_score
from index.search.match_rule import MatchRule, Members, find_best_of_classes


class NearestItem(MatchRule):
    """A class scores as the best of its items."""

    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        results = self._search(queries, k)
        return results if self.decider.scorer.is_similarity else [sort_by_score(hits) for hits in results]

    def score_together(
        self, vectors: UnitVectors, labels: list[str], members: Members, excluded: str | None
    ) -> Float32s:
        """The mean over the vectors of the best item's score."""
        scores = self._score_members(vectors, members)
        best = find_best_of_classes(scores, members.classes, len(labels))
        return np.asarray(best.mean(axis=0, dtype=np.float64), dtype=np.float32)

    def list_parts(
        self, vectors: UnitVectors, label: str, members: Members, excluded: str | None
    ) -> dict[str, tuple[float, float]]:
        """The addends of the best item's score, their means over the vectors."""
        chosen = self._score_members(vectors, members).argmax(axis=1)
        parts = self._list_contributions(vectors, members)
        every = np.arange(len(vectors))
        near = members.similarities[every, chosen].mean(dtype=np.float64)
        return _name_parts(parts, "best", float(near), lambda values: float(values[every, chosen].mean()))


class MeanOfClass(MatchRule):
    """A class scores as the mean of all its items, exact over every live item that the condition holds for.

    With a query that is a copy of an item its class scores as that item alone, however loose the class is. A
    class none of whose items is among the k nearest is no candidate.
    """

    reads_whole_classes = True

    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        """For each class among the k nearest items its nearest item, scored as the mean of the class."""
        return self.propose_together(queries, [1] * len(queries), k)

    def score_together(
        self, vectors: UnitVectors, labels: list[str], members: Members, excluded: str | None
    ) -> Float32s:
        """The mean over the vectors of the mean over the items, or of the copy's score."""
        scores = self._score_members(vectors, members)
        counts = np.bincount(members.classes, minlength=len(labels))
        sums = np.bincount(members.classes, scores.mean(axis=0, dtype=np.float64), minlength=len(labels))
        vector, item = np.nonzero(are_copies(members.similarities))
        if not len(item):
            return np.asarray(sums / counts, dtype=np.float32)
        means = (
            np.stack([np.bincount(members.classes, row, minlength=len(labels)) for row in scores]) / counts
        )
        np.maximum.at(means, (vector, members.classes[item]), scores[vector, item])
        return np.asarray(means.mean(axis=0), dtype=np.float32)

    def list_parts(
        self, vectors: UnitVectors, label: str, members: Members, excluded: str | None
    ) -> dict[str, tuple[float, float]]:
        """The means of the addends over all items and vectors; ``copy`` is what a copy adds."""
        parts = self._list_contributions(vectors, members)
        near = members.similarities.mean(dtype=np.float64)
        named = _name_parts(parts, "mean", float(near), lambda values: float(values.mean()))
        if are_copies(members.similarities).any():
            score = float(self.score_together(vectors, [label], members, excluded)[0])
            best = members.similarities.max(axis=1).mean(dtype=np.float64)
            named["copy"] = float(best), score - sum(added for _, added in named.values())
        return named


def _name_parts(
    parts: dict[str, Float64s], similarity: str, near: float, reduce: Callable[[Float64s], float]
) -> dict[str, tuple[float, float]]:
    """Contributions [v, m] as value and contribution by name; a density's value is what it takes away."""
    reduced = {name: reduce(values) for name, values in parts.items()}
    named = {name: (-added, added) for name, added in reduced.items() if name != "similarity"}
    return {similarity: (near, reduced["similarity"]), **named}


MATCH_RULES: dict[Aggregate, type[MatchRule]] = {
    "nearest": NearestItem,
    "mean_of_class": MeanOfClass,
    "evidence": EvidenceOfClass,
}

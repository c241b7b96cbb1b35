"""The rules of a 1:N search: how the items of a class make one score. A rule is one class and one line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from api_schemas.operating_point import Aggregate
from common.array_types import Bools, Int64s, RowIndices, UnitVectors
from decision.decider import Decider
from index.search.gallery_view import GalleryView, SearchHit, sort_by_score
from index.search.generation import Generation, LiveRows
from index.search.rescoring import compute_similarities


@dataclass(frozen=True)
class MatchRule(ABC):
    """A rule, applied to one view.

    Attributes:
        reads_whole_classes: it takes longer than a plain search.
        condition: only items it holds for count.
        exclude_ids: for each query an id that does not count.
    """

    reads_whole_classes: ClassVar[bool] = False
    view: GalleryView
    decider: Decider
    condition: Mapping[str, Any] | None = None
    exclude_ids: Sequence[str | None] | None = None

    @abstractmethod
    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        """The hits of each query [q, d] from the k nearest items, best score first, ties by id.

        The first decides, and its margin is to the first of another label.
        """

    def _search(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        return self.view.search(
            queries, k, decider=self.decider, condition=self.condition, exclude_ids=self.exclude_ids
        )


class NearestItem(MatchRule):
    """A class scores as the best of its items."""

    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        results = self._search(queries, k)
        return results if self.decider.scorer.is_similarity else [sort_by_score(hits) for hits in results]


class MeanOfClass(MatchRule):
    """A class scores as the mean of all its items, exact over every live item that the condition holds for.

    A class none of whose items is among the k nearest is no candidate.
    """

    reads_whole_classes = True

    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        """For each class among the k nearest items its nearest item, scored as the mean of the class."""
        results = self._search(queries, k)
        scorer, key = self.decider.scorer, self.decider.scorer.density_key
        parts = [(part, self._select_counting_rows(part, live)) for part, live in self.view.parts]
        densities = scorer.compute_densities(queries)
        proposed: list[list[SearchHit]] = []
        for number, hits in enumerate(results):
            nearest = {hit.label: hit for hit in reversed(hits)}
            excluded = None if self.exclude_ids is None else self.exclude_ids[number]
            sums, counts = np.zeros(len(nearest)), np.zeros(len(nearest))
            for part, counting in parts if nearest else []:
                rows, classes = _select_members(part, list(nearest), counting, excluded)
                if not len(rows):
                    continue
                near = compute_similarities(part.vectors, queries[number : number + 1], rows, rows)
                of_rows = None if key is None else part.items.densities[key][rows]
                scores = scorer(near, densities[number], of_rows)
                sums += np.bincount(classes, scores, minlength=len(nearest))
                counts += np.bincount(classes, minlength=len(nearest))
            means = (sums / counts).astype(np.float32).tolist()
            pairs = zip(nearest.values(), means, strict=True)
            proposed.append(sort_by_score(hit._replace(score=mean) for hit, mean in pairs))
        return proposed

    def _select_counting_rows(self, part: Generation, live: LiveRows | None) -> Bools | None:
        """bool [n]: the rows of a part that count in means; all if None."""
        if self.condition is None:
            return None if live is None else live.rows
        counting = np.zeros(len(part), dtype=bool)
        counting[part.select_rows(self.condition, live, self.view.fields)] = True
        return counting


def _select_members(
    part: Generation, labels: list[str], counting: Bools | None, excluded: str | None
) -> tuple[RowIndices, Int64s]:
    """The rows of classes, int64 [m], and for each the position of its class among ``labels``."""
    items = part.items
    groups = []
    for label in labels:
        code = bisect_left(items.classes, label)
        known = code < len(items.classes) and items.classes[code] == label
        groups.append(items.get_rows_of_class(code) if known else np.empty(0, dtype=np.int64))
    rows = np.concatenate(groups)
    classes = np.repeat(np.arange(len(labels)), [len(group) for group in groups])
    kept = np.ones(len(rows), dtype=bool) if counting is None else counting[rows]
    row = None if excluded is None else items.get_row(excluded)
    if row is not None:
        kept = kept & (rows != row)
    return rows[kept], classes[kept]


MATCH_RULES: dict[Aggregate, type[MatchRule]] = {"nearest": NearestItem, "mean_of_class": MeanOfClass}

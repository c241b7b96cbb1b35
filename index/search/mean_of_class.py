"""The rule ``mean_of_class`` of a 1:N search: a class scores as the mean of all its items.

Candidates are the classes of the k nearest items. Their means are exact, over every live item that a filter
lets pass; a class none of whose items is among the k nearest is no candidate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from api_schemas.operating_point import Aggregate
from common.array_types import Bools, Int64s, RowIndices, UnitVectors
from decision.decider import Decider
from index.search.gallery_view import GalleryView, SearchHit, sort_by_score
from index.search.generation import Generation
from index.search.live_rows import LiveRows
from index.search.rescoring import compute_similarities


class MeanOfClass:
    """See ``MatchRule``; the hit of a class is its nearest item, scored as its mean."""

    aggregate: ClassVar[Aggregate] = "mean_of_class"
    reads_whole_classes: ClassVar[bool] = True

    def propose(
        self,
        view: GalleryView,
        queries: UnitVectors,
        k: int,
        decider: Decider,
        condition: Mapping[str, Any] | None,
        exclude_ids: Sequence[str | None] | None,
    ) -> list[list[SearchHit]]:
        """One hit for each class among the k nearest items of each query."""
        results = view.search(queries, k, decider=decider, condition=condition, exclude_ids=exclude_ids)
        parts = [(part, _select_counting_rows(view, part, live, condition)) for part, live in view.parts]
        densities = decider.scorer.densities(queries)
        proposed: list[list[SearchHit]] = []
        for number, hits in enumerate(results):
            nearest = {hit.label: hit for hit in reversed(hits)}
            if not nearest:
                proposed.append([])
                continue
            excluded = None if exclude_ids is None else exclude_ids[number]
            sums, counts = np.zeros(len(nearest)), np.zeros(len(nearest))
            for part, counting in parts:
                rows, classes = _select_members(part, list(nearest), counting, excluded)
                if not len(rows):
                    continue
                near = compute_similarities(part.vectors, queries[number : number + 1], rows, rows)
                key = decider.density_key
                of_rows = None if key is None else part.items.densities[key][rows]
                scores = decider.scorer(near, densities[number], of_rows)
                sums += np.bincount(classes, scores, minlength=len(nearest))
                counts += np.bincount(classes, minlength=len(nearest))
            means = (sums / counts).astype(np.float32).tolist()
            proposed.append(
                sort_by_score(
                    hit._replace(score=mean) for hit, mean in zip(nearest.values(), means, strict=True)
                )
            )
        return proposed


def _select_counting_rows(
    view: GalleryView, part: Generation, live: LiveRows | None, condition: Mapping[str, Any] | None
) -> Bools | None:
    """Which rows of a part count in means; all if None."""
    if condition is None:
        return None if live is None else live.rows
    counting = np.zeros(len(part), dtype=bool)
    counting[part.select_rows(condition, live, view.fields)] = True
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
        groups.append(items.rows_of_class(code) if known else np.empty(0, dtype=np.int64))
    rows = np.concatenate(groups)
    classes = np.repeat(np.arange(len(labels)), [len(group) for group in groups])
    kept = np.ones(len(rows), dtype=bool) if counting is None else counting[rows]
    if excluded is not None:
        row = items.row_of(excluded)
        kept &= rows != (-1 if row is None else row)
    return rows[kept], classes[kept]

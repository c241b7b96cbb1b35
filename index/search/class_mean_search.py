"""The other rule of a 1:N search: a class scores as the mean of all its items, not as its nearest one.

Candidates are the classes of the k nearest items. Their means are exact, over every item that is there and
that a filter lets pass; a class none of whose items is among the k nearest is not looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.array_types import Bools, Int64s, UnitVectors
from decision.decider import Decider
from index.search.gallery_view import Hit, View
from index.search.generation import Generation
from index.search.live_rows import Alive
from index.search.rescoring import similarities


def mean_hits(
    view: View,
    queries: UnitVectors,
    k: int,
    decider: Decider,
    condition: Mapping[str, Any] | None,
    exclude_ids: Sequence[str | None] | None,
) -> list[list[Hit]]:
    """One hit for each class among the k nearest items of each query: its nearest item, scored as its mean.

    Args:
        queries: float32 [q, d] unit rows.
        condition: only items it holds for are nearest or count in a mean.
        exclude_ids: for each query an id that is left out, also of its class's mean.
    """
    found = view.search(queries, k, decider=decider, condition=condition, exclude_ids=exclude_ids)
    parts = [(part, _counting(view, part, alive, condition)) for part, alive in view.parts]
    own = decider.scorer.densities(queries)
    answers: list[list[Hit]] = []
    for number, hits in enumerate(found):
        nearest = {hit.label: hit for hit in reversed(hits)}
        if not nearest:
            answers.append([])
            continue
        left_out = None if exclude_ids is None else exclude_ids[number]
        sums, counts = np.zeros(len(nearest)), np.zeros(len(nearest))
        for part, counting in parts:
            rows, which = _members(part, list(nearest), counting, left_out)
            if not len(rows):
                continue
            near = similarities(part.vectors, queries[number : number + 1], rows, rows)
            name = decider.densities
            scores = decider.scorer(
                near, own[number], None if name is None else part.items.densities[name][rows]
            )
            sums += np.bincount(which, scores, minlength=len(nearest))
            counts += np.bincount(which, minlength=len(nearest))
        means = (sums / counts).astype(np.float32).tolist()
        answers.append([hit._replace(score=mean) for hit, mean in zip(nearest.values(), means, strict=True)])
    return answers


def _counting(
    view: View, part: Generation, alive: Alive | None, condition: Mapping[str, Any] | None
) -> Bools | None:
    """Which rows of a part count in means; all if None."""
    if condition is None:
        return None if alive is None else alive.rows
    counting = np.zeros(len(part), dtype=bool)
    counting[part.matching(condition, alive, view.fields)] = True
    return counting


def _members(
    part: Generation, labels: list[str], counting: Bools | None, left_out: str | None
) -> tuple[Int64s, Int64s]:
    """The rows of classes, int64 [m], and for each the position of its class among ``labels``."""
    items = part.items
    groups = []
    for label in labels:
        code = bisect_left(items.classes, label)
        known = code < len(items.classes) and items.classes[code] == label
        groups.append(items.rows_of_class(code) if known else np.empty(0, dtype=np.int64))
    rows = np.concatenate(groups)
    which = np.repeat(np.arange(len(labels)), [len(group) for group in groups])
    kept = np.ones(len(rows), dtype=bool) if counting is None else counting[rows]
    if left_out is not None:
        row = items.row_of(left_out)
        kept &= rows != (-1 if row is None else row)
    return rows[kept], which[kept]

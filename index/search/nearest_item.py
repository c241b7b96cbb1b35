"""The rule ``nearest`` of a 1:N search: a class scores as the best of its items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from api_schemas.operating_point import Aggregate
from common.array_types import UnitVectors
from decision.decider import Decider
from index.search.gallery_view import GalleryView, SearchHit, sort_by_score


class NearestItem:
    """See ``MatchRule``."""

    aggregate: ClassVar[Aggregate] = "nearest"
    reads_whole_classes: ClassVar[bool] = False

    def propose(
        self,
        view: GalleryView,
        queries: UnitVectors,
        k: int,
        decider: Decider,
        condition: Mapping[str, Any] | None,
        exclude_ids: Sequence[str | None] | None,
    ) -> list[list[SearchHit]]:
        """The k nearest items of each query by score."""
        results = view.search(queries, k, decider=decider, condition=condition, exclude_ids=exclude_ids)
        if decider.scorer.is_similarity:
            return results
        return [sort_by_score(hits) for hits in results]

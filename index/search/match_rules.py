"""The rules of a 1:N search: how the items of a class make one score. A rule is one class and one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from api_schemas.operating_point import Aggregate
from common.array_types import UnitVectors
from decision.decider import Decider
from index.search.gallery_view import GalleryView, SearchHit, sort_by_score
from index.search.mean_of_class import MeanOfClass


class MatchRule(Protocol):
    """A rule, applied.

    Attributes:
        aggregate: as operating points name it.
        reads_whole_classes: it takes longer than a plain search.
    """

    aggregate: ClassVar[Aggregate]
    reads_whole_classes: ClassVar[bool]

    def propose(
        self,
        view: GalleryView,
        queries: UnitVectors,
        k: int,
        decider: Decider,
        condition: Mapping[str, Any] | None,
        exclude_ids: Sequence[str | None] | None,
    ) -> list[list[SearchHit]]:
        """The hits of each query from the k nearest items, best score first, ties by id.

        The first decides, and its margin is to the first of another label.

        Args:
            queries: float32 [q, d] unit rows.
            condition: only items it holds for count.
            exclude_ids: for each query an id that does not count.
        """


class NearestItem:
    """The rule ``nearest``: a class scores as the best of its items."""

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
        return results if decider.scorer.is_similarity else [sort_by_score(hits) for hits in results]


MATCH_RULES: dict[Aggregate, MatchRule] = {rule.aggregate: rule for rule in (NearestItem(), MeanOfClass())}

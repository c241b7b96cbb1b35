"""One figure of two models on the same items."""

from __future__ import annotations

from api_schemas.base import Finite, Schema


class Difference(Schema):
    """One figure of both models. ``interval``: two-sided 95 % of b - a, by paired resampling of classes."""

    name: str
    a: Finite | None
    b: Finite | None
    difference: Finite | None
    interval: tuple[Finite, Finite] | None
    higher_is_better: bool

"""HTTP bodies of the thresholds an endpoint could have: what each trades for what, and to choose one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import Body, OperatingPointSummary
from api_schemas.operating_point import Status
from api_schemas.tradeoff import Tradeoff

PointName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


class ThresholdMark(Schema):
    """An operating point on the grid: ``index`` is that of its threshold in ``thresholds``."""

    id: str
    name: str
    threshold: Finite
    index: int
    status: Status
    active: bool


class TradeoffResponse(Tradeoff):
    """The rates of every threshold of an endpoint with the score and rule that decide it now.

    ``cost`` is the expected cost of a query in missed known ones:
    ``unknown_share * false_match_cost * false + (1 - unknown_share) * missed``, where false is the FPIR (of
    ``verify`` the FAR) and missed the FNIR (the FRR); null where one of them is not known.
    """

    unknown_share: Finite
    false_match_cost: Finite
    cost: list[Finite] | None
    active_threshold: Finite | None
    points: list[ThresholdMark]


class ChoosePointRequest(Body):
    """A threshold to keep as an operating point, marked as chosen by hand."""

    endpoint: Literal["match", "verify"]
    threshold: Finite = Field(description="On the scale of the score; within the grid of the tradeoff.")
    name: PointName | None = Field(default=None, description="`chosen-<threshold>` unless given.")
    activate: bool = Field(default=False, description="Whether it decides from the next request on.")


class ChoosePointResponse(Schema):
    """The point of a chosen threshold. ``previous`` decided before, where it was activated."""

    point: OperatingPointSummary
    activated: bool
    previous: str | None

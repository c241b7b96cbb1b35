"""Which operating point decides for a group of queries, such as those of one site, camera or language."""

from __future__ import annotations

from collections.abc import Iterable

from api_schemas.operating_point import OperatingPoint
from decision.errors import OtherGroup
from decision.targets import get_endpoint


def select_point_of_group(
    points: Iterable[OperatingPoint], active: OperatingPoint | None, group: str
) -> OperatingPoint:
    """The 1:N point that decides for a group of queries.

    The active one where its target holds in every group, this one among them; else one of the group's own,
    of these the one most like the active point. Raises OtherGroup where there is none.
    """
    if active is not None and _covers(active, group):
        return active
    matching = [point for point in points if get_endpoint(point.target) == "match"]
    of_group = [point for point in matching if _covers(point, group)]
    if not of_group:
        known = sorted(
            {name for point in matching if point.target.group for name in point.target.group.values}
        )
        raise OtherGroup(
            f"No operating point is for the group '{group}'; "
            + (f"there are points for {', '.join(known)}. " if known else "no point is for a group at all. ")
            + "Leave group out, or make points for groups: `--group COLUMN --set calibration.group_mode=own` "
            "of limen export, build and wrap."
        )

    def measure_likeness(point: OperatingPoint) -> tuple[bool, ...]:
        if active is None:
            return (point.status == "proven",)
        return (
            point.target.value == active.target.value,
            point.target.aggregate == active.target.aggregate,
            point.status == active.status,
        )

    return max(of_group, key=measure_likeness)


def check_point_of_all(point: OperatingPoint) -> None:
    """Raises OtherGroup for a point that is for the queries of one group alone."""
    group = point.target.group
    if group is not None and group.mode == "own":
        raise OtherGroup(
            f"The active operating point '{point.name}' is for the group '{group.values[0]}' of the column "
            f"'{group.column}': say in the request which group a query is of, by `group`."
        )


def _covers(point: OperatingPoint, group: str) -> bool:
    return point.target.group is not None and group in point.target.group.values

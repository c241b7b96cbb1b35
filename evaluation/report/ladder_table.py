"""The ladder of operating points as one table of text: target x (estimated, proven)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from api_schemas.operating_point import OperatingPoint, Status
from decision.decider import BEYOND_PROOF
from decision.describe_point import count_of_thousand, get_shown_rates
from decision.targets import ENDPOINTS, Endpoint, get_endpoint

STATUSES: tuple[Status, ...] = ("estimated", "proven")
HEADS: dict[Endpoint, tuple[str, str, str]] = {
    "match": ("1:N, who is this?", "known kept", "strangers matched of 1,000"),
    "verify": ("1:1, are these two the same?", "same kept", "others accepted of 1,000"),
}
NOTHING = "-"


def format_ladder(points: Sequence[OperatingPoint], active: Collection[str | None] = ()) -> str:
    """One table an endpoint: what a point of each target keeps, and whom it wrongly accepts (at most).

    Args:
        active: ids of the points that decide; they are marked.
    """
    tables = [
        _format_endpoint(
            endpoint, [point for point in points if get_endpoint(point.target) == endpoint], active
        )
        for endpoint in reversed(ENDPOINTS)
    ]
    return "\n\n".join(table for table in tables if table)


def _format_endpoint(
    endpoint: Endpoint, points: Sequence[OperatingPoint], active: Collection[str | None]
) -> str:
    if not points:
        return ""
    title, kept, wrong = HEADS[endpoint]
    rows = [["target"] + [cell for status in STATUSES for cell in (f"{status}: {kept}", wrong)]]
    for target in dict.fromkeys(_name_rung(point) for point in points):
        cells = [target]
        for status in STATUSES:
            of_rung = [point for point in points if _name_rung(point) == target and point.status == status]
            cells += _describe(of_rung[0], active) if of_rung else [NOTHING, NOTHING]
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([title + _describe_gallery(points), *(f"  {line.rstrip()}" for line in lines)])


def _name_rung(point: OperatingPoint) -> str:
    kind, value = point.target.kind.upper(), point.target.value
    return kind if value is None else f"{kind} {100 * value:g} %"


def _describe(point: OperatingPoint, active: Collection[str | None]) -> list[str]:
    rates = get_shown_rates(point)
    kept = NOTHING if rates.missed is None else f"{100 * (1 - rates.missed):.0f} %"
    if rates.false is None:
        return [kept, NOTHING]
    at_most = "" if rates.at_most is None else f" (at most {count_of_thousand(rates.at_most)})"
    mark = " <- decides" if point.id in active else ""
    return [kept, f"{count_of_thousand(rates.false)}{at_most}{mark}"]


def _describe_gallery(points: Sequence[OperatingPoint]) -> str:
    size = next((point.target.gallery for point in points if point.target.gallery is not None), None)
    if size is None:
        return ""
    rule = points[0].target.aggregate.replace("_", " ")
    return (
        f" By {rule}, for a gallery of {size.classes:,} class{'es' if size.classes > 1 else ''} (holds up to "
        f"{int(BEYOND_PROOF * size.items):,} items)"
    )

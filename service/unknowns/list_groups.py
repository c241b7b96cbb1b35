"""The groups of the pool as a page shows them."""

from __future__ import annotations

from typing import Any, Literal, cast

from index.store.kept_queries import PoolFilter
from service.models.loaded_model import LoadedModel
from service.unknowns.present import to_time, write_unknown

MOST_OFFERED = 50  # labels, each with as many queries
MOST_CHANGES = 20


def list_groups(
    model: LoadedModel, status: str, members: int, limit: int, offset: int, overflowed: int
) -> dict[str, Any]:
    """A page of groups with their newest members, what is offered, what can be undone, and counts."""
    unknowns = model.get_live_gallery().unknowns
    of_status = cast(Literal["open", "dropped"], status)
    found = unknowns.list_groups(of_status, limit + 1, offset)
    shown = found[:limit]
    of_groups = unknowns.read_members([group.id for group in shown], of_status, members)
    counts = unknowns.count_by_status()
    offered = list(unknowns.count_offered().items())[:MOST_OFFERED]
    return {
        "groups": [
            {
                "id": group.id,
                "size": group.size,
                "first_at": to_time(group.first_at),
                "last_at": to_time(group.last_at),
                "members": [write_unknown(query) for query in of_groups[group.id]],
            }
            for group in shown
        ],
        "next_cursor": str(offset + limit) if len(found) > limit else None,
        "offered": [
            {
                "label": label,
                "size": size,
                "unknowns": [
                    write_unknown(query)
                    for query in unknowns.page(PoolFilter(status="open", offered=label), MOST_OFFERED)
                ],
            }
            for label, size in offered
        ],
        "changes": [
            {"change": change.id, "kind": change.kind, "label": change.name, "size": change.size}
            for change in unknowns.list_changes(MOST_CHANGES)
        ],
        "counts": {name: counts.get(name, 0) for name in ("open", "enrolled", "dropped")}
        | {
            "ungrouped": unknowns.count(PoolFilter(status="open", decision="unknown", grouped=False)),
            "overflowed": overflowed,
        },
    }

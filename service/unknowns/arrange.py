"""What a person changes of the groups, as changes of the kept queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api_schemas.http.unknowns import ArrangeRequest
from index.store.kept_queries import KeptQuery, PoolFilter, make_group_id
from index.store.unknown_records import UnknownRecords
from service.errors.problems import CONFLICT, NOT_FOUND, ServiceProblem

Changes = list[tuple[Sequence[str], Mapping[str, str | None]]]


def plan_arrangement(
    unknowns: UnknownRecords, request: ArrangeRequest, most: int
) -> tuple[Changes, str | None]:
    """Which queries change and how, and the group that results.

    A group that a person has touched is pinned: all of its queries name it in ``pin``, and the next grouping
    leaves them in it.

    Raises:
        ServiceProblem: a group or id that there is not.
    """
    if request.action == "merge":
        groups = list(dict.fromkeys(request.groups or []))
        target = groups[0]
        members = [name for group in groups for name in _list_members(unknowns, group, most)]
        return [(members, {"group": target, "pin": target})], target
    if request.group is not None:
        members = _list_members(unknowns, request.group, most)
        return [(members, {"status": "dropped", "pin": request.group})], request.group
    chosen = unknowns.read(request.ids or [])
    missing = sorted(set(request.ids or []) - {query.id for query in chosen})
    if missing:
        raise ServiceProblem(NOT_FOUND, f"No kept query has the id '{missing[0]}' ({len(missing)} in all).")
    closed = [query for query in chosen if query.status != "open"]
    if closed:
        raise ServiceProblem(CONFLICT, f"'{closed[0].id}' is {closed[0].status} already: undo that first.")
    if request.action == "drop":
        return [([query.id for query in chosen], {"status": "dropped", "group": None, "pin": None})], None
    return _split(unknowns, chosen, most)


def _split(unknowns: UnknownRecords, chosen: Sequence[KeptQuery], most: int) -> tuple[Changes, str]:
    """The chosen queries in a group of their own, and what they leave behind pinned to where it is."""
    new = make_group_id()
    ids = {query.id for query in chosen}
    changes: Changes = [(sorted(ids), {"group": new, "pin": new})]
    for group in sorted({query.group for query in chosen if query.group is not None}):
        rest = [name for name in _list_members(unknowns, group, most) if name not in ids]
        changes.append((rest, {"pin": group}))
    return changes, new


def _list_members(unknowns: UnknownRecords, group: str, most: int) -> list[str]:
    ids = unknowns.list_ids(PoolFilter(group=group, status="open", decision="unknown"), most)
    if not ids:
        raise ServiceProblem(NOT_FOUND, f"No open unknown is in a group '{group}'.")
    return ids

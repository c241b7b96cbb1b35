"""Unknowns that become items of a label in one transaction, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.items.stored_item import StoredItem
from index.store.kept_queries import KeptQuery, PoolFilter, make_change_id
from index.store.unknown_changes import enroll_queries, undo_change
from index.store.write_order import WriteOrder
from service.errors.problems import CONFLICT, LIMIT_EXCEEDED, NOT_FOUND, ServiceProblem, build_field_problem
from service.models.loaded_model import LoadedModel
from service.unknowns.pool_fields import select_fitting

ITEM_PREFIX = "unknown-"


@dataclass(frozen=True)
class Enrolment:
    """What an enrolment did: the change, the queries, and the metadata fields that it left out."""

    change: str
    queries: list[KeptQuery]
    left_out: list[str]

    @property
    def items(self) -> list[str]:
        """The ids of the items, in the order of the queries."""
        return [get_item_id(query.id) for query in self.queries]


def get_item_id(query_id: str) -> str:
    """The id of the item that a kept query becomes: always the same, so that enrolling twice is one item."""
    return f"{ITEM_PREFIX}{query_id}"


def enroll(
    model: LoadedModel,
    ids: Sequence[str],
    label: str,
    metadata: Mapping[str, Any],
    order: WriteOrder,
) -> Enrolment:
    """Make kept queries items of a label, with vectors, metadata and thumbnails, in one transaction.

    Those that are items of the label already stay what they are, so that the same call again changes nothing.

    Raises:
        ServiceProblem: ids that there are not, or that are items of another label or dropped.
        InputError: metadata that no item may have.
    """
    live = model.get_live_gallery()
    queries = live.unknowns.read(ids)
    missing = sorted(set(ids) - {query.id for query in queries})
    if missing:
        raise ServiceProblem(NOT_FOUND, f"No kept query has the id '{missing[0]}' ({len(missing)} in all).")
    taken = [query for query in queries if query.status != "open" and query.name != label]
    if taken:
        now = "dropped" if taken[0].status == "dropped" else f"of the label '{str(taken[0].name)[:100]}'"
        raise ServiceProblem(
            CONFLICT,
            f"'{taken[0].id}' is {now} already ({len(taken)} such): undo that first, or leave it out.",
        )
    new = [query for query in queries if query.status == "open"]
    if not new:
        return Enrolment(queries[0].change or "", queries, [])
    kinds = live.fields
    left_out: set[str] = set()
    items = []
    for query in new:
        own = select_fitting(query.metadata, kinds, keep_new=True)
        left_out |= query.metadata.keys() - own.keys()
        items.append(StoredItem(get_item_id(query.id), label, np.array(query.vector), {**own, **metadata}))
    change = make_change_id("enroll")
    order.note(label=label, change=change)
    live.upsert(
        items,
        order,
        {get_item_id(query.id): query.thumbnail for query in new if query.thumbnail is not None},
        lambda connection: enroll_queries(
            connection, {query.id: get_item_id(query.id) for query in new}, label, change
        ),
    )
    return Enrolment(change, queries, sorted(left_out))


def select_group(model: LoadedModel, group: str, label: str, most: int) -> list[str]:
    """The ids of a group to enrol: those that are open, or else those that are of the label already.

    Raises:
        ServiceProblem: there is no such group, or it is too large for one write.
    """
    unknowns = model.get_live_gallery().unknowns
    ids = unknowns.list_ids(PoolFilter(group=group, status="open", decision="unknown"), most + 1)
    if len(ids) > most:
        raise build_field_problem(
            LIMIT_EXCEEDED,
            "group",
            f"it has over {most} members (LIMEN_MAX_ITEMS): enrol them by ids, in parts",
        )
    if not ids:
        of_group = unknowns.page(PoolFilter(group=group, status="enrolled"), most)
        ids = [query.id for query in of_group if query.name == label]
    if not ids:
        raise ServiceProblem(NOT_FOUND, f"No open unknown is in a group '{group}'.")
    return ids


def undo(model: LoadedModel, change: str, order: WriteOrder) -> tuple[int, int]:
    """Take back a change in one transaction; returns how many queries are what they were, and items gone.

    Raises:
        ServiceProblem: no query has this as its last change.
    """
    live = model.get_live_gallery()
    changed = live.unknowns.list_changed(change)
    if not changed:
        raise ServiceProblem(
            NOT_FOUND,
            f"There is nothing to undo of '{change}': something else was done with these unknowns since, "
            "or they are gone.",
        )
    order.note(change=change)
    items = [query.item for query in changed if query.item is not None]
    if not items:
        return live.unknowns.undo(change, order), 0
    deleted = live.delete(items, order, lambda connection: undo_change(connection, change))
    labels = {query.name for query in changed} - {None}
    live.unknowns.withdraw_offers([str(label) for label in labels])
    return len(changed), deleted

"""``/v1/items``: what the gallery holds."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from api_schemas.http.decisions import ItemId, Reference
from api_schemas.http.items import (
    DeleteRequest,
    DeleteResponse,
    Item,
    ItemPage,
    NewItem,
    UpsertRequest,
    UpsertResponse,
)
from index.gallery.live_gallery import LiveGallery
from index.store.item_store import StoredItem
from service.auth.api_keys import requires
from service.errors.problems import LIMIT_EXCEEDED, MODEL_MISMATCH, NOT_FOUND, READ_ONLY, ServiceProblem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY, READING, problems, takes
from service.http.resolve_queries import ResolvedQueries, at, check_filter, encoded, resolve
from service.models.loaded_model import MODELS_FOLDER, LoadedModel, model_folder_name
from service.state import ActiveModel, CurrentState, ServiceState, audit

router = APIRouter(tags=["items"])
WRITES = [Depends(requires("write"))]
_EXAMPLE = {
    "one item": {"items": [{"id": "a-1", "label": "a", "vector": [0.6, 0.8], "metadata": {"camera": 2}}]}
}


@router.put(
    "/v1/items",
    summary="Write items",
    response_model=UpsertResponse,
    responses=problems(*BODY, 409),
    openapi_extra=takes(UpsertRequest, _EXAMPLE),
    dependencies=WRITES,
)
async def upsert(
    request: Request,
    body: Annotated[UpsertRequest, Depends(build_body_reader(UpsertRequest))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """Write up to 10,000 items; those with a known id are replaced.

    200 means that they are on disk and found by the next search.
    """
    live = writable(served)
    limit = state.settings.max_items
    if len(body.items) > limit:
        raise at(LIMIT_EXCEEDED, "items", f"{len(body.items)} given, at most {limit} in one request")
    if body.model_hash not in {None, served.model_hash}:
        raise ServiceProblem(
            MODEL_MISMATCH,
            f"The items are of model {str(body.model_hash)[:12]}, the service decides with "
            f"{served.model_hash[:12]}: embed them again with this model.",
        )
    references = [
        Reference.model_construct(vector=item.vector, input=item.input, id=None) for item in body.items
    ]
    rows = await encoded(state.encoding, served, references, item_of_body)
    new = await state.compute.run(
        lambda: live.upsert(_stored(body.items, resolve(served, references, item_of_body, rows)))
    )
    audit(request, state, "items.upsert", [item.id for item in body.items])
    return write_json_response({"upserted": len(body.items), "new": new, "items": live.n_items})


@router.get(
    "/v1/items",
    summary="Page through items",
    response_model=ItemPage,
    responses=problems(*READING, 409, 422),
)
async def page(
    served: ActiveModel,
    state: CurrentState,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Items in the order of their ids; `next_cursor` leads to the next page, null on the last."""
    found = await state.compute.run(lambda: served.gallery.page(cursor, limit + 1))
    shown = found[:limit]
    more = shown[-1].id if len(found) > limit else None
    return write_json_response({"items": [_shown(item, False) for item in shown], "next_cursor": more})


@router.get(
    "/v1/items/{item_id:path}",
    summary="Read an item",
    response_model=Item,
    responses=problems(*READING, 404, 409, 422),
)
async def read(item_id: ItemId, served: ActiveModel, state: CurrentState) -> Response:
    """The item as it was written, with its unit vector."""
    found = await state.compute.run(lambda: served.gallery.get(item_id))
    if found is None:
        raise _unknown(item_id)
    return write_json_response(_shown(found, True))


@router.delete(
    "/v1/items/{item_id:path}",
    summary="Delete an item",
    response_model=DeleteResponse,
    responses=problems(*READING, 404, 409, 422),
    dependencies=WRITES,
)
async def delete(
    request: Request, item_id: ItemId, served: ActiveModel, state: CurrentState, rebuild: bool = False
) -> Response:
    """Gone from the item store, from feedback and from searches.

    `remains_in` names the places that this does not reach; `rebuild` builds the index files anew too.
    """
    live = writable(served)
    deleted = await state.compute.run(lambda: live.delete([item_id]))
    if not deleted:
        raise _unknown(item_id)
    audit(request, state, "items.delete", [item_id])
    return _erased(live, state, served, deleted, rebuild)


@router.post(
    "/v1/items/delete",
    summary="Delete items by ids or filter",
    response_model=DeleteResponse,
    responses=problems(*BODY, 409),
    openapi_extra=takes(
        DeleteRequest, {"by ids": {"ids": ["a-1", "a-2"]}, "by filter": {"filter": {"label": "a"}}}
    ),
    dependencies=WRITES,
)
async def delete_some(
    request: Request,
    body: Annotated[DeleteRequest, Depends(build_body_reader(DeleteRequest))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """Gone from the item store, from feedback and from searches; ids that are not there are passed over.

    `remains_in` names the places that this does not reach; `rebuild` builds the index files anew too.
    """
    live = writable(served)
    if body.ids is not None:
        ids = body.ids
        deleted = await state.compute.run(lambda: live.delete(ids))
        audit(request, state, "items.delete", ids)
    else:
        check_filter(body.filter, state.settings)
        condition: dict[str, Any] = dict(body.filter or {})
        gone = await state.compute.run(lambda: live.delete_where(condition))
        deleted = len(gone)
        audit(request, state, "items.delete", gone, filter=condition)
    return _erased(live, state, served, deleted, body.rebuild)


def writable(served: LoadedModel) -> LiveGallery:
    """The gallery that can be changed; raises the problem ``read-only`` (409)."""
    if served.live is None:
        raise ServiceProblem(
            READ_ONLY,
            "The service was started without a data folder: add --data DIR to keep items and feedback.",
        )
    return served.live


def item_of_body(row: int) -> str:
    """The path of an item in a body."""
    return f"items.{row}"


def _stored(items: list[NewItem], resolved: ResolvedQueries) -> list[StoredItem]:
    return [
        StoredItem(item.id, item.label, np.array(row), dict(item.metadata))  # type: ignore[arg-type]
        for item, row in zip(items, resolved.vectors, strict=True)
    ]


def _erased(
    live: LiveGallery, state: ServiceState, served: LoadedModel, deleted: int, rebuild: bool
) -> Response:
    job = None
    if rebuild:
        # one that has not begun yet will see these deletions as well
        same = f"rebuild {served.model_hash}"
        job = state.jobs.submit("rebuild of the index", live.rebuild, "/v1/info", same)
    return write_json_response(
        {
            "deleted": deleted,
            "items": live.n_items,
            "remains_in": out_of_reach(state, served.model_hash, None if job is None else job.id),
            "job": None if job is None else job.id,
        }
    )


def _shown(item: StoredItem, vector: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": item.id, "label": item.label, "metadata": dict(item.metadata)}
    return shown | {"vector": item.vector} if vector else shown


def _unknown(item_id: str) -> ServiceProblem:
    return ServiceProblem(NOT_FOUND, f"No item has the id '{item_id[:100]}'.")


def out_of_reach(state: ServiceState, model_hash: str, job: str | None) -> list[str]:
    """The places an erasure does not reach, in words; ``job`` is the rebuild under way, if any."""
    places = [
        "the bundle, which is never written",
        "backups and exports made before",
        "files of the index "
        + (f"until job {job} is done" if job else "until it is built again, which `rebuild` asks for"),
        "the item store's write-ahead log, at the latest until the service ends",
        "reports made before, which name labels",
        "the audit log, which keeps ids and the filters of deletions",
    ]
    if state.settings.data is not None:
        folder = state.settings.data / MODELS_FOLDER
        own = model_folder_name(model_hash)
        others = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name != own)
        if others:
            places.append(f"items of other models ({', '.join(others)}): delete there while each is active")
    return places

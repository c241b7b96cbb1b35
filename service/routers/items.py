"""``/v1/items``: write, read, page through and delete the items of the gallery."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from api_schemas.http.decisions import ItemId, Reference
from api_schemas.http.gallery import (
    DeleteRequest,
    DeleteResponse,
    Item,
    ItemPage,
    NewItem,
    UpsertRequest,
    UpsertResponse,
)
from common.array_types import UnitVectors
from common.time_budget import check_time
from encoder import RefusedInput
from encoder.thumbnails import make_thumbnail
from evaluation.gallery_counts.counts_file import read_about
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from service.auth.api_keys import NEEDS_WRITE
from service.auth.key_meter import check_items, spend_items
from service.errors.problems import (
    LIMIT_EXCEEDED,
    MODEL_MISMATCH,
    NOT_FOUND,
    ServiceProblem,
    build_field_problem,
)
from service.http.bodies import build_body_reader, write_json_response
from service.http.filter_limits import check_filter
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.http.resolve_references import prepare_references
from service.models.loaded_model import MODELS_FOLDER, LoadedModel, get_model_folder_name
from service.settings import ServiceSettings
from service.state import ActiveModel, CurrentState, ServiceState, order_write, write


class _TextConvertor(Convertor[str]):
    """A path parameter of any characters, slashes and line breaks among them."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """The parameter as it came."""
        return value

    def to_string(self, value: str) -> str:
        """The parameter as it goes into a path."""
        return value


register_url_convertor("text", _TextConvertor())
router = APIRouter(tags=["items"])
_read_upsert = build_body_reader(UpsertRequest, "items", lambda limits: limits.max_items)
_read_deletion = build_body_reader(DeleteRequest, "ids", lambda limits: limits.max_items)
_EXAMPLE = {
    "one item": {"items": [{"id": "a-1", "label": "a", "vector": [0.6, 0.8], "metadata": {"camera": 2}}]}
}


@router.put(
    "/v1/items",
    summary="Write items",
    response_model=UpsertResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(UpsertRequest, _EXAMPLE),
    dependencies=NEEDS_WRITE,
)
async def upsert(
    request: Request,
    body: Annotated[UpsertRequest, Depends(_read_upsert)],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Write up to 10,000 items; an item whose id is already stored is replaced.

    200 means that they are on disk and that the next search finds them.
    """
    live = model.get_live_gallery()
    limit = state.settings.max_items
    if len(body.items) > limit:
        raise build_field_problem(
            LIMIT_EXCEEDED, "items", f"{len(body.items)} given, at most {limit} are allowed in one request"
        )
    if body.model_hash not in {None, model.model_hash}:
        raise ServiceProblem(
            MODEL_MISMATCH,
            f"The items are of model {str(body.model_hash)[:12]}, the service decides with "
            f"{model.model_hash[:12]}: embed them again with this model.",
        )
    check_items(request, len(body.items))
    references = [
        Reference.model_construct(vector=item.vector, input=item.input, id=None) for item in body.items
    ]
    resolve = await prepare_references(
        state.encoding, model, references, "items.{}".format, asks=lambda _: False
    )
    items = await state.compute.run(lambda: _build_items(body.items, resolve().vectors))
    if body.fold_labels:
        items = await state.compute.run(lambda: _fold_labels(items, model))
    thumbnails = await state.compute.run(lambda: _make_thumbnails(body.items, model, state.settings))
    order = order_write(request, "items.upsert")
    new = await write(request, state, order, lambda: live.upsert(items, order, thumbnails))
    spend_items(request, len(body.items))
    notes = await state.compute.run(lambda: model.label_notes.note(item.label for item in items))
    return write_json_response(
        {"upserted": len(body.items), "new": new, "items": live.gallery.n_items, "notes": notes}
    )


@router.get(
    "/v1/items",
    summary="Page through items",
    response_model=ItemPage,
    responses=describe_problems(*READ_STATUSES, 409),
)
async def page(
    model: ActiveModel,
    state: CurrentState,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    label: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Items in the order of their ids. `next_cursor` is the `cursor` of the next page, null on the last.

    With `label` those of one class.
    """
    if label is None:
        items = await state.compute.run(lambda: model.gallery.page(cursor, limit + 1))
    else:
        items = await state.compute.run(lambda: model.gallery.page_class(label, cursor, limit + 1))
    next_cursor = items[limit - 1].id if len(items) > limit else None
    return write_json_response(
        {"items": [_write_item(item) for item in items[:limit]], "next_cursor": next_cursor}
    )


@router.get(
    "/v1/items/{item_id:text}",
    summary="Read an item",
    response_model=Item,
    responses=describe_problems(*READ_STATUSES, 404, 409),
)
async def read(item_id: ItemId, model: ActiveModel, state: CurrentState) -> Response:
    """The item as it was written, with its unit vector."""
    item = await state.compute.run(lambda: model.gallery.get(item_id))
    if item is None:
        raise _build_unknown_item(item_id)
    return write_json_response(_write_item(item) | {"vector": item.vector})


@router.delete(
    "/v1/items/{item_id:text}",
    summary="Delete an item",
    response_model=DeleteResponse,
    responses=describe_problems(*READ_STATUSES, 404, 409),
    dependencies=NEEDS_WRITE,
)
async def delete(
    request: Request, item_id: ItemId, model: ActiveModel, state: CurrentState, rebuild: bool = False
) -> Response:
    """Removes it from the item store, from feedback and from searches.

    `remains_in` names where its data still is. `rebuild` also rebuilds the index files, in the background.
    """
    live = model.get_live_gallery()
    order = order_write(request, "items.delete")
    deleted = await write(request, state, order, lambda: live.delete([item_id], order))
    if not deleted:
        raise _build_unknown_item(item_id)
    return _finish_deletion(live, state, model, deleted, rebuild)


@router.post(
    "/v1/items/delete",
    summary="Delete items by ids or filter",
    response_model=DeleteResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(
        DeleteRequest, {"by ids": {"ids": ["a-1", "a-2"]}, "by filter": {"filter": {"label": "a"}}}
    ),
    dependencies=NEEDS_WRITE,
)
async def delete_some(
    request: Request,
    body: Annotated[DeleteRequest, Depends(_read_deletion)],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Removes them from the item store, from feedback and from searches; unknown ids are ignored.

    `remains_in` names where their data still is. `rebuild` also rebuilds the index files, in the background.
    """
    live = model.get_live_gallery()
    if body.ids is not None:
        ids = body.ids
        order = order_write(request, "items.delete", requested=len(ids))
        deleted = await write(request, state, order, lambda: live.delete(ids, order))
    else:
        check_filter(body.filter, state.settings)
        condition: dict[str, Any] = dict(body.filter or {})
        order = order_write(request, "items.delete", filter=condition)
        deleted = len(await write(request, state, order, lambda: live.delete_where(condition, order)))
    return _finish_deletion(live, state, model, deleted, body.rebuild)


def _build_items(items: list[NewItem], vectors: UnitVectors) -> list[StoredItem]:
    return [
        StoredItem(item.id, item.label, np.array(row), dict(item.metadata))  # type: ignore[arg-type]
        for item, row in zip(items, vectors, strict=True)
    ]


def _make_thumbnails(items: list[NewItem], model: LoadedModel, settings: ServiceSettings) -> dict[str, bytes]:
    """What is kept of the inputs of items, by id; nothing where the settings keep no thumbnails."""
    side, encoder = settings.thumbnails, model.encoder
    if side is None or encoder is None:
        return {}
    made: dict[str, bytes] = {}
    for item in items:
        if item.input is None:
            continue
        check_time()
        with suppress(RefusedInput):  # of colours that the encoder takes and a picture for people does not
            thumbnail = make_thumbnail(encoder.preprocessing, item.input, side, encoder.limits)
            if thumbnail:
                made[item.id] = thumbnail
    return made


def _fold_labels(items: list[StoredItem], model: LoadedModel) -> list[StoredItem]:
    labels = model.label_notes.fold([item.label for item in items])
    return [replace(item, label=label) for item, label in zip(items, labels, strict=True)]


def _finish_deletion(
    live: LiveGallery, state: ServiceState, model: LoadedModel, deleted: int, rebuild: bool
) -> Response:
    """Start the rebuild, if the request sets it, and answer a deletion."""
    job = None
    if rebuild:
        # a rebuild that has not begun yet sees these deletions as well
        job = state.jobs.submit(
            "rebuild of the index", live.rebuild, "/v1/info", f"rebuild {model.model_hash}"
        ).id
    return write_json_response(
        {
            "deleted": deleted,
            "items": live.gallery.n_items,
            "remains_in": _list_remains(state, model.model_hash, job),
            "job": job,
        }
    )


def _write_item(item: StoredItem) -> dict[str, Any]:
    return {"id": item.id, "label": item.label, "metadata": dict(item.metadata)}


def _build_unknown_item(item_id: str) -> ServiceProblem:
    return ServiceProblem(NOT_FOUND, f"No item has the id '{item_id[:100]}'.")


def _list_remains(state: ServiceState, model_hash: str, job: str | None) -> list[str]:
    """The remaining copies of deleted data, in words; ``job`` is the rebuild in progress, if any."""
    remains = [
        "the bundle, which is never written",
        "backups and exports made before",
        "files of the index "
        + (f"until job {job} is done" if job else "until it is rebuilt, which `rebuild` does"),
        "the item store's write-ahead log, at the latest until the service ends",
        "reports made before, which name labels",
        "label audits made before, which name ids and labels",
        "the audit log, which keeps ids and the filters of deletions",
    ]
    if state.settings.data is not None:
        folder = state.settings.data / MODELS_FOLDER
        own = get_model_folder_name(model_hash)
        if read_about(folder / own) is not None:
            remains.append(
                "the counts behind the gallery's report, until it is computed or brought up to date"
            )
        others = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name != own)
        if others:
            remains.append(f"items of other models ({', '.join(others)}): delete there while each is active")
    return remains

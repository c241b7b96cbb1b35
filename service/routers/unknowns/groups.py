"""``/v1/unknowns/groups``: unknowns that seem to be of one class, arranged, enrolled, and all of it
undone."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from api_schemas.http.admin import Job
from api_schemas.http.unknowns import (
    ArrangeRequest,
    ChangeResponse,
    EnrollRequest,
    EnrollResponse,
    GroupRequest,
    UndoRequest,
    UndoResponse,
    UnknownGroups,
)
from index.store.kept_queries import make_change_id
from service.auth.api_keys import NEEDS_WRITE
from service.auth.key_meter import spend_items
from service.gallery_work.run_worker import Report as Say
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.state import (
    ActiveModel,
    CurrentState,
    ServiceState,
    get_job_model,
    log_action,
    order_write,
    submit_job,
    write,
)
from service.unknowns.arrange import plan_arrangement
from service.unknowns.enroll import Enrolment, enroll, select_group, undo
from service.unknowns.grouping import find_linking_point, group_pool
from service.unknowns.list_groups import list_groups
from service.unknowns.present import write_unknown
from service.unknowns.rematch import rematch_nearest

router = APIRouter(tags=["unknowns"])
PATH = "/v1/unknowns"
_read_enrolment = build_body_reader(EnrollRequest, "ids", lambda limits: limits.max_items)
_read_arrangement = build_body_reader(ArrangeRequest, "ids", lambda limits: limits.max_items)


@router.get(
    f"{PATH}/groups",
    summary="List groups of unknowns",
    response_model=UnknownGroups,
    responses=describe_problems(*READ_STATUSES, 409),
)
async def groups(
    model: ActiveModel,
    state: CurrentState,
    status: Annotated[str, Query(pattern="^(open|dropped)$")] = "open",
    members: Annotated[int, Query(ge=0, le=100)] = 12,
    cursor: Annotated[str | None, Query(max_length=15, pattern="^[0-9]+$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Groups, the largest first, each with its newest members; what is offered; and what can be undone."""
    model.get_live_gallery()
    await state.unknowns.flush()
    return write_json_response(
        await state.looking.run(
            lambda: list_groups(model, status, members, limit, int(cursor or 0), state.unknowns.overflowed)
        )
    )


@router.post(
    f"{PATH}/group",
    summary="Group the unknowns",
    status_code=202,
    response_model=Job,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(GroupRequest, {"at the active point": {}, "in threes": {"min_size": 3}}),
    dependencies=NEEDS_WRITE,
)
async def group(
    request: Request,
    body: Annotated[GroupRequest, Depends(build_body_reader(GroupRequest))],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Starts a job that links unknowns to groups by average linkage, cut at the threshold of a 1:1
    operating point, and matches each of them again. Groups that are much the same keep their ids; what was
    split, merged or dropped stays so.
    """
    model.get_live_gallery()
    await state.unknowns.flush()
    point = find_linking_point(model, body.operating_point)
    parameters = {"version": state.models.version, "point": point.id, "min_size": body.min_size}
    key = f"group {model.model_hash} {point.id} {body.min_size}"
    job = await asyncio.to_thread(
        submit_job, state, "group", parameters, "groups of unknowns", f"{PATH}/groups", key
    )
    await log_action(request, state, "unknowns.group", operating_point=point.id)
    return write_json_response(job, status=202)


@router.post(
    f"{PATH}/arrange",
    summary="Split, merge or drop groups",
    response_model=ChangeResponse,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(
        ArrangeRequest,
        {
            "split": {"action": "split", "ids": ["q0005f4a1b2c3d4e5f6a7b8"]},
            "drop": {"action": "drop", "group": "g0123456789ab"},
        },
    ),
    dependencies=NEEDS_WRITE,
)
async def arrange(
    request: Request,
    body: Annotated[ArrangeRequest, Depends(_read_arrangement)],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Correct what the grouping did. It is remembered: the next grouping keeps together what was merged,
    apart what was split off, and away what was dropped, with what joins it later.
    """
    live = model.get_live_gallery()
    change = make_change_id(body.action)
    order = order_write(request, f"unknowns.{body.action}", change=change)

    def work() -> tuple[int, str | None]:
        changes, group = plan_arrangement(live.unknowns, body, state.settings.unknowns_max)
        return live.unknowns.arrange(changes, change, order), group

    changed, group = await write(request, state, order, work)
    return write_json_response({"change": change, "changed": changed, "group": group})


@router.post(
    f"{PATH}/enroll",
    summary="Make unknowns items of a label",
    response_model=EnrollResponse,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(
        EnrollRequest,
        {
            "a group": {"group": "g0123456789ab", "label": "Ada"},
            "some of them": {
                "ids": ["q0005f4a1b2c3d4e5f6a7b8"],
                "label": "Ada",
                "metadata": {"by": "review"},
            },
        },
    ),
    dependencies=NEEDS_WRITE,
)
async def enroll_unknowns(
    request: Request,
    body: Annotated[EnrollRequest, Depends(_read_enrolment)],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """The unknowns become items of the label in one transaction, with their vectors, metadata and
    thumbnails, and the next match finds them. The same call again changes nothing.

    The unknowns nearest to them (1,000 at most) are matched again: `offered` are those that the active 1:N
    point accepts as the label by now. Another call with their ids confirms them.
    """
    model.get_live_gallery()
    await state.unknowns.flush()
    label = body.label
    if body.fold_labels:
        (label,) = await state.looking.run(lambda: model.label_notes.fold([label]))
    order = order_write(request, "unknowns.enroll")

    def work() -> Enrolment:
        most = state.settings.max_items
        ids = body.ids or select_group(model, body.group or "", label, most)
        return enroll(model, ids, label, body.metadata, order)

    done = await write(request, state, order, work)
    spend_items(request, len(done.queries))
    vectors = np.stack([query.vector for query in done.queries])
    offered, changed = await state.looking.run(lambda: rematch_nearest(model, label, vectors))
    live = model.get_live_gallery()
    await state.writing.run(lambda: live.unknowns.set_offered(changed), bounded=False)
    notes = await state.looking.run(lambda: model.label_notes.note([label]))
    return write_json_response(
        {
            "change": done.change,
            "label": label,
            "enrolled": len(done.queries),
            "items": done.items,
            "offered": [write_unknown(query) for query in offered],
            "left_out": done.left_out,
            "notes": notes,
        }
    )


@router.post(
    f"{PATH}/undo",
    summary="Take back what was done with unknowns",
    response_model=UndoResponse,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(UndoRequest, {"an enrolment": {"change": "enroll-0005f4a1b2c3d4e5f6a7b8"}}),
    dependencies=NEEDS_WRITE,
)
async def undo_change(
    request: Request,
    body: Annotated[UndoRequest, Depends(build_body_reader(UndoRequest))],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Unknowns are what they were before the change: open and in their groups; items that an enrolment made
    are deleted in the same transaction. The last four changes of an unknown can be undone, the newest
    first.
    """
    model.get_live_gallery()
    order = order_write(request, "unknowns.undo")
    restored, deleted = await write(request, state, order, lambda: undo(model, body.change, order))
    return write_json_response({"restored": restored, "deleted": deleted})


def run_grouping(state: ServiceState, parameters: dict[str, Any], say: Say) -> None:
    """The job that groups the unknowns of a model."""
    model = get_job_model(state, parameters)
    group_pool(model, find_linking_point(model, parameters["point"]), parameters["min_size"])

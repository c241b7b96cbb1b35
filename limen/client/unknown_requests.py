"""The requests of the pool of unknowns, of corrections and of the review queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import orjson

from api_schemas.http.admin import Job
from api_schemas.http.gallery import FeedbackPage, FeedbackResponse
from api_schemas.http.unknowns import (
    ChangeResponse,
    DeleteUnknownsResponse,
    EnrollResponse,
    ReviewQueue,
    UndoResponse,
    Unknown,
    UnknownGroups,
    UnknownPage,
    UnknownSearchResponse,
)
from limen.client.call import Call, drop_none, get, quote_segment, send

Status = Literal["open", "enrolled", "dropped"]
Reference = dict[str, Any]
Filter = dict[str, Any]
PATH = "/v1/unknowns"


def correct(not_label: str, **query: Any) -> Call[FeedbackResponse]:
    """``POST /v1/feedback``: a query (``decision_id``, ``unknown``, ``id``, ``vector`` or ``input``) is not
    of a class; later matches obey.
    """
    return send("POST", "/v1/feedback", FeedbackResponse, query | {"not_label": not_label})


def judge(unknown: str, *, same: bool) -> Call[FeedbackResponse]:
    """``POST /v1/feedback``: whether a kept query is of the class of its best candidate."""
    return send("POST", "/v1/feedback", FeedbackResponse, {"unknown": unknown, "same": same})


def feedback_page(
    cursor: int | None = None, limit: int = 100, *, corrections: bool = False
) -> Call[FeedbackPage]:
    """``GET /v1/feedback``: one page, newest first; ``corrections`` alone if set."""
    return get("/v1/feedback", FeedbackPage, cursor=cursor, limit=limit, corrections=corrections)


def delete_feedback(feedback_id: str) -> Call[None]:
    """``DELETE /v1/feedback/{id}``: takes a verdict or correction back."""
    return Call("DELETE", f"/v1/feedback/{quote_segment(feedback_id)}", lambda content: None)


def unknowns(
    cursor: str | None = None,
    limit: int = 100,
    *,
    status: Status | None = None,
    decision: Literal["match", "unknown"] | None = None,
    group: str | None = None,
    grouped: bool | None = None,
    offered: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    filter: Filter | None = None,  # noqa: A002 - the name of the API
) -> Call[UnknownPage]:
    """``GET /v1/unknowns``: one page of kept queries, newest first."""
    return get(
        PATH,
        UnknownPage,
        cursor=cursor,
        limit=limit,
        status=status,
        decision=decision,
        group=group,
        grouped=grouped,
        offered=offered,
        since=None if since is None else since.isoformat(),
        until=None if until is None else until.isoformat(),
        filter=None if filter is None else orjson.dumps(filter).decode(),
    )


def unknown(unknown_id: str) -> Call[Unknown]:
    """``GET /v1/unknowns/{id}``: a kept query with its vector."""
    return get(f"{PATH}/{quote_segment(unknown_id)}", Unknown)


def unknown_thumbnail(unknown_id: str) -> Call[bytes]:
    """``GET /v1/unknowns/{id}/thumbnail``: WebP of an image, UTF-8 of the beginning of a text."""
    return Call("GET", f"{PATH}/{quote_segment(unknown_id)}/thumbnail", lambda content: content)


def search_unknowns(
    queries: Sequence[Reference],
    k: int = 10,
    *,
    status: Status | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Call[UnknownSearchResponse]:
    """``POST /v1/unknowns/search``: the nearest kept queries; was this one here before?"""
    options = drop_none({"status": status, "since": since, "until": until})
    return send(
        "POST", f"{PATH}/search", UnknownSearchResponse, {"queries": list(queries), "k": k, **options}
    )


def unknown_groups(
    cursor: str | None = None,
    limit: int = 50,
    *,
    status: Literal["open", "dropped"] = "open",
    members: int = 12,
) -> Call[UnknownGroups]:
    """``GET /v1/unknowns/groups``: groups, the largest first, and what is offered."""
    return get(f"{PATH}/groups", UnknownGroups, cursor=cursor, limit=limit, status=status, members=members)


def group_unknowns(operating_point: str | None = None, min_size: int = 2) -> Call[Job]:
    """``POST /v1/unknowns/group``: starts a job; `wait` for it, then read `unknown_groups`."""
    return send(
        "POST", f"{PATH}/group", Job, drop_none({"operating_point": operating_point, "min_size": min_size})
    )


def enroll_unknowns(
    label: str,
    *,
    group: str | None = None,
    ids: Sequence[str] | None = None,
    metadata: dict[str, Any] | None = None,
    fold_labels: bool = False,
) -> Call[EnrollResponse]:
    """``POST /v1/unknowns/enroll``: a group, or some ids, become items of a label."""
    given = {"group": group, "ids": None if ids is None else list(ids), "metadata": metadata}
    body = {"label": label, "fold_labels": fold_labels} | drop_none(given)
    return send("POST", f"{PATH}/enroll", EnrollResponse, body)


def arrange_unknowns(
    action: Literal["split", "merge", "drop"],
    *,
    ids: Sequence[str] | None = None,
    group: str | None = None,
    groups: Sequence[str] | None = None,
) -> Call[ChangeResponse]:
    """``POST /v1/unknowns/arrange``: split ids off, merge groups, or drop a group or ids."""
    given = {
        "ids": None if ids is None else list(ids),
        "group": group,
        "groups": None if groups is None else list(groups),
    }
    return send("POST", f"{PATH}/arrange", ChangeResponse, {"action": action} | drop_none(given))


def undo_unknowns(change: str) -> Call[UndoResponse]:
    """``POST /v1/unknowns/undo``: take back an enrolment, a split, a merge or a drop."""
    return send("POST", f"{PATH}/undo", UndoResponse, {"change": change})


def delete_unknown(unknown_id: str) -> Call[DeleteUnknownsResponse]:
    """``DELETE /v1/unknowns/{id}``."""
    path = f"{PATH}/{quote_segment(unknown_id)}"
    return Call("DELETE", path, DeleteUnknownsResponse.model_validate_json)


def delete_unknowns(
    *,
    ids: Sequence[str] | None = None,
    group: str | None = None,
    status: Status | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    filter: Filter | None = None,  # noqa: A002
) -> Call[DeleteUnknownsResponse]:
    """``POST /v1/unknowns/delete``: by ids, or all that every condition holds for."""
    given = {
        "ids": None if ids is None else list(ids),
        "group": group,
        "status": status,
        "since": since,
        "until": until,
        "filter": filter,
    }
    return send("POST", f"{PATH}/delete", DeleteUnknownsResponse, drop_none(given))


def review(limit: int = 20) -> Call[ReviewQueue]:
    """``GET /v1/review``: the decisions to judge next; judge them with `judge` or `correct`."""
    return get("/v1/review", ReviewQueue, limit=limit)

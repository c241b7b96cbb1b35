"""The requests of the API: one function per endpoint, and how its answer is read.

`limen.client` sends them. Arrays travel as raw float32 rows, references such as ``{"id": "7"}`` as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.comparison import Comparison
from api_schemas.http.admin import (
    ActivateModelResponse,
    ActivatePointResponse,
    GalleryList,
    History,
    Job,
    ModelList,
)
from api_schemas.http.binary_search import SearchArrays, read_search_arrays
from api_schemas.http.classes import ClassDetail, ClassPage, ClassSort, ClassSource
from api_schemas.http.decisions import (
    Info,
    MatchResponse,
    OperatingPointList,
    OperatingPointSummary,
    Ready,
    SearchResponse,
    VerifyResponse,
)
from api_schemas.http.gallery import DeleteResponse, FeedbackResponse, Item, ItemPage, UpsertResponse
from api_schemas.http.label_audit import LabelAuditPage
from api_schemas.http.monitoring import Alert, AlertList, Monitoring
from api_schemas.http.previews import PreviewResponse
from api_schemas.http.tradeoff import ChoosePointResponse, TradeoffResponse
from api_schemas.label_audit import FindingKind
from api_schemas.operating_point import Aggregate, OperatingPoint
from api_schemas.report import Report
from common.array_types import Float32s
from common.errors import InputError
from common.tensors import read_tensors
from limen.client.call import JSON, OCTETS, Call, drop_none, get, quote_segment, send, write_json

T = TypeVar("T")
Reference = dict[str, Any]
Queries = ArrayLike | Sequence[Reference]
Filter = dict[str, Any]
RankBy = Literal["similarity", "score"]
GroupBy = Literal["label"]
Source = Literal["holdout", "gallery", "feedback"]


def ready() -> Call[Ready]:
    """``GET /readyz``."""
    return get("/readyz", Ready)


def info() -> Call[Info]:
    """``GET /v1/info``."""
    return get("/v1/info", Info)


def search(
    queries: Queries,
    k: int = 10,
    *,
    filter: Filter | None = None,  # noqa: A002 - the name of the API
    exact: bool = False,
    min_score: float | None = None,
    rank_by: RankBy = "similarity",
    include: Sequence[Literal["metadata", "vector"]] = ("metadata",),
    group_by: GroupBy | None = None,
    group_size: int | None = None,
) -> Call[SearchResponse]:
    """``POST /v1/search`` for rows [n, d] or references such as ``{"id": "7"}``.

    With ``group_by="label"`` for the k nearest labels, each with up to ``group_size`` items (1).
    """
    options: dict[str, Any] = {"exact": exact, "min_score": min_score, "rank_by": rank_by}
    options |= {"include": list(include), "group_by": group_by, "group_size": group_size}
    return _query("/v1/search", SearchResponse.model_validate_json, JSON, queries, k, filter, options)


def search_arrays(
    queries: Queries,
    k: int = 10,
    *,
    filter: Filter | None = None,  # noqa: A002
    exact: bool = False,
    min_score: float | None = None,
    rank_by: RankBy = "similarity",
    group_by: GroupBy | None = None,
    group_size: int | None = None,
) -> Call[SearchArrays]:
    """``POST /v1/search`` with a binary answer: the fastest way to many hits, without metadata."""
    options: dict[str, Any] = {"exact": exact, "min_score": min_score, "rank_by": rank_by, "include": []}
    options |= {"group_by": group_by, "group_size": group_size}
    return _query("/v1/search", read_search_arrays, OCTETS, queries, k, filter, options)


def match(
    queries: Queries,
    k: int = 100,
    *,
    filter: Filter | None = None,  # noqa: A002
    aggregate: Aggregate | None = None,
    candidates: int = 1,
    unknown_share: float | None = None,
    group: str | None = None,
    explain: bool = False,
    keep: bool = True,
    joint: bool = False,
) -> Call[MatchResponse]:
    """``POST /v1/match`` for rows [n, d] or references; ``aggregate`` is the point's own unless given.

    An array [n, v, d], or references such as ``{"vectors": rows}``, are queries of several vectors each,
    which are decided together. ``candidates`` of the best classes are named.
    With ``explain`` each answer says what the score of its class is made of.
    ``unknown_share`` of the queries, for the probability of an answer; ``group`` of the queries, whose point
    decides. ``joint`` chooses the classes of all queries together. Without ``keep`` nothing of the queries is
    kept, even by a service that keeps unknowns.
    """
    options: dict[str, Any] = {"aggregate": aggregate, "unknown_share": unknown_share, "group": group}
    options |= {"candidates": None if candidates == 1 else candidates, "keep": None if keep else False}
    options |= {"explain": True if explain else None, "joint": True if joint else None}
    queries = read_tensors(queries)
    if isinstance(queries, np.ndarray) and queries.ndim == 3:
        queries = [{"vectors": np.ascontiguousarray(rows)} for rows in queries]
    return _query("/v1/match", MatchResponse.model_validate_json, JSON, queries, k, filter, options)


def verify(pairs: Iterable[tuple[Reference, Reference]]) -> Call[VerifyResponse]:
    """``POST /v1/verify`` for pairs of references."""
    return send("POST", "/v1/verify", VerifyResponse, {"pairs": [{"a": a, "b": b} for a, b in pairs]})


def embeddings(inputs: Sequence[Any]) -> Call[Float32s]:
    """``POST /v1/embeddings``: float32 [n, d] unit rows."""

    def read_rows(content: bytes) -> Float32s:
        return np.frombuffer(content, dtype="<f4").reshape(len(inputs), -1).astype(np.float32)

    headers = {"Accept": OCTETS, "Content-Type": JSON}
    content = write_json({"input": list(inputs)})
    return Call("POST", "/v1/embeddings", read_rows, headers=headers, content=content)


def upsert(
    items: Sequence[dict[str, Any]], model_hash: str | None = None, *, fold_labels: bool = False
) -> Call[UpsertResponse]:
    """``PUT /v1/items``: each item has id, label, vector or input, and metadata.

    With ``fold_labels`` a label takes the gallery's spelling where case, blanks, invisible characters or
    Unicode form alone differ; without it the answer's ``notes`` name such labels.
    """
    body = {"items": list(items), "model_hash": model_hash, "fold_labels": fold_labels}
    return send("PUT", "/v1/items", UpsertResponse, body)


def item(item_id: str) -> Call[Item]:
    """``GET /v1/items/{id}``."""
    return get(f"/v1/items/{quote_segment(item_id)}", Item)


def items(cursor: str | None = None, limit: int = 100, *, label: str | None = None) -> Call[ItemPage]:
    """``GET /v1/items``: a page, of one class with ``label``; ``next_cursor`` is the next ``cursor``."""
    return get("/v1/items", ItemPage, cursor=cursor, limit=limit, label=label)


def classes(
    *,
    source: ClassSource = "holdout",
    sort: ClassSort = "worst",
    search: str = "",
    offset: int = 0,
    limit: int = 100,
) -> Call[ClassPage]:
    """``GET /v1/classes``: classes with their rates, worst first; ``next_offset`` is the next page's."""
    options: dict[str, Any] = {"source": source, "sort": sort, "search": search}
    return get("/v1/classes", ClassPage, **options, offset=offset, limit=limit)


def describe_class(label: str) -> Call[ClassDetail]:
    """``GET /v1/classes/{label}``: scores, hardest pairs and lookalikes of a class."""
    return get(f"/v1/classes/{quote_segment(label)}", ClassDetail)


def thumbnail(item_id: str) -> Call[bytes]:
    """``GET /v1/items/{id}/thumbnail``: WebP of an image, UTF-8 of the beginning of a text."""
    return Call("GET", f"/v1/items/{quote_segment(item_id)}/thumbnail", lambda content: content)


def previews(ids: Sequence[str]) -> Call[PreviewResponse]:
    """``POST /v1/items/previews``: up to 100 items as a list shows them."""
    return send("POST", "/v1/items/previews", PreviewResponse, {"ids": list(ids)})


def delete(item_id: str, *, rebuild: bool = False) -> Call[DeleteResponse]:
    """``DELETE /v1/items/{id}``; with ``rebuild`` a job removes it from the index files too."""
    path = f"/v1/items/{quote_segment(item_id)}"
    return Call("DELETE", path, DeleteResponse.model_validate_json, {"rebuild": rebuild})


def delete_items(
    *,
    ids: Sequence[str] | None = None,
    filter: Filter | None = None,  # noqa: A002
    rebuild: bool = False,
) -> Call[DeleteResponse]:
    """``POST /v1/items/delete``: by ids or by filter."""
    given: dict[str, Any] = {"filter": filter} if ids is None else {"ids": list(ids)}
    return send("POST", "/v1/items/delete", DeleteResponse, given | {"rebuild": rebuild})


def feedback(
    *, same: bool, decision_id: str | None = None, a: Reference | None = None, b: Reference | None = None
) -> Call[FeedbackResponse]:
    """``POST /v1/feedback``: ground truth for a decision or a pair."""
    subject = {"a": a, "b": b} if decision_id is None else {"decision_id": decision_id}
    return send("POST", "/v1/feedback", FeedbackResponse, subject | {"same": same})


def operating_points() -> Call[OperatingPointList]:
    """``GET /v1/operating-points``."""
    return get("/v1/operating-points", OperatingPointList)


def tradeoff(
    endpoint: Literal["match", "verify"] = "match",
    *,
    unknown_share: float | None = None,
    false_match_cost: float | None = None,
) -> Call[TradeoffResponse]:
    """The rates of every threshold that an endpoint could have."""
    params = drop_none({"unknown_share": unknown_share, "false_match_cost": false_match_cost})
    return get("/v1/operating-points/tradeoff", TradeoffResponse, endpoint=endpoint, **params)


def choose_threshold(
    endpoint: Literal["match", "verify"], threshold: float, *, name: str | None = None, activate: bool = False
) -> Call[ChoosePointResponse]:
    """Make a threshold an operating point, chosen by hand."""
    body = {"endpoint": endpoint, "threshold": threshold, "name": name, "activate": activate}
    return send("POST", "/v1/operating-points/choose", ChoosePointResponse, drop_none(body))


def add_operating_point(point: OperatingPoint) -> Call[OperatingPointSummary]:
    """``POST /v1/operating-points``."""
    return send("POST", "/v1/operating-points", OperatingPointSummary, point.model_dump(mode="json"))


def activate_operating_point(point_id: str) -> Call[ActivatePointResponse]:
    """``POST /v1/operating-points/{id}/activate``."""
    return send("POST", f"/v1/operating-points/{quote_segment(point_id)}/activate", ActivatePointResponse)


def galleries() -> Call[GalleryList]:
    """The galleries of the service; each is reached under its own address, `ADDRESS/v1/galleries/NAME`."""
    return get("/v1/galleries", GalleryList)


def models() -> Call[ModelList]:
    """``GET /v1/models``."""
    return get("/v1/models", ModelList)


def load_model(version: str) -> Call[Job]:
    """``POST /v1/models``: loads a bundle in the background; `wait` for the job."""
    return send("POST", "/v1/models", Job, {"version": version})


def compare_model(version: str) -> Call[Job]:
    """Compare a loaded model with the active one in the background."""
    return send("POST", f"/v1/models/{quote_segment(version)}/compare", Job)


def comparison(version: str) -> Call[Comparison]:
    """The last comparison of a loaded model with the active one."""
    return get(f"/v1/models/{quote_segment(version)}/comparison", Comparison)


def activate_model(version: str, allow_missing: bool = False) -> Call[ActivateModelResponse]:
    """``POST /v1/models/{version}/activate``."""
    path = f"/v1/models/{quote_segment(version)}/activate"
    return send("POST", path, ActivateModelResponse, {"allow_missing": allow_missing})


def consistency(source: Source = "holdout") -> Call[Report]:
    """``GET /v1/reports/consistency``."""
    return get("/v1/reports/consistency", Report, source=source)


def export_report(
    source: Source = "holdout",
    format: Literal["json", "csv", "html", "png"] = "html",  # noqa: A002  (as in the query string)
    chart: str | None = None,
) -> Call[bytes]:
    """The report as a file."""
    params = drop_none({"source": source, "format": format, "chart": chart})
    return Call("GET", "/v1/reports/consistency/export", lambda content: content, params=params)


def compute_report(source: Literal["gallery", "feedback"] = "gallery", *, update: bool = False) -> Call[Job]:
    """``POST /v1/reports/consistency``: starts a job; `wait` for it, then read `consistency`.

    ``update`` counts only what changed since the last report of the gallery.
    """
    params = drop_none({"source": source, "update": update or None})
    return Call("POST", "/v1/reports/consistency", Job.model_validate_json, params)


def start_label_audit() -> Call[Job]:
    """``POST /v1/labels/audit``: starts a job; `wait` for it, then read `label_audit`."""
    return Call("POST", "/v1/labels/audit", Job.model_validate_json)


def label_audit(
    kind: FindingKind | None = None, *, label: str | None = None, offset: int = 0, limit: int = 50
) -> Call[LabelAuditPage]:
    """``GET /v1/labels/audit``: items whose label may be wrong, most suspicious first."""
    return get("/v1/labels/audit", LabelAuditPage, kind=kind, label=label, offset=offset, limit=limit)


def export_label_audit() -> Call[bytes]:
    """``GET /v1/labels/audit/export``: all findings as CSV."""
    return Call("GET", "/v1/labels/audit/export", lambda content: content)


def history() -> Call[History]:
    """``GET /v1/reports/consistency/history``."""
    return get("/v1/reports/consistency/history", History)


def job(job_id: str) -> Call[Job]:
    """``GET /v1/jobs/{id}``."""
    return get(f"/v1/jobs/{quote_segment(job_id)}", Job)


def monitoring(
    seconds: int = 3_600, step: Literal["auto", "minute", "hour", "day"] = "auto"
) -> Call[Monitoring]:
    """``GET /v1/monitoring``."""
    return get("/v1/monitoring", Monitoring, seconds=seconds, step=step)


def alerts() -> Call[AlertList]:
    """``GET /v1/alerts``."""
    return get("/v1/alerts", AlertList)


def acknowledge_alert(alert_id: str, note: str | None = None) -> Call[Alert]:
    """``POST /v1/alerts/{id}/acknowledge``."""
    return send("POST", f"/v1/alerts/{quote_segment(alert_id)}/acknowledge", Alert, {"note": note})


def _query(
    path: str,
    read: Callable[[bytes], T],
    accept: str,
    queries: Queries,
    k: int,
    condition: Filter | None,
    options: dict[str, Any],
) -> Call[T]:
    """A search or match: references as JSON, rows [n, d] as raw float32 with options in the query string."""
    options = drop_none({"k": k, "filter": condition, **options})
    if isinstance(queries, Sequence) and all(isinstance(query, dict) for query in queries):
        content = write_json({"queries": list(queries), **options})
        return Call("POST", path, read, headers={"Accept": accept, "Content-Type": JSON}, content=content)
    try:
        rows = np.ascontiguousarray(np.atleast_2d(np.asarray(read_tensors(queries), dtype="<f4")))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"queries must be rows of numbers, or all of them references: {reason}.") from None
    if "filter" in options:
        options["filter"] = write_json(options["filter"]).decode()
    if "include" in options:
        options["include"] = ",".join(options["include"])
    return Call("POST", path, read, options, {"Accept": accept, "Content-Type": OCTETS}, rows.tobytes())

"""``/v1/reports/consistency``: how evenly the threshold holds, on hold-out data, the gallery and feedback."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from api_schemas.http.admin import History, HistoryEntry, Job
from api_schemas.report import Report
from service.auth.api_keys import NEEDS_WRITE
from service.errors.problems import CONFLICT, NOT_FOUND, ServiceProblem
from service.gallery_work.describe_task import describe_report
from service.gallery_work.run_worker import Report as Say
from service.http.bodies import write_json_response
from service.http.openapi import READ_STATUSES, describe_problems
from service.http.report_exports import MEDIA_TYPES, ExportFormat, export_report
from service.models.loaded_model import LoadedModel, find_items_folder
from service.models.recomputed_reports import (
    Source,
    build_history_entry,
    compute_feedback_report,
    get_report_path,
)
from service.state import ActiveModel, CurrentState, ServiceState, get_job_model, log_action, submit_job

router = APIRouter(tags=["inspect"])
PATH = "/v1/reports/consistency"
COMPUTED: tuple[Source, ...] = ("gallery", "feedback")


@router.get(
    PATH,
    summary="Read the consistency report",
    response_model=Report,
    responses=describe_problems(*READ_STATUSES, 404),
)
async def consistency(model: ActiveModel, state: CurrentState, source: Source = "holdout") -> Response:
    """The report of the bundle's hold-out data or, once computed by POST, of the gallery or of feedback.

    It holds OPIS with its interval, curves, and every class. Reports of gallery and feedback are measured
    with the score of the active operating point (`score` names it); those of another score are not given.
    """
    return write_json_response(require_report(state, model, source))


@router.get(
    f"{PATH}/export",
    summary="Read the report as a file",
    response_class=Response,
    responses={
        200: {
            "description": "The file. `csv` has a row a class, `png` one chart: `chart`, or the first.",
            "content": {kind.partition(";")[0]: {} for kind in MEDIA_TYPES.values()},
        },
        **describe_problems(*READ_STATUSES, 404),
    },
)
async def export(
    model: ActiveModel,
    state: CurrentState,
    source: Source = "holdout",
    format: ExportFormat = "json",  # noqa: A002
    chart: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """JSON, CSV, an HTML page that stands alone, or a chart as PNG: to keep, to send, to print."""
    points = [point for point in (model.active_match, model.active_verify) if point is not None]
    content = await state.looking.run(
        lambda: export_report(require_report(state, model, source), points, format, chart)
    )
    name = f"limen-{source}-{model.model_hash[:10]}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=MEDIA_TYPES[format], headers=headers)


@router.post(
    PATH,
    summary="Recompute a report",
    status_code=202,
    response_model=Job,
    responses=describe_problems(*READ_STATUSES, 409),
    dependencies=NEEDS_WRITE,
)
async def recompute(
    request: Request,
    model: ActiveModel,
    state: CurrentState,
    source: Literal["gallery", "feedback", "holdout"] = "gallery",
    update: bool = False,
) -> Response:
    """Starts a background job; the report and its entry in the history are there when it is done.

    The gallery's report is computed in a process of its own: in full from all pairs, or with `update` from
    the items that changed since, which gives the same OPIS and leaves out what needs all pairs.
    """
    if source == "holdout":
        raise ServiceProblem(
            CONFLICT, "The hold-out report belongs to the bundle: export or build it again to have another."
        )
    version = state.models.version
    parameters = {"version": version, "source": source, "update": update}
    path = f"{PATH}?source={source}"
    job = await asyncio.to_thread(
        submit_job, state, "report", parameters, f"report of the {source}", path, None
    )
    await log_action(request, state, "reports.compute", source=source)
    return write_json_response(job, status=202)


@router.get(f"{PATH}/history", summary="List past reports", responses=describe_problems(*READ_STATUSES))
async def history(model: ActiveModel, state: CurrentState) -> History:
    """OPIS, FAR and FRR over time and over model versions, oldest first; the hold-out report is the first."""
    entries = await state.looking.run(lambda: _read_history(state))
    if model.report is not None:
        entries.insert(0, build_history_entry("holdout", model.report, model, state.models.version))
    return History(entries=entries)


def _read_history(state: ServiceState) -> list[HistoryEntry]:
    entries = state.unsaved_history if state.settings.data is None else state.models.read_history()
    return sorted(entries, key=lambda entry: entry.at)


def submit_update(state: ServiceState) -> None:
    """Queue the job that brings the gallery's report up to date; one that waits already is enough."""
    model, version = state.models.active, state.models.version
    if model is not None:
        key = f"gallery report {model.model_hash}"
        parameters = {"version": version, "source": "gallery", "update": True}
        path = f"{PATH}?source=gallery"
        submit_job(state, "report", parameters, "report of the gallery", path, key)


def run_report(state: ServiceState, parameters: dict[str, Any], say: Say) -> None:
    """The job that computes a report and adds it to the history; with a data folder both are stored."""
    model = get_job_model(state, parameters)
    version: str = parameters["version"]
    source: Source = parameters["source"]
    if source == "gallery":
        folder = state.models.find_folder(version)
        task = describe_report(state.settings, folder, model, update=parameters["update"])
        report = Report.model_validate(state.gallery_workers.run(task, say))
    else:
        feedback = [] if model.live is None else model.live.records.read_feedback()
        report = compute_feedback_report(model, feedback)
    state.reports[model.model_hash, source] = report
    if state.shared is not None and model.live is not None:
        model.live.records.set_document(f"report.{source}", report.to_json())
    elif state.settings.data is not None:
        folder = find_items_folder(state.models.find_folder(version), state.settings.data)
        report.save(get_report_path(folder, source), private=True)
    entry = build_history_entry(source, report, model, version)
    if model.live is None:
        state.unsaved_history.append(entry)
    else:
        model.live.records.add_report(entry)


def read_shared_reports(state: ServiceState, model: LoadedModel) -> None:
    """Show the reports that any process of the service has made."""
    assert model.live is not None
    for source in COMPUTED:
        document = model.live.records.read_document(f"report.{source}")
        if document is not None:
            state.reports[model.model_hash, source] = Report.model_validate_json(document)


def require_report(state: ServiceState, model: LoadedModel, source: Source) -> Report:
    """The report of a source with the score that decides now; raises the problem ``not-found``."""
    report = read_report(state, model, source)
    if report is None:
        how = (
            "the bundle was made by an early version, or each of its classes has one item"
            if source == "holdout"
            else f"POST {PATH}?source={source} makes one"
        )
        raise ServiceProblem(NOT_FOUND, f"There is no report of the {source}: {how}.")
    if source != "holdout" and report.score != model.gallery.scorer.score:
        raise ServiceProblem(
            NOT_FOUND,
            f"The report of the {source} was made with the {report.score.kind} score of another "
            f"operating point than the active one: POST {PATH}?source={source} makes one with that score.",
        )
    return report


def read_report(state: ServiceState, model: LoadedModel, source: Source) -> Report | None:
    """The bundle's report, or a recomputed one from memory or from the data folder."""
    if source == "holdout":
        return model.report
    report = state.reports.get((model.model_hash, source))
    if report is None and state.settings.data is not None and state.shared is None:
        path = get_report_path(find_items_folder(state.models.active_folder, state.settings.data), source)
        if path.exists():
            report = state.reports[model.model_hash, source] = Report.load(path)
    return report

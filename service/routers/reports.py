"""``/v1/reports/consistency``: how evenly the threshold holds, on hold-out data, the gallery, feedback."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.admin import History, HistoryEntry, Job
from api_schemas.report import Report
from service.auth.api_keys import requires
from service.errors.problems import CONFLICT, NOT_FOUND, ServiceProblem
from service.http.bodies import write_json_response
from service.http.openapi import READING, problems
from service.models.loaded_model import LoadedModel, find_items_folder
from service.models.recomputed_reports import (
    Source,
    build_history_entry,
    compute_feedback_report,
    compute_gallery_report,
    report_file,
)
from service.state import ActiveModel, CurrentState, ServiceState, audit

router = APIRouter(tags=["look"])
PATH = "/v1/reports/consistency"


@router.get(
    PATH, summary="The consistency report", response_model=Report, responses=problems(*READING, 404, 422)
)
async def consistency(served: ActiveModel, state: CurrentState, source: Source = "holdout") -> Response:
    """Of the bundle's hold-out data; or, once computed by POST, of the gallery or of feedback.

    OPIS with its interval, curves, and every class. Reports of gallery and feedback are in the score of the
    active operating point (`score` names it), those made with another are not given.
    """
    report = served.report if source == "holdout" else state.reports.get((served.model_hash, source))
    if report is None and source != "holdout":
        report = _kept(state, served, source)
    if report is not None and source != "holdout" and report.score != served.gallery.scorer.score:
        raise ServiceProblem(
            NOT_FOUND,
            f"The report of the {source} was made with the {report.score.kind} score of another "
            f"operating point than the active one: POST {PATH}?source={source} makes one with that score.",
        )
    if report is None:
        how = (
            "export or build the bundle again"
            if source == "holdout"
            else f"POST {PATH}?source={source} makes one"
        )
        raise ServiceProblem(NOT_FOUND, f"There is no report of the {source}: {how}.")
    return write_json_response(report)


@router.post(
    PATH,
    summary="Compute a report anew",
    status_code=202,
    response_model=Job,
    responses=problems(*READING, 409, 422),
    dependencies=[Depends(requires("write"))],
)
async def recompute(
    request: Request,
    served: ActiveModel,
    state: CurrentState,
    source: Literal["gallery", "feedback", "holdout"] = "gallery",
) -> Response:
    """A job of its own; the report and its line in the history are there when it is done."""
    if source == "holdout":
        raise ServiceProblem(CONFLICT, "The hold-out report belongs to the bundle; limen evaluate makes it.")
    version = state.models.version
    job = state.jobs.submit(
        f"report of the {source}", lambda: _compute(state, served, version, source), f"{PATH}?source={source}"
    )
    audit(request, state, "reports.compute", source=source)
    return write_json_response(job, status=202)


@router.get(f"{PATH}/history", summary="Reports over time", responses=problems(*READING))
async def history(served: ActiveModel, state: CurrentState) -> History:
    """OPIS, FAR and FRR over time and over model versions, oldest first; the hold-out report is the first."""
    entries = await state.compute.run(lambda: _history(state))
    if served.report is not None:
        entries.insert(0, build_history_entry("holdout", served.report, served, state.models.version))
    return History(entries=entries)


def _history(state: ServiceState) -> list[HistoryEntry]:
    kept = state.models.history() if state.settings.data is not None else state.unkept
    return sorted(kept, key=lambda entry: entry.at)


def _compute(state: ServiceState, served: LoadedModel, version: str, source: Source) -> None:
    told = [] if served.live is None else served.live.records.feedback()
    report = compute_gallery_report(served) if source == "gallery" else compute_feedback_report(served, told)
    state.reports[served.model_hash, source] = report
    if state.settings.data is not None:
        folder = find_items_folder(state.models.folder(version), state.settings.data)
        report.save(report_file(folder, source))
    entry = build_history_entry(source, report, served, version)
    if served.live is None:
        state.unkept.append(entry)
    else:
        served.live.records.add_report(entry)


def _kept(state: ServiceState, served: LoadedModel, source: Source) -> Report | None:
    if state.settings.data is None:
        return None
    file = report_file(find_items_folder(state.models.active_folder(), state.settings.data), source)
    if not file.exists():
        return None
    report = Report.load(file)
    state.reports[served.model_hash, source] = report
    return report

"""``/v1/labels/audit``: items of the gallery whose label may be wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api_schemas.http.admin import Job
from api_schemas.http.label_audit import LabelAuditPage
from api_schemas.label_audit import FindingKind, LabelAudit, LabelFinding
from evaluation.label_audit.audit_files import write_csv
from service.auth.api_keys import NEEDS_WRITE
from service.errors.problems import NOT_FOUND, ServiceProblem
from service.gallery_work.describe_task import describe_audit
from service.gallery_work.run_worker import Report as Say
from service.http.bodies import write_json_response
from service.http.openapi import READ_STATUSES, describe_problems
from service.models.loaded_model import LoadedModel, find_items_folder
from service.state import ActiveModel, CurrentState, ServiceState, get_job_model, log_action, submit_job

router = APIRouter(tags=["inspect"])
PATH = "/v1/labels/audit"
AUDIT_FILE, DOCUMENT = "label-audit.json", "label audit"
MOST_OFFSET = 1_000_000
MOST_NAMED = 100
NO_AUDIT = f"The labels of this gallery were not audited: POST {PATH} does it."


@router.get(
    PATH,
    summary="List items whose label may be wrong",
    response_model=LabelAuditPage,
    responses=describe_problems(*READ_STATUSES, 404),
)
async def label_audit(
    model: ActiveModel,
    state: CurrentState,
    kind: FindingKind | None = None,
    label: Annotated[str | None, Query(max_length=512)] = None,
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Response:
    """The findings of the last audit, most suspicious first, each with the reason in words; no verdict.

    `kind` and `label` keep those of a kind, or of items that have the label.
    """

    def read() -> LabelAuditPage:
        audit = require_audit(state, model)
        found = [
            finding
            for finding in list_present(audit, model)
            if (kind is None or kind in finding.kinds) and (label is None or finding.label == label)
        ]
        stop = offset + limit
        return LabelAuditPage(
            **audit.model_dump(include=_SHARED),
            spellings=audit.spellings[:MOST_NAMED],
            unknown_labels=audit.unknown_labels[:MOST_NAMED],
            changed_since=audit.items != model.gallery.n_items or len(found) < _count(audit, kind, label),
            total=len(found),
            findings=found[offset:stop],
            next_offset=stop if len(found) > stop else None,
        )

    return write_json_response(await state.looking.run(read))


_SHARED = {"created_at", "items", "labels", "threshold", "threshold_from", "counts", "left_out"}


@router.get(
    f"{PATH}/export",
    summary="Read the label audit as CSV",
    response_class=Response,
    responses={
        200: {"description": "A line a finding.", "content": {"text/csv": {}}},
        **describe_problems(*READ_STATUSES, 404),
    },
)
async def export(model: ActiveModel, state: CurrentState) -> Response:
    """All findings that were kept (`LIMEN_LABEL_FINDINGS`), to correct labels where they come from."""
    text = await state.looking.run(lambda: write_csv(list_present(require_audit(state, model), model)))
    headers = {"Content-Disposition": f'attachment; filename="limen-labels-{model.model_hash[:10]}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.post(
    PATH,
    summary="Audit the labels of the gallery",
    status_code=202,
    response_model=Job,
    responses=describe_problems(*READ_STATUSES),
    dependencies=NEEDS_WRITE,
)
async def start_label_audit(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """Starts a background job in a process of its own; the findings are there when it is done."""
    version = state.models.version
    key = f"label audit {model.model_hash}"
    parameters = {"version": version}
    job = await asyncio.to_thread(submit_job, state, "label audit", parameters, "label audit", PATH, key)
    await log_action(request, state, "labels.audit")
    return write_json_response(job, status=202)


def find_audit(state: ServiceState, model: LoadedModel) -> LabelAudit | None:
    """The last audit of a model's gallery, from memory or from the data folder."""
    audit = state.label_audits.get(model.model_hash)
    if audit is None and state.settings.data is not None and state.shared is None:
        path = _find_file(state, state.models.active_folder)
        if path.exists():
            audit = state.label_audits[model.model_hash] = LabelAudit.load(path)
    return audit


def require_audit(state: ServiceState, model: LoadedModel) -> LabelAudit:
    """The last audit; raises the problem ``not-found``."""
    audit = find_audit(state, model)
    if audit is None:
        raise ServiceProblem(NOT_FOUND, NO_AUDIT)
    return audit


def list_present(audit: LabelAudit, model: LoadedModel) -> list[LabelFinding]:
    """The findings about items that are still there."""
    view = model.gallery.view
    return [finding for finding in audit.findings if view.get_vector(finding.id) is not None]


def _count(audit: LabelAudit, kind: FindingKind | None, label: str | None) -> int:
    return sum(
        (kind is None or kind in finding.kinds) and (label is None or finding.label == label)
        for finding in audit.findings
    )


def run_label_audit(state: ServiceState, parameters: dict[str, Any], say: Say) -> None:
    """The job that audits the labels of a model's gallery."""
    model = get_job_model(state, parameters)
    folder = state.models.find_folder(parameters["version"])
    task = describe_audit(state.settings, folder, model)
    audit = LabelAudit.model_validate(state.gallery_workers.run(task, say))
    if state.shared is not None and model.live is not None:
        model.live.records.set_document(DOCUMENT, audit.to_json())
    elif state.settings.data is not None:
        audit.save(_find_file(state, folder), private=True)
    state.label_audits[model.model_hash] = audit


def read_shared_audit(state: ServiceState, model: LoadedModel) -> None:
    """Show the label audit that any process of the service has made."""
    assert model.live is not None
    document = model.live.records.read_document(DOCUMENT)
    if document is not None:
        state.label_audits[model.model_hash] = LabelAudit.model_validate_json(document)


def _find_file(state: ServiceState, bundle: Path) -> Path:
    assert state.settings.data is not None
    return find_items_folder(bundle, state.settings.data) / AUDIT_FILE

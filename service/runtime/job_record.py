"""A background job as it is shown: how it begins, and how it ends."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from api_schemas.http.admin import Job
from common.errors import LimenError
from service.errors.problems import ServiceProblem
from service.telemetry.logs import LOGGER


def create_job(title: str, path: str) -> Job:
    """A job that waits; ``path`` is where its result can be read."""
    return Job(
        id=secrets.token_hex(8),
        kind=title,
        status="waiting",
        created_at=datetime.now(UTC),
        finished_at=None,
        detail=None,
        path=path,
    )


def finish_job(failure: str | None = None) -> dict[str, object]:
    """What changes in a job that is over: done, or failed for a reason."""
    return {
        "status": "done" if failure is None else "failed",
        "detail": failure,
        "finished_at": datetime.now(UTC),
        "step": None,
        "progress": None,
    }


def describe_failure(job_id: str, kind: str, error: Exception) -> str:
    """Why a job failed, for those who ask about it; the log has what nobody expected."""
    if isinstance(error, LimenError | ServiceProblem):
        return str(error)
    LOGGER.error("job failed", exc_info=error, extra={"fields": {"job": job_id, "kind": kind}})
    return "Internal error; the log has it under this job's id."

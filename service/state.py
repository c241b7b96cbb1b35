"""What one running service holds, and how a request gets at it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request

from api_schemas.http.admin import HistoryEntry
from api_schemas.report import Report
from common.errors import LimenError
from service.auth.decision_tokens import DecisionSigner
from service.errors.problems import NOT_READY, ServiceProblem
from service.models.gallery_gauges import RecallProbe
from service.models.loaded_model import LoadedModel
from service.models.model_registry import ModelRegistry
from service.runtime.background_jobs import BackgroundJobs
from service.runtime.compute_pool import ComputePool
from service.runtime.encode_batches import EncodeBatches
from service.settings import ServiceSettings
from service.telemetry.audit_log import AuditLog
from service.telemetry.drift import DriftMonitor
from service.telemetry.prometheus import LAST_FSYNC


@dataclass
class ServiceState:
    """``models.active`` is None until the bundle is loaded; ``failure`` says why it never will be.

    ``unkept`` is the history of reports of a service without a data folder.
    """

    settings: ServiceSettings
    compute: ComputePool
    encoding: EncodeBatches
    signer: DecisionSigner
    audit_log: AuditLog
    models: ModelRegistry
    jobs: BackgroundJobs = field(default_factory=BackgroundJobs)
    drift: DriftMonitor = field(default_factory=DriftMonitor)
    recall_probe: RecallProbe = field(default_factory=RecallProbe)
    reports: dict[tuple[str, str], Report] = field(default_factory=dict)
    unkept: list[HistoryEntry] = field(default_factory=list)
    failure: LimenError | None = None
    draining: bool = False
    on_failure: Callable[[], None] = field(default=lambda: None)


def state_of(request: Request) -> ServiceState:
    """The state of the app a request came to."""
    state: ServiceState = request.app.state.limen
    return state


def active(request: Request) -> LoadedModel:
    """The model that answers now; raises the problem ``not-ready`` (503) while it loads."""
    state = state_of(request)
    served = state.models.active
    if served is None:
        why = str(state.failure) if state.failure else "The bundle is being loaded and checked."
        raise ServiceProblem(NOT_READY, why, headers={"Retry-After": "1"})
    return served


def audit(request: Request, state: ServiceState, action: str, ids: Collection[str] = (), **more: Any) -> None:
    """Write who did what to the audit log."""
    # every action that is noted has been put on disk before
    LAST_FSYNC.set_to_current_time()
    state.audit_log.write(
        action,
        request.state.actor,
        request.state.request_id,
        datetime.now(UTC).isoformat(timespec="milliseconds"),
        ids,
        **more,
    )


# as dependencies they are coroutines: FastAPI would run a plain function in a thread of its own,
# which takes longer than a search
async def _state(request: Request) -> ServiceState:
    return state_of(request)


async def _active(request: Request) -> LoadedModel:
    return active(request)


CurrentState = Annotated[ServiceState, Depends(_state)]
ActiveModel = Annotated[LoadedModel, Depends(_active)]

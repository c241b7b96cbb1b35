"""The state of a running service, and how a request gets at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from api_schemas.http.admin import HistoryEntry, Job
from api_schemas.label_audit import LabelAudit
from api_schemas.report import Report
from common.errors import LimenError
from common.spans import record_span
from index.store.shared.records import SharedRecords
from index.store.write_order import WriteOrder
from service.auth.decision_tokens import DecisionSigner
from service.errors.problems import NOT_READY, ServiceProblem
from service.gallery_work.run_worker import GalleryWorkers
from service.gallery_work.shared_runner import NotHere, SharedRunner, Work
from service.models.gallery_gauges import RecallProbe
from service.models.loaded_model import LoadedModel
from service.models.model_comparison import ComparisonShelf
from service.models.model_registry import ModelRegistry
from service.models.replica_follower import ReplicaFollower
from service.monitoring.monitor import Monitor
from service.runtime.background_jobs import BackgroundJobs
from service.runtime.compute_pool import ComputePool
from service.runtime.encode_batches import EncodeBatches
from service.settings import ServiceSettings
from service.telemetry.audit_log import AuditLog
from service.telemetry.prometheus import LAST_FSYNC
from service.telemetry.tracing import Tracer
from service.unknowns.keep_queue import KeepQueue

T = TypeVar("T")
LOOK_EVERY = 0.25  # seconds between looks whether the client of a write that waits is still there


@dataclass
class ServiceState:
    """The parts of a running service.

    ``models.active`` is None until the bundle is loaded; ``failure`` says why it never will be.
    ``unsaved_history`` is the report history of a service without a data folder.
    """

    settings: ServiceSettings
    compute: ComputePool
    looking: ComputePool
    writing: ComputePool
    administration: ComputePool
    encoding: EncodeBatches
    signer: DecisionSigner
    audit_log: AuditLog
    models: ModelRegistry
    unknowns: KeepQueue
    monitor: Monitor
    follower: ReplicaFollower | None = None
    shared: SharedRecords | None = None
    runner: SharedRunner | None = None
    job_kinds: dict[str, Work] = field(default_factory=dict)
    jobs: BackgroundJobs = field(default_factory=BackgroundJobs)
    gallery_workers: GalleryWorkers = field(default_factory=GalleryWorkers)
    recall_probe: RecallProbe = field(default_factory=RecallProbe)
    reports: dict[tuple[str, str], Report] = field(default_factory=dict)
    comparisons: ComparisonShelf = field(default_factory=ComparisonShelf)
    label_audits: dict[str, LabelAudit] = field(default_factory=dict)
    unsaved_history: list[HistoryEntry] = field(default_factory=list)
    # held while a large JSON body is read
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    failure: LimenError | None = None
    draining: bool = False
    on_failure: Callable[[], None] = field(default=lambda: None)
    # of the first gallery alone: all galleries of the process, itself first, and what keeps its traces
    galleries: Sequence[ServiceState] = ()
    tracer: Tracer | None = None

    @property
    def is_loading(self) -> bool:
        """Whether the bundle is still being loaded."""
        return self.models.active is None and self.failure is None


def get_state(request: Request) -> ServiceState:
    """The state of the service that a request came to."""
    state: ServiceState = request.app.state.limen
    return state


def get_active_model(request: Request) -> LoadedModel:
    """The model that answers now; raises the problem ``not-ready`` (503) while it loads."""
    state = get_state(request)
    model = state.models.active
    if model is None:
        why = str(state.failure) if state.failure else "The bundle is being loaded and checked."
        raise ServiceProblem(NOT_READY, why, headers={"Retry-After": "1"})
    return model


def submit_job(
    state: ServiceState, kind: str, parameters: Mapping[str, Any], title: str, path: str, key: str | None
) -> Job:
    """Queue work on a loaded model, which ``parameters`` names by its ``version``, for one of the processes.

    ``path`` is where its result can be read; of a key one job waits.
    """
    if state.runner is not None:
        return state.runner.submit(kind, parameters, title, path, f"{kind} {parameters['version']}")
    return state.jobs.submit(
        title, lambda: state.job_kinds[kind](dict(parameters), state.jobs.report), path, key
    )


def get_job_model(state: ServiceState, parameters: Mapping[str, Any]) -> LoadedModel:
    """The model that a job is about; raises NotHere where this process has not loaded it."""
    try:
        return state.models.get_loaded(parameters["version"])
    except ServiceProblem as problem:
        raise NotHere(str(problem)) from None


def get_deciding_model(request: Request) -> LoadedModel:
    """The model that decides now; raises the problem ``stale`` (503) where it may know too little."""
    model, follower = get_active_model(request), get_state(request).follower
    if follower is not None:
        follower.check_current()
    return model


async def log_action(
    request: Request, state: ServiceState, action: str, ids: Collection[str] = (), **details: Any
) -> None:
    """Write who did what to the audit log, where no item store keeps it with what was done."""
    # whatever is logged has been put on disk before
    LAST_FSYNC.labels(state.settings.gallery).set_to_current_time()
    line = _build_line(request, action, details)
    await asyncio.to_thread(state.audit_log.write, line, ids)


def order_write(request: Request, action: str, **details: Any) -> WriteOrder:
    """A write to the item store, which keeps who did what in the same transaction."""
    # the first write of a request has its key
    key = request.scope["state"].pop("idempotency_key", None)
    return WriteOrder(_build_line(request, action, details), key)


async def write(request: Request, state: ServiceState, order: WriteOrder, work: Callable[[], T]) -> T:
    """The result of work that writes items or feedback, one at a time.

    It is withdrawn when it is answered 503, and when its client has left before the commit began. Reads go
    on meanwhile: they have threads of their own.
    """
    return await _carry_out(request, state.writing, order, work, bounded=True)


async def administer(request: Request, state: ServiceState, order: WriteOrder, work: Callable[[], T]) -> T:
    """The result of work that changes what decides, like ``write``; it may wait for a model to be loaded."""
    return await _carry_out(request, state.administration, order, work, bounded=False)


async def _carry_out(
    request: Request, pool: ComputePool, order: WriteOrder, work: Callable[[], T], *, bounded: bool
) -> T:
    watching = asyncio.create_task(_withdraw_with_client(request, order))
    try:
        with record_span("store"):
            result = await pool.run(work, bounded=bounded, order=order)
    finally:
        watching.cancel()
    LAST_FSYNC.labels(get_state(request).settings.gallery).set_to_current_time()
    return result


async def _withdraw_with_client(request: Request, order: WriteOrder) -> None:
    """Withdraw a write that waits while its client has left."""
    left = False
    while not left:
        await asyncio.sleep(LOOK_EVERY)
        left = await request.is_disconnected()
    order.withdraw()


def _build_line(request: Request, action: str, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": request.state.actor,
        "request_id": request.state.request_id,
        "action": action,
        **details,
    }


# dependencies are coroutines: FastAPI runs a plain function in a thread, which takes longer than a search
async def _depend_on_state(request: Request) -> ServiceState:
    return get_state(request)


async def _depend_on_model(request: Request) -> LoadedModel:
    return get_active_model(request)


CurrentState = Annotated[ServiceState, Depends(_depend_on_state)]
ActiveModel = Annotated[LoadedModel, Depends(_depend_on_model)]

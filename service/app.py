"""The application: state, middleware and routers."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE

from common.errors import ConfigError, LimenError
from index.store.service_records import ServiceRecords
from index.store.shared.records import SharedRecords
from service import VERSION
from service.auth.api_keys import NEEDS_READ, KeyRing, find_key_if_any, name_client
from service.auth.browser_sessions import BrowserSessions
from service.auth.decision_tokens import DecisionSigner
from service.auth.key_meter import KeyMeter
from service.auth.shared_keys import read_shared_keys
from service.auth.sign_in_limit import SignInLimit
from service.errors.problems import install_error_handlers
from service.errors.query_names import check_query_names
from service.galleries.gallery_settings import derive_settings, read_galleries
from service.galleries.gallery_table import GalleryApp, GalleryTable
from service.gallery_work.report_keeper import ReportKeeper
from service.gallery_work.shared_runner import SharedRunner
from service.http.fast_routes import FastRoutes
from service.http.idempotent_writes import IdempotentWrites
from service.http.middleware import NO_ROUTE, RequestMiddleware
from service.http.openapi import build_openapi
from service.http.origin_check import check_origin
from service.http.protocol.connections import ConnectionTable
from service.http.protocol.load_gate import LoadGate
from service.models.data_root import make_data_folder
from service.models.loaded_model import LoadedModel
from service.models.model_registry import ModelRegistry
from service.models.replica_follower import ReplicaFollower
from service.monitoring.monitor import Monitor
from service.routers.labels import read_shared_audit, run_label_audit
from service.routers.reports import read_shared_reports, run_report, submit_update
from service.routers.unknowns.groups import run_grouping
from service.runtime.compute_pool import ComputePool
from service.runtime.encode_batches import EncodeBatches
from service.runtime.event_loop_limit import EventLoopLimit
from service.runtime.malloc_trim import configure_malloc
from service.runtime.worker_exit import exit_with_parent
from service.settings import ServiceSettings, describe_open_host, is_loopback
from service.state import ServiceState
from service.telemetry import logs
from service.telemetry.audit_log import AuditLog
from service.telemetry.prometheus import observe_response
from service.telemetry.tracing import build_tracer
from service.unknowns.keep_queue import KeepQueue
from service.web.navigation import PAGES

DESCRIPTION = (
    'Similarity decisions: search, match (1:N, "who is this, or is it unknown?") and verify (1:1, "are these '
    'two the same?"), by an operating point: a frozen threshold with the proof of its error rates.'
)
TAGS = [
    {"name": "decide", "description": "Search, match and verify."},
    {"name": "embed", "description": "From raw input to unit vector."},
    {"name": "inspect", "description": "The served model, its operating points and its consistency reports."},
    {"name": "items", "description": "The items of the gallery, and feedback about decisions."},
    {"name": "unknowns", "description": "Queries that were kept: grouped, named, enrolled, reviewed."},
    {"name": "administer", "description": "Models side by side, operating points, background jobs."},
    {"name": "monitor", "description": "Time series of decisions, drift and latency; alerts."},
    {"name": "operate", "description": "Health and metrics."},
]
AUDIT_FILE = "audit.jsonl"
GC_OBJECTS = 10_000  # new objects after which the youngest are looked at for circles
WRITE_WAIT = 1.0  # seconds that a write may wait for those before it
LOOKERS, LOOK_WAIT = 2, 10.0  # threads for what people look at, and the seconds it may wait
# files of service.routers, in the order of the OpenAPI document; a new endpoint is a file and a name here
READ_ROUTERS = (
    "search",
    "match",
    "verify",
    "embeddings",
    "operating_points",
    "info",
    "thumbnails",
    "items",
    "classes",
    "feedback",
    "unknowns.groups",
    "unknowns.pool",
    "unknowns.review",
    "admin",
    "reports",
    "labels",
    "monitor.series",
    "monitor.alerts",
    *(f"pages.{page.name}" for page in PAGES),
)
OPEN_ROUTERS = ("health", "api_docs", "pages.sign_in")


class LimenService(FastAPI):
    """FastAPI inside the middleware, so that fast routes bypass FastAPI's own layers."""

    middleware_app: ASGIApp
    galleries: GalleryTable
    gate: LoadGate | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or the lifespan."""
        if scope["type"] == "http":
            self.galleries.assign(scope)
            await self.middleware_app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def call_fastapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request with FastAPI's own layers and routers, but for the one that would name its app."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        await self.middleware_stack(scope, receive, send)


def create_app(settings: ServiceSettings) -> LimenService:
    """The service for these settings. It answers at once, and is ready when its bundles are loaded."""
    app = LimenService(
        title="Limen",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    named = read_galleries(settings.galleries, settings)
    compute = ComputePool(settings.threads, settings.max_wait, settings.deadline)
    shared_parts = SharedParts(
        compute=compute,
        # what pages show takes long and comes many at a time: it waits, apart from what decides
        looking=ComputePool(LOOKERS, max(settings.max_wait, LOOK_WAIT), settings.deadline, "looking"),
        encoding=EncodeBatches(compute, settings.threads, settings.encode_batch, settings.encode_wait),
    )
    loop_limit, meter = EventLoopLimit(settings.max_turn), KeyMeter()

    def build_app_state(of_gallery: ServiceSettings) -> State:
        return State({"api": app, "meter": meter, **_build_gallery(of_gallery, shared_parts)})

    app.state = build_app_state(settings)
    apps = {
        name: GalleryApp(build_app_state(derive_settings(name, gallery, settings)))
        for name, gallery in named.items()
    }
    hosts = {host: apps[name] for name, gallery in named.items() for host in gallery.hosts}
    app.galleries = GalleryTable(app, apps, hosts)
    state: ServiceState = app.state.limen
    state.galleries = [state, *(gallery.state.limen for gallery in apps.values())]
    for gallery_state in state.galleries[1:]:
        gallery_state.on_failure = partial(_log_failure, gallery_state)

    def check_load() -> None:
        compute.check_wait()
        loop_limit.check_iteration()

    def check_arrival() -> None:
        compute.check_wait()
        loop_limit.check_arrival()

    if not named:  # what is refused before it is a call counts for the one gallery there is
        app.gate = LoadGate(check_arrival, partial(_observe_refusal, state))
    read_routers = [_import_router(name) for name in READ_ROUTERS]
    tracer = state.tracer = build_tracer(settings.traces, settings.trace_share)
    app.middleware_app = RequestMiddleware(
        IdempotentWrites(FastRoutes(app.call_fastapi, read_routers), _find_records, _name_owner),
        settings,
        check_load,
        _find_client,
        _check_headers,
        _observe,
        tracer,
    )
    install_error_handlers(app)
    for router in read_routers:
        app.include_router(router, dependencies=[*NEEDS_READ, Depends(check_query_names)])
    for name in OPEN_ROUTERS:
        app.include_router(_import_router(name))
    app.openapi = lambda: build_openapi(app)  # type: ignore[method-assign]
    return app


@dataclass(frozen=True)
class SharedParts:
    """What all galleries of a process have together: its threads, and the limits on what waits for them."""

    compute: ComputePool
    looking: ComputePool
    encoding: EncodeBatches
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


def _build_gallery(settings: ServiceSettings, parts: SharedParts) -> dict[str, Any]:
    """The parts of the app state that are of one gallery."""
    if settings.data is not None:
        make_data_folder(settings.data)
    shared = None
    if settings.data is not None and settings.database_url is not None:
        shared = SharedRecords(settings.database_url)
    signer = DecisionSigner.open(settings.data, shared, settings.gallery)
    audit_log = AuditLog(None if settings.data is None else settings.data / AUDIT_FILE, shared)
    # one write at a time; it waits for those before it, and reads do not wait for writes
    writing = ComputePool(1, max(settings.max_wait, WRITE_WAIT), settings.deadline, "writing")
    models = ModelRegistry(settings, audit_log, shared)
    state = ServiceState(
        settings=settings,
        compute=parts.compute,
        looking=parts.looking,
        writing=writing,
        administration=ComputePool(1, settings.max_wait, settings.deadline, "administration"),
        encoding=parts.encoding,
        reading=parts.reading,
        signer=signer,
        models=models,
        unknowns=KeepQueue(settings, writing, models),
        monitor=Monitor(settings, models, shared),
        audit_log=audit_log,
        shared=shared,
        follower=None if shared is None else ReplicaFollower(settings, shared, models),
    )
    _share_work(state)
    keyring = KeyRing(settings.api_keys_file)
    if shared is not None:

        def read_keys() -> None:
            keyring.shared = read_shared_keys(shared)

        read_keys()
        models.read_keys = read_keys
    if keyring.open_to_all and not is_loopback(settings.host):
        raise ConfigError(describe_open_host(settings.host))
    return {
        "limen": state,
        "settings": settings,
        "keyring": keyring,
        "sessions": BrowserSessions(signer.derive_key("browser sessions"), settings.session_time),
        "sign_in_limit": SignInLimit(settings.max_wrong_keys),
    }


def _log_failure(state: ServiceState) -> None:
    """A gallery that cannot be loaded answers why; the others go on."""
    logs.LOGGER.error(str(state.failure), extra={"fields": {"gallery": state.settings.gallery}})


def _find_client(scope: Scope) -> str:
    """Whose turn a request takes; raises the problem ``rate-limited`` for a key at its limit."""
    state = scope["app"].state
    if state.keyring.open_to_all:
        return scope["client"][0] if scope.get("client") else ""
    request = Request(scope)
    key = find_key_if_any(request)
    if key is not None:
        state.meter.count_request(key, scope["method"], scope["path"])
    return name_client(request, key)


def _name_owner(scope: Scope) -> str:
    if scope["app"].state.keyring.open_to_all:
        return ""
    request = Request(scope)
    return name_client(request, find_key_if_any(request))


def _find_records(scope: Scope) -> ServiceRecords | None:
    active: LoadedModel | None = scope["app"].state.limen.models.active
    return None if active is None or active.live is None else active.live.records


def _check_headers(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    if scope["app"].state.keyring.open_to_all:
        check_origin(headers)


def _observe(scope: Scope, route: str, status: int, seconds: float, problem: str | None) -> None:
    state: ServiceState = scope["app"].state.limen
    state.monitor.recorder.observe_response(route, status, seconds, problem)


def _observe_refusal(state: ServiceState, status: int, problem: str) -> None:
    observe_response(state.settings.gallery, NO_ROUTE, status, 0.0)
    state.monitor.recorder.observe_response(NO_ROUTE, status, 0.0, problem)


def _share_work(state: ServiceState) -> None:
    """Say what jobs do, and where several processes are one service let any of them do them."""
    for kind, work in (("report", run_report), ("label audit", run_label_audit), ("group", run_grouping)):
        state.job_kinds[kind] = partial(work, state)

    def read_documents(model: LoadedModel) -> None:
        read_shared_reports(state, model)
        read_shared_audit(state, model)

    if state.shared is not None:
        state.models.read_documents = read_documents
        state.runner = SharedRunner(state.shared, state.job_kinds)


def create_app_from_environment() -> LimenService:
    """The app of a worker process, with its settings from the environment.

    The process ends when its bundle cannot be loaded, and when its parent process is gone.
    """
    configure_malloc()
    settings = ServiceSettings()  # type: ignore[call-arg]
    logs.configure(settings.log_level)
    exit_with_parent()
    app = create_app(settings)
    state: ServiceState = app.state.limen

    def exit_process() -> None:
        logs.LOGGER.error(str(state.failure))
        os._exit(STARTUP_FAILURE)  # the parent stops at this exit code; at any other it starts a new worker

    state.on_failure = exit_process
    return app


def _import_router(name: str) -> APIRouter:
    router: APIRouter = import_module(f"service.routers.{name}").router
    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    assert isinstance(app, LimenService)
    state: ServiceState = app.state.limen
    loading = asyncio.gather(*(_load(gallery) for gallery in state.galleries))
    if state.settings.workers > 1:
        await loading  # connections go to any worker that accepts: only to those that are ready
    keepers = [_start_keeping(gallery) for gallery in state.galleries]
    yield {"connections": ConnectionTable(state.settings, app.gate)}
    for gallery in state.galleries:
        gallery.draining = True
    await loading
    for gallery, keeper in zip(state.galleries, keepers, strict=True):
        await _close(gallery, keeper)
    state.compute.close()
    state.looking.close()
    if state.tracer is not None:
        await asyncio.to_thread(state.tracer.close)


def _start_keeping(state: ServiceState) -> ReportKeeper:
    state.unknowns.start()
    keeper = ReportKeeper(state.settings, state.models, lambda: submit_update(state), state.shared)
    keeper.start()
    return keeper


async def _close(state: ServiceState, keeper: ReportKeeper) -> None:
    """End what is of one gallery."""
    if state.follower is not None:
        await asyncio.to_thread(state.follower.close)
    await asyncio.to_thread(keeper.close)
    if state.runner is not None:
        await asyncio.to_thread(state.runner.close)
    state.gallery_workers.close()
    await state.unknowns.close()
    await asyncio.to_thread(state.monitor.close)
    state.writing.close()
    state.administration.close()
    state.jobs.close()
    state.models.close()
    if state.shared is not None:
        state.shared.close()


async def _load(state: ServiceState) -> None:
    """Load the bundle in a thread, so that /livez answers meanwhile."""
    try:
        model = await asyncio.to_thread(state.models.start)
        # what is loaded stays: garbage collection in the middle of a request need not look at it again
        gc.collect()
        gc.freeze()
        # hits of a batch are thousands of tuples without circles: a look after each 700 takes a twentieth
        gc.set_threshold(GC_OBJECTS, *gc.get_threshold()[1:])
        settings = state.settings
        address = f"http://{settings.host}:{settings.port}"
        fields = {"address": address, "bundle": str(settings.bundle), "model_hash": model.model_hash}
        if settings.gallery != "default":
            fields["gallery"] = settings.gallery
        logs.LOGGER.info("listening", extra={"fields": fields})
        state.monitor.start()
        if state.follower is not None and state.runner is not None:
            state.follower.start()
            state.runner.start()
    except LimenError as error:
        state.failure = error
        state.on_failure()
    except Exception as error:
        logs.LOGGER.exception("loading failed")
        what = f"{type(error).__name__}: {error}".rstrip(":. ")
        state.failure = LimenError(
            f"{state.settings.bundle} cannot be served: {what}. This is a fault of Limen; the log line "
            "before this one says where."
        )
        state.on_failure()

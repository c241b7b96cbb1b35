"""The application: state, middleware and routers put together."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE

from common.errors import LimenError
from service.auth.api_keys import KeyRing, requires
from service.auth.decision_tokens import DecisionSigner
from service.errors import problems
from service.http import openapi
from service.http.fast_routes import FastRoutes
from service.http.middleware import RequestMiddleware
from service.models.model_registry import ModelRegistry
from service.routers import (
    admin,
    api_docs,
    dashboard,
    embeddings,
    feedback,
    health,
    info,
    items,
    match,
    reports,
    search,
    verify,
)
from service.routers.info import VERSION
from service.runtime.admission_queue import AdmissionQueue
from service.runtime.compute_pool import ComputePool
from service.runtime.encode_batches import EncodeBatches
from service.runtime.event_loop_limit import EventLoopLimit
from service.runtime.malloc_trim import configure_malloc
from service.runtime.worker_exit import exit_with_parent
from service.settings import ServiceSettings
from service.state import ServiceState
from service.telemetry import logs
from service.telemetry.audit_log import AuditLog

DESCRIPTION = (
    'Decisions on similarity: search, match (1:N, "who is this, or is it unknown?") and verify (1:1), by an '
    "operating point whose threshold is frozen together with the proof of what it does."
)
TAGS = [
    {"name": "decide", "description": "Search, match and verify."},
    {"name": "embed", "description": "From raw input to unit vector."},
    {"name": "look", "description": "What is served, by which rule, and how evenly it holds."},
    {"name": "items", "description": "What the gallery holds, and the truth about decisions."},
    {"name": "administer", "description": "Models side by side, operating points, jobs."},
    {"name": "operate", "description": "Health and metrics."},
]


class Service(FastAPI):
    """FastAPI inside what surrounds every request, so that a direct route passes by its layers."""

    surroundings: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] == "http":
            scope["app"] = self
            await self.surroundings(scope, receive, send)
        else:
            await self.inside(scope, receive, send)

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI makes of it."""
        await super().__call__(scope, receive, send)


def create_app(settings: ServiceSettings) -> Service:
    """The service for these settings. It answers at once and is ready when the bundle is loaded."""
    app = Service(
        title="Limen",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    if settings.data is not None:
        settings.data.mkdir(parents=True, exist_ok=True)
    compute = ComputePool(settings.threads, settings.max_wait, settings.deadline)
    state = ServiceState(
        settings=settings,
        compute=compute,
        encoding=EncodeBatches(compute, settings.threads, settings.encode_batch, settings.encode_wait),
        signer=DecisionSigner.open(settings.data),
        models=ModelRegistry(settings),
        audit_log=AuditLog(None if settings.data is None else settings.data / "audit.jsonl"),
    )
    app.state.limen = state
    app.state.settings = settings
    app.state.keyring = KeyRing(settings.api_keys_file)
    gate = AdmissionQueue(settings.max_inflight, settings.max_queue, settings.deadline)
    pace = EventLoopLimit(settings.max_turn)

    def admit() -> None:
        compute.admit()
        pace.admit()

    direct = FastRoutes(app.inside, routers=(search.router, match.router, verify.router))
    app.surroundings = RequestMiddleware(direct, settings.max_body_bytes, gate, admit)
    problems.install(app)
    reading = [Depends(requires("read"))]
    for router in (
        search.router,
        match.router,
        verify.router,
        embeddings.router,
        info.router,
        items.router,
        feedback.router,
        admin.router,
        reports.router,
        dashboard.router,
    ):
        app.include_router(router, dependencies=reading)
    for open_router in (health.router, api_docs.router):
        app.include_router(open_router)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app


def create_app_from_environment() -> Service:
    """The app of a worker process, which finds its settings in its environment.

    It ends when its bundle cannot be loaded, and when the process that started it is gone.
    """
    configure_malloc()
    settings = ServiceSettings()  # type: ignore[call-arg]
    logs.configure(settings.log_level)
    exit_with_parent()
    app = create_app(settings)
    state: ServiceState = app.state.limen

    def leave() -> None:
        logs.LOGGER.error(str(state.failure))
        os._exit(STARTUP_FAILURE)  # the parent then stops; any other end would have it start the next worker

    state.on_failure = leave
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    state: ServiceState = app.state.limen
    loading = asyncio.create_task(_load(state))
    if state.settings.workers > 1:
        await loading  # connections go to whichever worker takes them: to those that can answer alone
    yield {}
    state.draining = True
    await loading
    state.compute.close()
    state.jobs.close()
    state.models.close()


async def _load(state: ServiceState) -> None:
    """Load in a thread, so that /livez answers meanwhile."""
    try:
        served = await asyncio.to_thread(state.models.start)
        # what is loaded by now stays: the collector need not look at it again in the middle of a request
        gc.collect()
        gc.freeze()
        settings = state.settings
        address = f"http://{settings.host}:{settings.port}"
        fields = {"address": address, "bundle": str(settings.bundle), "model_hash": served.model_hash}
        logs.LOGGER.info("listening", extra={"fields": fields})
    except LimenError as error:
        state.failure = error
        state.on_failure()

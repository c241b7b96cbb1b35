"""Start the service: sockets, processes, signals."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from common.errors import ConfigError
from index.bundle import read_manifest
from service.app import create_app
from service.runtime.malloc_trim import configure_malloc
from service.settings import ServiceSettings, load_settings
from service.telemetry import logs


def run(
    bundle: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    data: Path | None = None,
    workers: int = 1,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT: running requests are answered, then the process ends.

    Args:
        bundle: the folder to serve; never written to.
        host, port: where to listen; port 0 takes a free one.
        data: folder for items and feedback; read-only without.
        workers: processes, each with its own copy of the small parts and a shared map of the large ones.

    Raises:
        LimenError: a setting, the bundle, or a port in use, in one sentence.
    """
    settings = load_settings(bundle=bundle, host=host, port=port, data=data, workers=workers)
    # before a socket is opened: a folder that is no bundle is the commonest mistake
    read_manifest(settings.bundle)
    listener = open_listener(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    logs.configure(settings.log_level)
    with listener:
        if settings.workers == 1:
            _one_process(settings, listener)
        else:
            _several_processes(settings, listener)


def check_port_free(host: str, port: int) -> None:
    """Raises ConfigError when the port is in use, before long work that would end at it."""
    open_listener(host, port).close()


def open_listener(host: str, port: int) -> socket.socket:
    """A bound socket; raises ConfigError in one sentence when there is none to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # bind alone succeeds beside a listener that has not been accepted from yet
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Port {port} on {host} cannot be listened on ({error.strerror}): choose another with --port, "
            "or stop what uses it."
        ) from None
    listener.set_inheritable(True)
    return listener


def _one_process(settings: ServiceSettings, listener: socket.socket) -> None:
    configure_malloc()
    app = create_app(settings)
    server = uvicorn.Server(_config(app, settings))
    state = app.state.limen

    def stop() -> None:
        server.should_exit = True

    state.on_failure = stop
    server.run(sockets=[listener])
    if state.failure is not None:
        raise state.failure


def _several_processes(settings: ServiceSettings, listener: socket.socket) -> None:
    shared = Path(tempfile.mkdtemp(prefix="limen-metrics-"))
    given = settings.model_dump(exclude_none=True)
    os.environ |= {f"LIMEN_{name.upper()}": str(value) for name, value in given.items()}
    os.environ["LIMEN_DECISION_KEY"] = secrets.token_hex(32)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
    try:
        config = _config("service.app:create_app_from_environment", settings)
        supervisor = Multiprocess(config, sockets=[listener])
        supervisor.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            raise ConfigError("A worker could not start; its line above says why.")
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _config(app: object, settings: ServiceSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=isinstance(app, str),
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(settings.drain),
        timeout_keep_alive=75,
    )

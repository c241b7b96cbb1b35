"""Start the service: the listening socket, one process or several, shutdown."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import SecretStr
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from common.errors import ConfigError
from index.bundle import read_manifest
from service.app import create_app
from service.http.protocol.connections import LimitedProtocol
from service.monitoring.worker_share import FOLDER_VARIABLE, make_share
from service.runtime.malloc_trim import configure_malloc
from service.settings import ServiceSettings, check_variables, load_settings
from service.telemetry import logs


def run(
    bundle: Path, *, host: str = "127.0.0.1", port: int = 8000, data: Path | None = None, workers: int = 1
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; requests in progress are answered, then the process ends.

    Args:
        bundle: the folder to serve; never written to.
        host, port: where to listen; port 0 takes a free one.
        data: folder for items and feedback; the service is read-only without it.
        workers: processes; they share the memory-mapped vectors.

    Raises:
        LimenError: a setting, the bundle, or a port in use, in one sentence.
    """
    configure_malloc()
    unknown = check_variables(os.environ)
    settings = load_settings(bundle=bundle, host=host, port=port, data=data, workers=workers)
    # before the socket is opened: a folder that is not a bundle is the most common mistake
    read_manifest(settings.bundle)
    listener = open_listener(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    logs.configure(settings.log_level)
    for name in unknown:
        logs.LOGGER.warning("unknown environment variable", extra={"fields": {"variable": name}})
    with listener:
        if settings.workers == 1:
            _run_one_process(settings, listener)
        else:
            _run_workers(settings, listener)


def check_port_free(host: str, port: int) -> None:
    """Raises ConfigError when the port is in use: before long work that would fail at its end."""
    open_listener(host, port).close()


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket; raises ConfigError when the port cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # bind alone succeeds beside a listener that has not accepted a connection yet
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Port {port} on {host} cannot be listened on ({error.strerror}): choose another with --port, "
            "or stop what uses it."
        ) from None
    listener.set_inheritable(True)
    return listener


def _run_one_process(settings: ServiceSettings, listener: socket.socket) -> None:
    app = create_app(settings)
    server = uvicorn.Server(build_config(app, settings))
    state = app.state.limen

    def stop() -> None:
        server.should_exit = True

    state.on_failure = stop
    server.run(sockets=[listener])
    if state.failure is not None:
        raise state.failure


class SharedPort(AbstractContextManager["SharedPort"]):
    """The port of a listener, which becomes a socket of its own in each process that it is sent to.

    The kernel then spreads connections over the processes that listen. Of a socket that they share the first
    to wake accepts all that are waiting: of eight connections at once one process often took all.

    Args:
        listener: closed once the port is kept; until then another service on that port is an error.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._family, self._address = listener.family, listener.getsockname()
        listener.close()
        self._kept = open_shared(self._family, self._address)

    def __reduce__(self) -> tuple[Callable[..., socket.socket], tuple[int, Any]]:
        return open_shared, (self._family, self._address)

    def __exit__(self, *_: object) -> None:
        self._kept.close()


def open_shared(family: int, address: Any) -> socket.socket:
    """A socket on a port that other processes of this user have, too; not listening yet."""
    opened = socket.socket(family)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind(address)
    return opened


class Supervisor(Multiprocess):
    """Starts the workers and replaces those that end, of which it learns at once.

    uvicorn keeps a copy of a worker's end of their pipe open. The answer to a health check of a worker that
    ended before it answered was therefore waited for as long as that of one that hangs: a minute, until the
    service said that its bundle cannot be loaded.
    """

    def keep_subprocess_alive(self) -> None:
        for worker in self.processes:
            worker.child_conn.close()
        super().keep_subprocess_alive()


def _run_workers(settings: ServiceSettings, listener: socket.socket) -> None:
    folder = Path(tempfile.mkdtemp(prefix="limen-workers-"))
    metrics_folder = folder / "metrics"
    metrics_folder.mkdir()
    make_share(folder)
    values = settings.model_dump(exclude_none=True)
    os.environ |= {
        f"LIMEN_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }
    os.environ["LIMEN_DECISION_KEY"] = secrets.token_hex(32)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        config = build_config("service.app:create_app_from_environment", settings)
        with SharedPort(listener) as port:
            supervisor = Supervisor(config, sockets=[port])  # type: ignore[list-item]
            supervisor.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            raise ConfigError("A worker could not start; its log line above says why.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build_config(app: object, settings: ServiceSettings) -> uvicorn.Config:
    """How the server runs an app, or the factory of one by its import path."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=isinstance(app, str),
        workers=settings.workers,
        # a worker that is still importing says nothing; killed for that, it would never start on busy cores
        timeout_worker_healthcheck=60,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(settings.drain),
        timeout_keep_alive=int(settings.keep_alive),
        http=LimitedProtocol,
        ws="none",
        proxy_headers=False,
    )

"""A connection to Milvus: calls with a time limit, retries with jitter, and one error while it is away."""

from __future__ import annotations

import json
import logging
import re
from functools import cache
from threading import Lock
from time import monotonic
from typing import Any

from common.errors import BundleError, ConfigError, MissingExtra
from common.time_budget import check_time
from index.engines.engine import EngineUnavailable
from index.engines.milvus.settings import MilvusSettings, load_milvus_settings

OLDEST = (2, 5)  # JSON paths, `exists`, upsert, aliases and count(*) work from here on
LOCAL_SERVER = "milvus_lite"  # what the version of the server for tests begins with
LONG_SECONDS = 300.0  # of calls that move or build data
AWAY_SECONDS = 1.0  # after a failure calls fail at once for so long, so that threads do not pile up
CONNECT_SECONDS = 5.0
# a retry waits a random part of these (gRPC's own policy)
FIRST_RETRY, LAST_RETRY = "0.05s", "0.5s"


class Refused(Exception):
    """Milvus answered, but not as wanted.

    Attributes:
        code: Milvus' error code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class MilvusServer:
    """One connection, shared by all threads, made on first use and again after the server was away."""

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._lock = Lock()
        self._away_until = 0.0
        self._why = ""

    def __str__(self) -> str:
        """The address, without a password."""
        return re.sub(r"(?<=//)[^/@]*@", "", str(self._settings.milvus_uri))

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A method of ``pymilvus.MilvusClient``.

        Raises EngineUnavailable while the server cannot be reached, and Refused for what it declines.
        """
        import grpc
        from pymilvus import MilvusException

        check_time()
        if monotonic() < self._away_until:
            raise EngineUnavailable(self._why)
        try:
            # gRPC retries; pymilvus would do so 75 times, or for as long as its own timeout
            return getattr(self._connect(), method)(*args, retry_times=0, **kwargs)
        except MilvusException as error:
            if isinstance(error.code, int) and error.code > 2:
                raise Refused(error.code, _get_first_line(error)) from None
            raise self._note_away(error) from None
        except grpc.RpcError as error:
            raise self._note_away(error) from None

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
        return self._client

    def _make_client(self) -> Any:
        from pymilvus import MilvusClient

        settings = self._settings
        files = {
            "ca_pem_path": settings.milvus_ca_file,
            "client_pem_path": settings.milvus_cert_file,
            "client_key_path": settings.milvus_key_file,
        }
        if settings.milvus_cert_file is None:
            files = {"server_pem_path": settings.milvus_ca_file}
        try:
            client = MilvusClient(
                settings.milvus_uri,
                token="" if settings.milvus_token is None else settings.milvus_token.get_secret_value(),
                db_name=settings.milvus_database,
                timeout=CONNECT_SECONDS,
                dedicated=True,
                grpc_options=_build_grpc_options(settings.milvus_timeout),
                **{name: str(path) for name, path in files.items() if path is not None},
            )
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.") from None
        self._check_version(str(client.get_server_version(retry_times=0)))
        return client

    def _check_version(self, version: str) -> None:
        numbers = re.search(r"(\d+)\.(\d+)", version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise BundleError(
                f"Milvus at {self} is version {version[:40]}, Limen needs {OLDEST[0]}.{OLDEST[1]} or newer: "
                "upgrade it, or build the index with another index.kind."
            )

    def _note_away(self, error: Exception) -> EngineUnavailable:
        reason = _get_first_line(error)
        if reason.startswith("Fail connecting"):
            reason = "nothing answers there, or it takes no connection"
        self._why = f"Milvus at {self} cannot be reached: {reason}."
        self._away_until = monotonic() + AWAY_SECONDS
        return EngineUnavailable(self._why)


@cache
def _share_server(settings: MilvusSettings) -> MilvusServer:
    return MilvusServer(settings)


def get_server() -> MilvusServer:
    """The server that the environment names; raises ConfigError where it names none."""
    settings = load_milvus_settings()
    if settings.milvus_uri is None:
        raise ConfigError(
            "The index is kept in Milvus, and LIMEN_MILVUS_URI does not say where that is: set it to "
            "http://HOST:19530, or make a bundle with another engine with `limen migrate`."
        )
    try:
        import pymilvus  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("index.kind=milvus", "milvus") from error
    # what it logs is raised as well, and would be said twice
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return _share_server(settings)


def _build_grpc_options(search_seconds: float) -> dict[str, Any]:
    """Limits and retries of calls, and of connecting again."""
    retry = {
        "maxAttempts": 4,
        "initialBackoff": FIRST_RETRY,
        "maxBackoff": LAST_RETRY,
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    service = "milvus.proto.milvus.MilvusService"
    quick = [{"service": service, "method": name} for name in ("Search", "GetVersion", "GetLoadState")]
    methods = [
        {"name": quick, "timeout": f"{search_seconds:g}s", "retryPolicy": retry},
        {"name": [{}], "timeout": f"{LONG_SECONDS:g}s", "retryPolicy": retry},
    ]
    return {
        "grpc.service_config": json.dumps({"methodConfig": methods}),
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 1_000,
    }


def _get_first_line(error: Exception) -> str:
    """What the driver says, without its codes and the lines below."""
    text = getattr(error, "message", None)
    if not isinstance(text, str) or not text:
        details = getattr(error, "details", None)
        text = details() if callable(details) else str(error)
    text = re.sub(
        r"^\[\w+\] Retry run out of 0 retry times,? ?(message=)?", "", str(text or type(error).__name__)
    )
    return text.strip().splitlines()[0].rstrip(".")[:300]

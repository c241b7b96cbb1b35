"""The settings of the service: flags of ``limen serve`` and environment variables ``LIMEN_*``."""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api_schemas.base import describe_first_problem
from api_schemas.http.decisions import MOST_ELEMENTS, Limits
from api_schemas.preprocessing import Provider
from common.errors import ConfigError
from encoder.thumbnails import LARGEST_SIDE, SMALLEST_SIDE
from index.engines.milvus.settings import MilvusSettings
from index.engines.search_settings import SearchSettings
from index.items.metadata import MetadataBounds

KIB, MIB = 1 << 10, 1 << 20
PREFIX = "LIMEN_"
# of tests, of one process for its workers, of commands that ask a service, and of training
OTHER_VARIABLES = frozenset(
    (
        "LIMEN_DATASETS",
        "LIMEN_REQUIRE_ALL",
        "LIMEN_DECISION_KEY",
        "LIMEN_WORKERS_FOLDER",
        "LIMEN_KEY",
        "LIMEN_CACHE",
    )
)


def _limit(
    default: float,
    description: str,
    *,
    ge: float | None = 1,
    gt: float | None = None,
    le: float | None = None,
) -> Any:
    """A limit with its default and description; at least 1 unless said otherwise."""
    return Field(default=default, description=description, ge=ge if gt is None else None, gt=gt, le=le)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def describe_open_host(host: str) -> str:
    """Why a service without keys may not listen there, and what to do."""
    return (
        f"host {host} can be reached from other machines, which needs keys: make one with "
        "`limen keys create --name me --file keys.json` and set LIMEN_API_KEYS_FILE=keys.json, "
        "or listen on 127.0.0.1"
    )


class ServiceSettings(BaseSettings):
    """Settings; each can be given as ``LIMEN_<NAME>``. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    bundle: Path = Field(description="the bundle to serve; it is never written to")
    host: str = Field(default="127.0.0.1", description="address to listen on; others than loopback need keys")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data: Path | None = Field(default=None, description="folder for items and feedback; read-only without it")
    workers: int = Field(default=1, ge=1, le=256, description="processes; above 1 only without a data folder")
    bundles: Path | None = Field(default=None, description="folder of bundles for `/v1/models`")
    gallery: str = Field(
        default="default",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="name of the gallery that plain paths are about, as metrics have it",
    )
    galleries: Path | None = Field(
        default=None,
        description="YAML that names further galleries and their bundles "
        "([several galleries](serving.md#several-galleries))",
    )
    api_keys_file: Path | None = Field(
        default=None, description="file of keys; in a container mount its folder, not the file"
    )
    database_url: str | None = Field(
        default=None,
        description="PostgreSQL for the items, instead of SQLite in the data folder; any number of services "
        "may share it ([several replicas](operations.md#several-replicas))",
    )
    max_staleness: float = _limit(
        60.0,
        "time for which a service with `LIMEN_DATABASE_URL` decides without having seen what others have "
        "written, as while the database is away; then decisions get 503",
    )
    encoder_provider: Provider = Field(
        default="cpu",
        description="where ONNX Runtime computes the encoder: `cpu`, `cuda`, `tensorrt`, `openvino` or "
        "`coreml`; the CPU does where that is not installed or makes other vectors, which `/v1/info` says",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log lines that are written; from `info` on one per request"
    )
    slow_query: float | None = Field(
        default=None,
        gt=0,
        description="requests that take longer are logged with the time of each of their parts, without what "
        "was asked ([slow queries](monitoring.md#slow-queries-and-traces))",
    )
    traces: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+",
        description="address of an OpenTelemetry collector (OTLP over HTTP), such as "
        "`http://collector:4318`, that gets a trace of each request (extra `otel`)",
    )
    trace_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of requests that are traced; one that comes with a trace is if its sender's is",
    )

    unknown_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of queries that are of no class in the gallery, for the probability of an answer; "
        "a request may give its own",
    )

    keep_unknowns: Literal["off", "unknown", "all"] = Field(
        default="off",
        description="keep queries of `/v1/match` for people to look at ([unknowns](unknowns.md)): `unknown` "
        "those answered unknown, `all` every one. Stored in the data folder: vector, time, best candidate, "
        "score, threshold, the request's metadata and, where `LIMEN_THUMBNAILS` is set, a small picture or "
        "the beginning of the text",
    )
    unknowns_days: int = _limit(30, "days after which a kept query is erased", le=36_500)
    unknowns_max: int = _limit(20_000, "queries that are kept; beyond, the oldest are erased", le=1_000_000)
    unknowns_queue: int = _limit(
        5_000, "kept queries that wait in memory to be written; more at once are not kept, which is counted"
    )
    max_corrections: int = _limit(10_000, "corrections (`not_label`) that matches obey", le=100_000)

    thumbnails: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="pixels of the longer side of the small picture that is kept of each item written with "
        "an image as `input`, such as 96; of a text its first 500 characters. They are erased with the item. "
        "Nothing is kept without it",
    )

    monitor_interval: float = _limit(
        5.0,
        "time between two looks at what was decided ([monitoring](monitoring.md)); what a crash loses of the "
        "time series at most",
        ge=0.05,
        le=3_600,
    )
    max_monitoring_steps: int = _limit(3_000, "periods in one answer of `/v1/monitoring`")
    alerts_file: Path | None = Field(
        default=None, description="YAML that changes the alert rules or adds some"
    )
    webhook_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+",
        description="receiver of alerts; needs `LIMEN_WEBHOOK_SECRET`",
    )
    webhook_secret: SecretStr | None = Field(
        default=None, min_length=16, description="what signs the alerts that are sent; 16 characters or more"
    )
    webhook_timeout: float = _limit(5.0, "one attempt to deliver an alert", gt=0, le=60)
    webhook_attempts: int = _limit(6, "attempts to deliver one alert", le=20)
    webhook_queue: int = _limit(64, "alerts that may wait to be delivered", le=10_000)

    gallery_report_after: float = _limit(
        60.0,
        "time after the last write from which the gallery's report is brought up to date, in a process of "
        "its own; 0 for never",
        ge=0,
        le=86_400,
    )
    gallery_report_items: int = _limit(
        50_000, "items of a gallery whose report is brought up to date by itself; larger ones on request"
    )
    label_findings: int = _limit(10_000, "findings of a label audit that are kept", le=100_000)

    max_queries: int = _limit(
        1_000, "queries of a search or match, pairs of a verification", le=MOST_ELEMENTS
    )
    max_k: int = _limit(1_000, "results of one query")
    max_explained: int = _limit(10, "queries of one match that are explained")
    max_items: int = _limit(10_000, "items of one write, ids of one deletion", le=MOST_ELEMENTS)
    max_body_bytes: int = _limit(128 * MIB, "bytes of a binary body (raw float32 rows)")
    max_json_bytes: int = _limit(32 * MIB, "bytes of a JSON body")
    max_answer_values: int = _limit(
        2_000_000,
        "values in one answer: a hit counts as 8, and with its vector as many more as that has numbers",
    )
    max_answer_bytes: int = _limit(64 * MIB, "bytes of one JSON answer of search")
    max_image_bytes: int = _limit(16 * MIB, "bytes of one image, before base64")
    max_image_pixels: int = _limit(32_000_000, "pixels of one image")
    max_image_side: int = _limit(16_384, "pixels of one side of an image")
    max_image_scans: int = _limit(32, "scans of a JPEG; each takes as long as a whole image")
    max_audio_bytes: int = _limit(16 * MIB, "bytes of one recording, before base64")
    max_audio_seconds: int = _limit(600, "seconds of one recording")
    max_filter_depth: int = _limit(8, "levels of $and, $or and $not in a filter")
    max_filter_conditions: int = _limit(64, "comparisons in a filter")
    max_filter_values: int = _limit(10_000, "values in the lists of a filter ($in, $nin)")

    class_items: int = _limit(
        256, "items of a class that are compared for its page, an even sample of more", ge=2, le=1_024
    )
    class_others: int = _limit(
        4_096, "items of other classes that these are compared with, an even sample", le=16_384
    )

    max_item_fields: int = _limit(64, "metadata fields of an item that is written")
    max_gallery_fields: int = _limit(
        256, "metadata fields of a gallery, each a column over all items; one that no item has is forgotten"
    )
    max_field_name: int = _limit(128, "characters of the name of a metadata field")
    max_field_text: int = _limit(8_192, "characters of a text in the metadata")
    max_field_values: int = _limit(64, "values of a list in the metadata")

    max_inflight: int = _limit(64, "requests in progress; their bodies are in memory")
    max_inflight_per_client: int = _limit(
        48, "of these, requests of one key, or of one address where no keys are configured"
    )
    max_queue: int = _limit(128, "requests that may wait for that, three quarters of one client", ge=0)
    max_buffered_bytes: int = _limit(
        256 * MIB, "bytes of all bodies and large answers in memory at once; beyond, requests get 429"
    )
    threads: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 1) - 1),
        description="threads that compute; one core is left to the event loop, which also answers refusals",
        ge=1,
        le=256,
    )
    max_wait: float = _limit(
        0.01,
        "wait for a compute thread; what would wait longer, and than 4 times what it takes, gets 429",
        ge=0,
    )
    max_turn: float = _limit(
        0.002, "duration of one iteration of the event loop; searches that come later in it get 429", ge=0
    )
    encode_batch: int = _limit(8, "inputs that are encoded together")
    encode_wait: float = _limit(0.0, "longest wait for such a batch to fill", ge=0)
    deadline: float = _limit(30.0, "longest answer; a request that takes longer gets 503", gt=0)
    drain: float = _limit(20.0, "time that requests in progress have to end when the service stops", gt=0)

    session_time: float = _limit(
        12 * 3600.0, "time after which a browser that signed in with a key must do so again", ge=60
    )
    max_wrong_keys: int = _limit(10, "wrong keys a minute from one address at the form to sign in")

    max_header_bytes: int = _limit(64 * KIB, "bytes of the first line and headers of a request", ge=4 * KIB)
    max_connections: int = _limit(
        1_000,
        "open connections, and never more than the process may open; the longest idle one, or else the one "
        "with the slowest body, makes room for a new one",
    )
    max_connections_per_address: int = _limit(500, "open connections from one address")
    header_timeout: float = _limit(10.0, "longest wait for the headers of a request once it has begun", gt=0)
    keep_alive: float = _limit(75.0, "time after which an idle connection is closed", ge=1)
    min_body_rate: int = _limit(
        16 * KIB,
        "bytes a second at which bodies must come and answers be taken, after 5 seconds",
    )

    @model_validator(mode="after")
    def _check_safe(self) -> ServiceSettings:
        if self.workers > 1 and self.data is not None:
            raise ValueError("workers above 1 need a read-only service: leave out data, or use one worker")
        if self.webhook_url is not None and self.webhook_secret is None:
            raise ValueError("webhook_url needs a secret that signs what is sent: set LIMEN_WEBHOOK_SECRET")
        # with a database, keys may be there: it is asked once it can be
        if self.api_keys_file is None and self.database_url is None and not is_loopback(self.host):
            raise ValueError(describe_open_host(self.host))
        return self

    @property
    def metadata_bounds(self) -> MetadataBounds:
        """What the metadata of a write may be."""
        return MetadataBounds(
            self.max_item_fields,
            self.max_gallery_fields,
            self.max_field_name,
            self.max_field_text,
            self.max_field_values,
        )

    @property
    def limits(self) -> Limits:
        """The limits of a request and of the load, as ``/v1/info`` shows them."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})


ALL_FIELDS = {
    **ServiceSettings.model_fields,
    **SearchSettings.model_fields,
    **MilvusSettings.model_fields,
}
"""Every setting by its name."""


def check_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables ``LIMEN_*`` that name no setting.

    Raises:
        ConfigError: one of them is close to a setting's name, so that it is taken for misspelt.
    """
    known = {PREFIX + name.upper() for name in ALL_FIELDS} | OTHER_VARIABLES
    unknown = sorted(
        name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known
    )
    for name in unknown:
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
        if close:
            raise ConfigError(f"The environment sets {name}, which is no setting: did you mean {close[0]}?")
    return unknown


def load_settings(**given: object) -> ServiceSettings:
    """Settings from flags and environment; raises ConfigError that names the offending one."""
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        where, what = describe_first_problem(error)
        name = "" if where == "(top level)" else f"{where} (LIMEN_{where.upper()}): "
        raise ConfigError(f"Service setting {name}{what.removeprefix('Value error, ')}.") from None

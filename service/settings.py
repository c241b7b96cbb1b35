"""The settings of the service: flags of ``limen serve`` and environment variables ``LIMEN_*``."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api_schemas.base import describe_first_problem
from api_schemas.http.decisions import Limits
from common.errors import ConfigError

MIB = 1 << 20


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServiceSettings(BaseSettings):
    """Settings; each can be given as ``LIMEN_<NAME>``. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="LIMEN_", extra="ignore", frozen=True)

    bundle: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data: Path | None = None
    workers: int = Field(default=1, ge=1, le=256)
    bundles: Path | None = None
    api_keys_file: Path | None = None
    database_url: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    max_queries: int = Field(default=1_000, ge=1)
    max_k: int = Field(default=1_000, ge=1)
    max_items: int = Field(default=10_000, ge=1)
    max_body_bytes: int = Field(default=128 * MIB, ge=1)
    max_image_bytes: int = Field(default=16 * MIB, ge=1)
    max_image_pixels: int = Field(default=32_000_000, ge=1)
    max_filter_depth: int = Field(default=8, ge=1)

    # service/runtime/__init__.py explains the limits on load
    # requests in progress (their bodies are in memory), and requests that may wait for that
    max_inflight: int = Field(default=64, ge=1)
    max_queue: int = Field(default=128, ge=0)
    # compute threads; one core is left to the event loop, which also answers refused requests
    threads: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 1) - 1), ge=1, le=256)
    # work that would wait longer than this, and than 4 times its unloaded duration, gets 429
    max_wait: float = Field(default=0.01, ge=0)
    # searches and matches that arrive later in an iteration of the event loop get 429
    max_turn: float = Field(default=0.002, ge=0)
    # inputs of one encoder batch, and the maximum wait for a batch to fill
    encode_batch: int = Field(default=8, ge=1)
    encode_wait: float = Field(default=0.0, ge=0)
    # a request that takes longer gets 503; at shutdown requests in progress have `drain` to end
    deadline: float = Field(default=30.0, gt=0)
    drain: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _check_safe(self) -> ServiceSettings:
        if self.workers > 1 and self.data is not None:
            raise ValueError("workers above 1 need a read-only service: leave out data, or use one worker")
        if self.api_keys_file is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines, which needs keys: make one with "
                "`limen keys create --name me --file keys.json` and set LIMEN_API_KEYS_FILE=keys.json, "
                "or listen on 127.0.0.1"
            )
        return self

    @property
    def limits(self) -> Limits:
        """The limits of a request and of the load, as ``/v1/info`` shows them."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})


def load_settings(**given: object) -> ServiceSettings:
    """Settings from flags and environment; raises ConfigError that names the offending one."""
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        where, what = describe_first_problem(error)
        name = "" if where == "(top level)" else f"{where} (LIMEN_{where.upper()}): "
        raise ConfigError(f"Service setting {name}{what.removeprefix('Value error, ')}.") from None

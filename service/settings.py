"""All settings of the service in one place: flags of ``limen serve`` or variables ``LIMEN_*``."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api_schemas.base import first_problem
from api_schemas.http.decisions import Limits
from common.errors import ConfigError

MIB = 1 << 20


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServiceSettings(BaseSettings):
    """Every value can be given as ``LIMEN_<NAME>``; sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="LIMEN_", extra="ignore", frozen=True)

    bundle: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data: Path | None = None
    workers: int = Field(default=1, ge=1, le=256)
    bundles: Path | None = None
    api_keys_file: Path | None = None
    engine: Literal["faiss"] = "faiss"
    database_url: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    max_queries: int = Field(default=1_000, ge=1)
    max_k: int = Field(default=1_000, ge=1)
    max_items: int = Field(default=10_000, ge=1)
    max_body_bytes: int = Field(default=128 * MIB, ge=1)
    max_image_bytes: int = Field(default=16 * MIB, ge=1)
    max_image_pixels: int = Field(default=32_000_000, ge=1)
    max_filter_depth: int = Field(default=8, ge=1)

    # requests admitted (their bodies are in memory), and connections that may wait for that
    max_inflight: int = Field(default=64, ge=1)
    max_queue: int = Field(default=128, ge=0)
    # computing threads; one core is left to the event loop, which must answer whoever is sent away
    threads: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 1) - 1), ge=1, le=256)
    # work that would wait longer than this, and than 4 x its unloaded time, gets 429
    max_wait: float = Field(default=0.01, ge=0)
    # answers are begun until a turn of the event loop has lasted this long; what comes after gets 429
    max_turn: float = Field(default=0.002, ge=0)
    # inputs encoded together, and seconds that a batch which is not full waits for company
    encode_batch: int = Field(default=8, ge=1)
    encode_wait: float = Field(default=0.0, ge=0)
    deadline: float = Field(default=30.0, gt=0)
    drain: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _refuse_what_is_unsafe(self) -> ServiceSettings:
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
        """What one request may ask for, as ``/v1/info`` shows it."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})


def load_settings(**given: object) -> ServiceSettings:
    """Settings from flags and environment; raises ConfigError naming the offending one."""
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        where, what = first_problem(error)
        name = "" if where == "(top level)" else f"{where} (LIMEN_{where.upper()}): "
        raise ConfigError(f"Service setting {name}{what.removeprefix('Value error, ')}.") from None

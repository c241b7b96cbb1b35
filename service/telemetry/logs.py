"""Logs as JSON lines on standard error, with the request's id; never a body, a vector or a key."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

LOGGER = logging.getLogger("limen.service")
_requests_go_to: _Stderr | None = None


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's message and the fields given as ``extra={"fields": {...}}``."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Stderr:
    """Whatever stderr is when a line is written: who replaced it may have closed the old one."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(level: str) -> None:
    """Send the service's and the server's own log lines to standard error as JSON."""
    global _requests_go_to
    _requests_go_to = _Stderr() if level in {"debug", "info"} else None
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(JsonLines())
    for name in ("limen", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler] if name != "uvicorn.error" else []
        logger.setLevel(level.upper())
        logger.propagate = name == "uvicorn.error"
    # it says that it runs before a bundle has been checked
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger("limen").level))


def wants_requests() -> bool:
    """Whether a line is written for each request."""
    return _requests_go_to is not None


def request(fields: Mapping[str, Any]) -> None:
    """One line for a request, past the logging machinery, which takes a tenth of a small request's time."""
    if _requests_go_to is not None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": "info", "message": "request", **fields}
        _requests_go_to.write(orjson.dumps(line).decode() + "\n")

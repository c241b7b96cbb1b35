"""Kept queries as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from api_schemas.http.unknowns import Unknown
from index.store.kept_queries import KeptQuery

_FIELDS = Unknown.model_fields.keys() - {"at", "vector"}


def write_unknown(query: KeptQuery, *, with_vector: bool = False) -> dict[str, Any]:
    """A kept query; its vector where it was read and is asked for."""
    written = {name: getattr(query, name) for name in _FIELDS}
    written |= {"at": to_time(query.at), "metadata": dict(query.metadata)}
    return written | ({"vector": query.vector} if with_vector else {})


def to_time(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)

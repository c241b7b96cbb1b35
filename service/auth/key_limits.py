"""What an API key may ask for at most."""

from __future__ import annotations

from pydantic import Field

from api_schemas.base import Schema


class KeyLimits(Schema):
    """The limits of a key; there is none where a field is null.

    Attributes:
        requests_per_second: requests, on average.
        burst: requests at once after a pause; those of a second, and at least one, unless given.
        items_per_day: items that are written, on average; as many at once after a day's pause.
    """

    requests_per_second: float | None = Field(default=None, gt=0, le=1e6)
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    items_per_day: int | None = Field(default=None, ge=1, le=1_000_000_000)

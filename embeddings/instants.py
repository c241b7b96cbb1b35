"""Instants: points in time as nanoseconds since 1970 in UTC, and their one written form.

A time that says no zone is taken as UTC, and a date as its midnight in UTC, so that all instants can be
compared with each other.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

NANOSECONDS_A_SECOND = 1_000_000_000
NANOSECONDS_A_DAY = 86_400 * NANOSECONDS_A_SECOND
ISO_8601 = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<minute>\d{2}:\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r" ?(?P<zone>Z|z|UTC|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?)?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> int | None:
    """Nanoseconds since 1970 of a date or time in ISO 8601, or None for any other text."""
    match = ISO_8601.fullmatch(text.strip())
    if match is None:
        return None
    day, minute, second, fraction, zone = match.group("day", "minute", "second", "fraction", "zone")
    zone = "+00:00" if zone in (None, "Z", "z", "UTC") else zone
    try:
        whole = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{zone}")
        since = whole - _EPOCH
    except (ValueError, OverflowError):
        return None
    seconds = since.days * 86_400 + since.seconds
    return seconds * NANOSECONDS_A_SECOND + int((fraction or "0").ljust(9, "0"))


def format_instant(nanoseconds: int) -> str:
    """ISO 8601 in UTC, e.g. ``2024-01-31T12:00:00Z``, with as many digits of a second as are needed."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS_A_SECOND)
    days, seconds = divmod(seconds, 86_400)
    day = datetime.fromordinal(_EPOCH.toordinal() + days).date().isoformat()
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    digits = f".{fraction:09}".rstrip("0").rstrip(".")
    return f"{day}T{clock}{digits}Z"

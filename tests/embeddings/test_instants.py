"""Instants: what is read as one, and how it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.instants import format_instant, parse_instant

NOON = 1_706_702_400_000_000_000  # 2024-01-31T12:00:00Z


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31T12:00:00Z",
        "2024-01-31 12:00:00",
        "2024-01-31T12:00",
        "2024-01-31T12:00:00.000000000Z",
        "2024-01-31T14:00:00+02:00",
        "2024-01-31T17:30+0530",
        "2024-01-31T07:00:00-05",
        " 2024-01-31T12:00:00,0 UTC",
        "2024-01-31T17:21:10+05:21:10",
    ],
)
def test_one_instant_in_many_spellings(text: str) -> None:
    assert parse_instant(text) == NOON
    assert format_instant(NOON) == "2024-01-31T12:00:00Z"


def test_a_date_is_its_midnight_and_nanoseconds_stay() -> None:
    assert parse_instant("2024-01-31") == NOON - 12 * 3_600 * 10**9
    assert parse_instant("2024-01-31T12:00:00.000000007Z") == NOON + 7
    assert format_instant(NOON + 7) == "2024-01-31T12:00:00.000000007Z"
    assert format_instant(NOON + 500_000_000) == "2024-01-31T12:00:00.5Z"
    assert format_instant(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize(
    "text",
    ["2024", "2024-01", "2024-13-01", "2024-02-30", "31/01/2024", "12:00", "2024-01-31T25:00", "", "x"],
)
def test_what_is_no_instant_is_none(text: str) -> None:
    assert parse_instant(text) is None


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14, 14))
def test_what_is_written_is_read_back(time: datetime, hours: int) -> None:
    instant = time.replace(tzinfo=UTC)
    since = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000
    assert parse_instant(format_instant(since)) == since
    shifted = (time + timedelta(hours=hours)).isoformat() + f"{hours:+03}:00"
    assert parse_instant(shifted) == since

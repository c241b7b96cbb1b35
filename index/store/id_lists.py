"""Lists of ids in the parts that one statement takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

IDS_A_STATEMENT = 500


def split_ids(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts of at most 500."""
    return (ids[start : start + IDS_A_STATEMENT] for start in range(0, len(ids), IDS_A_STATEMENT))

"""Documents of counts that can be added up: a minute's, and by addition an hour's and a day's."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
MOST_KEYS = 16  # of a level whose names users choose, such as operating points; the others are one
OTHERS = "(others)"


def add_document(total: Document, part: Document) -> None:
    """Add a document of numbers, lists of numbers and documents to another, in place.

    Under the keys ``last`` and ``max`` the later and the larger value stays.
    """
    for key, value in part.items():
        before = total.get(key)
        if isinstance(value, dict):
            add_document(total.setdefault(key, {}), value)
        elif isinstance(value, list):
            total[key] = [a + b for a, b in zip(before, value, strict=True)] if before else list(value)
        elif key == "last" or before is None:
            total[key] = value
        else:
            total[key] = max(before, value) if key == "max" else before + value


def describe_value(value: float) -> Document:
    """A measurement as a document: mean, largest and latest can be told from the sum of many."""
    return {"n": 1, "sum": value, "max": value, "last": value}

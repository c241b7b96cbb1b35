"""The limits of a filter: how deeply it is nested, and how much it compares."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from index.items.filters import JOINS
from service.errors.problems import LIMIT_EXCEEDED, ServiceProblem, build_field_problem
from service.settings import ServiceSettings


def check_filter(condition: Mapping[str, JsonValue] | None, settings: ServiceSettings) -> None:
    """Raises the problem ``limit-exceeded`` for a filter that is nested too deeply or compares too much.

    Its form is checked when it is evaluated. A level is a condition inside ``$and``, ``$or`` or ``$not``.
    """
    level: list[JsonValue] = [] if condition is None else [dict(condition)]
    depth = conditions = values = 0
    while level:
        depth += 1
        if depth > settings.max_filter_depth:
            raise _build_exceeded(f"nested deeper than {settings.max_filter_depth} levels", "depth")
        inner: list[JsonValue] = []
        for part in level:
            for name, operand in part.items() if isinstance(part, dict) else ():
                if name in JOINS:
                    inner += operand if isinstance(operand, list) else [operand]
                    continue
                comparisons = list(operand.values()) if isinstance(operand, dict) else [operand]
                conditions += max(1, len(comparisons))
                values += sum(len(value) for value in comparisons if isinstance(value, list))
        level = inner
        # a join of nothing is a condition as well
        if conditions + len(level) > settings.max_filter_conditions:
            raise _build_exceeded(f"over {settings.max_filter_conditions} comparisons", "conditions")
        if values > settings.max_filter_values:
            raise _build_exceeded(f"over {settings.max_filter_values} values in its lists", "values")


def _build_exceeded(what: str, name: str) -> ServiceProblem:
    return build_field_problem(LIMIT_EXCEEDED, "filter", f"{what} (LIMEN_MAX_FILTER_{name.upper()})")

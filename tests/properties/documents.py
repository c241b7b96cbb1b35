"""Documents of any content, from the types and bounds of their fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import annotated_types
from hypothesis import assume
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from api_schemas.operating_point import OperatingPoint

M = TypeVar("M", bound=BaseModel)
MOST = 3  # entries of a list or a mapping
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@st.composite
def build_documents(draw: st.DrawFn, model: type[M]) -> M:
    """Documents of a model that pass its checks."""
    values = {}
    for name, field in model.model_fields.items():
        if model is OperatingPoint and name == "id":
            continue
        given = build_values(field.annotation, field.metadata)
        if not field.is_required() and draw(st.booleans()):
            continue
        values[name] = draw(given)
    if model.model_config.get("extra") == "allow":
        names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
            lambda name: name not in model.model_fields
        )
        values |= draw(st.dictionaries(names, st.recursive(PLAIN, _nest, max_leaves=4), max_size=MOST))
    try:
        if model is OperatingPoint:
            return typing.cast(M, OperatingPoint.freeze(**values))
        return model.model_validate(values)
    except ValidationError:
        assume(False)
        raise


def _nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=MOST) | st.dictionaries(st.text(max_size=4), inner, max_size=MOST)


def build_values(kind: Any, bounds: Iterable[Any] = ()) -> st.SearchStrategy[Any]:
    """Values of a type within the bounds of its annotation."""
    bounds = list(bounds)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return build_values(arguments[0], [*arguments[1:], *bounds])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([build_values(part, bounds) for part in arguments])
    if origin is list:
        return st.lists(build_values(arguments[0]), min_size=_find(bounds, "min_length", 0), max_size=MOST)
    if origin is dict:
        return st.dictionaries(*map(build_values, arguments), max_size=MOST)
    if origin is tuple:
        parts = arguments[:-1] if arguments[-1] is Ellipsis else arguments
        return st.tuples(*map(build_values, parts))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return build_documents(kind)
    return SCALARS[kind](bounds)


def _find(bounds: Iterable[Any], name: str, default: Any) -> Any:
    """A bound by its name, wherever it is kept."""
    for bound in bounds:
        if isinstance(bound, annotated_types.Len | annotated_types.MinLen | annotated_types.MaxLen):
            value = getattr(bound, name, None)
        else:
            value = getattr(bound, name, None)
            value = getattr(getattr(bound, "metadata", None), name, None) if value is None else value
        if value is not None:
            return value
    for bound in bounds:
        if isinstance(bound, annotated_types.GroupedMetadata):
            value = _find(list(bound), name, None)
            if value is not None:
                return value
    return default


def _build_floats(bounds: list[Any]) -> st.SearchStrategy[float]:
    above, below = _find(bounds, "gt", None), _find(bounds, "lt", None)
    return st.floats(
        min_value=_find(bounds, "ge", above),
        max_value=_find(bounds, "le", below),
        allow_nan=False,
        allow_infinity=False,
        exclude_min=above is not None,
        exclude_max=below is not None,
    )


def _build_integers(bounds: list[Any]) -> st.SearchStrategy[int]:
    above, below = _find(bounds, "gt", None), _find(bounds, "lt", None)
    lowest = _find(bounds, "ge", None if above is None else above + 1)
    highest = _find(bounds, "le", None if below is None else below - 1)
    return st.integers(-(2**60) if lowest is None else lowest, 2**60 if highest is None else highest)


def _build_texts(bounds: list[Any]) -> st.SearchStrategy[str]:
    pattern = _find(bounds, "pattern", None)
    if pattern is not None:
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: not text.endswith("\n"))
    return st.text(min_size=_find(bounds, "min_length", 0), max_size=_find(bounds, "max_length", 20))


SCALARS: dict[Any, Callable[[list[Any]], st.SearchStrategy[Any]]] = {
    type(None): lambda _: st.none(),
    bool: lambda _: st.booleans(),
    int: _build_integers,
    float: _build_floats,
    str: _build_texts,
    datetime: lambda _: st.datetimes(timezones=st.just(UTC)),
    Any: lambda _: PLAIN,
}

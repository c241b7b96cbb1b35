"""From what a request refers to, vectors, inputs and item ids, to unit rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import JsonValue

from api_schemas.http.decisions import Reference
from api_schemas.http.problem import FieldProblem
from common.array_types import Float32s
from common.errors import InputError
from encoder.refused_input import RefusedInput
from index.search.query_vectors import query_rows
from service.errors.problems import (
    INVALID_INPUT,
    LIMIT_EXCEEDED,
    NO_ENCODER,
    UNKNOWN_ITEM,
    WRONG_DIMENSION,
    ProblemKind,
    ServiceProblem,
)
from service.models.loaded_model import LoadedModel
from service.runtime.encode_batches import EncodeBatches
from service.settings import ServiceSettings

T = TypeVar("T")
Name = Callable[[int], str]


def queries(row: int) -> str:
    """The path of a query in a body."""
    return f"queries.{row}"


def pair_end_path(row: int) -> str:
    """The path of one end of a pair, two rows a pair."""
    return f"pairs.{row // 2}.{'ab'[row % 2]}"


def body_row_path(row: int) -> str:
    """The name of a raw row."""
    return f"body.{row}"


@dataclass(frozen=True)
class ResolvedQueries:
    """``vectors``: float32 [n, d]; ``ids``: the item a row came from, or None."""

    vectors: Float32s
    ids: list[str | None]

    @property
    def excluded(self) -> list[str | None] | None:
        """What each query leaves out of its answer: itself, where it is an item."""
        return self.ids if any(one is not None for one in self.ids) else None


async def encoded(
    encoding: EncodeBatches, served: LoadedModel, references: Sequence[Reference], name: Name
) -> Float32s | None:
    """Unit rows float32 [m, d] of those references that are encoder inputs, in their order; None if none is.

    Raises:
        ServiceProblem: no encoder, or an input it does not take; names its path.
    """
    rows = [row for row, reference in enumerate(references) if reference.input is not None]
    if not rows:
        return None
    if served.encoder is None:
        raise at(
            NO_ENCODER,
            f"{name(rows[0])}.input",
            "this bundle holds vectors and no encoder: send vector or id",
        )
    inputs = [one for one in (references[row].input for row in rows) if one is not None]
    try:
        return await encoding.encode(served.encoder, inputs)
    except RefusedInput as refused:
        raise refused_input(f"{name(rows[refused.number])}.input", refused) from None


def resolve(
    served: LoadedModel,
    references: Sequence[Reference],
    name: Name,
    encoded: Float32s | None = None,
) -> ResolvedQueries:
    """Unit rows of references; ``name`` gives their paths in the body, e.g. "queries.3".

    ``encoded`` are the rows of those that are encoder inputs.

    Raises:
        ServiceProblem: a wrong dimension, NaN, zero vector, broken input or unknown id; names its path.
    """
    n, dim = len(references), served.gallery.dim
    rows = np.ones((n, dim), dtype=np.float32)
    ids: list[str | None] = [None] * n
    to_encode: list[int] = []
    for row, reference in enumerate(references):
        if reference.vector is not None:
            if len(reference.vector) != dim:
                raise build_wrong_dimension(f"{name(row)}.vector", len(reference.vector), dim)
            # a number beyond float32 becomes infinite here and is refused below
            with np.errstate(over="ignore"):
                rows[row] = reference.vector
        elif reference.id is not None:
            ids[row] = reference.id
        else:
            to_encode.append(row)
    vectors = normalize_rows(rows, name)
    if encoded is not None:
        vectors[to_encode] = encoded
    for row, item_id in enumerate(ids):
        if item_id is not None:
            vectors[row] = _stored(served, item_id, f"{name(row)}.id")
    return ResolvedQueries(vectors, ids)


def take_rows(rows: Float32s) -> ResolvedQueries:
    """Raw float32 rows [n, d] as they came: searching checks them and brings them to length one."""
    return ResolvedQueries(rows, [None] * len(rows))


def asking(queries: ResolvedQueries, ask: Callable[[], T]) -> T:
    """What ``ask`` answers; raises a problem that names the row when it refuses one of these queries."""
    try:
        return ask()
    except InputError:
        normalize_rows(queries.vectors, body_row_path)
        raise


def normalize_rows(rows: Float32s, name: Name) -> Float32s:
    """Float32 [n, d] rows of length 1; rows that have it keep their bits.

    Raises:
        ServiceProblem: a row with NaN, infinity or without direction; names its path.
    """
    try:
        return query_rows(rows, rows.shape[1])
    except InputError:
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        worst = int(np.flatnonzero(~np.isfinite(squares) | (squares == 0))[0])
        what = (
            "is a zero vector, which has no direction"
            if squares[worst] == 0
            else "holds NaN, infinity or a value too large"
        )
        raise at(INVALID_INPUT, name(worst), f"the vector {what}") from None


def build_wrong_dimension(path: str, found: int, expected: int) -> ServiceProblem:
    """A vector of another length than the model's."""
    return at(WRONG_DIMENSION, path, f"the model's vectors have {expected} numbers, found {found}")


def refused_input(path: str, refused: RefusedInput) -> ServiceProblem:
    """An input that the encoder does not take, under its path in the body."""
    return ServiceProblem(
        INVALID_INPUT,
        f"{path}: {refused.reason}",
        errors=[FieldProblem(path=path, message=refused.reason)],
    )


def at(kind: ProblemKind, path: str, message: str) -> ServiceProblem:
    """A problem of one field."""
    return ServiceProblem(kind, f"{path}: {message}.", errors=[FieldProblem(path=path, message=message)])


def check_count(n: int, where: str, settings: ServiceSettings) -> None:
    """Raises the problem ``limit-exceeded`` for more queries than one request may hold."""
    if n > settings.max_queries:
        raise at(LIMIT_EXCEEDED, where, f"{n} given, at most {settings.max_queries} in one request")


def check_k(k: int, settings: ServiceSettings) -> None:
    """Raises the problem ``limit-exceeded`` for a larger k than allowed."""
    if k > settings.max_k:
        raise at(LIMIT_EXCEEDED, "k", f"{k} asked for, at most {settings.max_k} are given")


def check_filter(condition: JsonValue, settings: ServiceSettings) -> None:
    """Raises the problem ``limit-exceeded`` for a filter that is nested too deeply."""
    level, depth = [condition], 0
    while level:
        depth += 1
        if depth > 2 * settings.max_filter_depth:
            raise at(LIMIT_EXCEEDED, "filter", f"nested deeper than {settings.max_filter_depth} levels")
        level = [
            inner
            for outer in level
            for inner in (
                outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
            )
        ]


def _stored(served: LoadedModel, item_id: str, path: str) -> Float32s:
    vector = served.gallery.vector(item_id)
    if vector is None:
        raise at(UNKNOWN_ITEM, path, f"no item has the id '{item_id[:100]}'")
    return vector

"""From references in a request (vectors, encoder inputs, item ids) to unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from api_schemas.http.decisions import MatchQuery, Reference
from api_schemas.http.problem import FieldProblem
from common.array_types import Float32s, UnitVectors
from common.errors import InputError
from common.spans import record_span
from embeddings.embedding_set import normalise_queries
from encoder import Encoder, RawInput, RefusedInput
from service.errors.problems import (
    INVALID_INPUT,
    LIMIT_EXCEEDED,
    NO_ENCODER,
    UNKNOWN_ITEM,
    WRONG_DIMENSION,
    ServiceProblem,
    build_field_problem,
)
from service.models.loaded_model import LoadedModel
from service.runtime.encode_batches import EncodeBatches
from service.settings import ServiceSettings

PathOf = Callable[[int], str]
"""The path in the body of the reference at a position, e.g. ``queries.3``."""


@dataclass(frozen=True)
class ResolvedQueries:
    """``vectors``: float32 [n, d], unit rows; ``ids``: the item that a query refers to, or None.

    ``sizes`` are how many consecutive vectors each query has; one each if None.
    """

    vectors: UnitVectors
    ids: list[str | None]
    sizes: list[int] | None = None

    @property
    def excluded(self) -> list[str | None] | None:
        """The item left out of each query's results: itself; None where no query refers to an item."""
        return self.ids if any(item_id is not None for item_id in self.ids) else None


async def prepare_queries(
    encoding: EncodeBatches, model: LoadedModel, queries: Sequence[Reference], settings: ServiceSettings
) -> tuple[Callable[[], ResolvedQueries], int]:
    """What ``prepare_references`` gives for queries, some of which may have several vectors; and how many."""
    if not any(isinstance(query, MatchQuery) and query.vectors for query in queries):
        return await prepare_references(encoding, model, queries, "queries.{}".format), len(queries)
    references: list[Reference] = []
    paths: list[tuple[str, str]] = []  # of each reference, and of the vector in it
    sizes: list[int] = []
    for number, query in enumerate(queries):
        several = query.vectors if isinstance(query, MatchQuery) else None
        sizes.append(1 if several is None else len(several))
        if several is None:
            references.append(query)
            paths.append((f"queries.{number}", f"queries.{number}.vector"))
        else:
            references += [Reference.model_construct(vector=row, input=None, id=None) for row in several]
            paths += [(path, path) for path in (f"queries.{number}.vectors.{n}" for n in range(len(several)))]
    check_count(len(references), "queries", settings)
    resolve = await prepare_references(
        encoding, model, references, lambda row: paths[row][0], lambda row: paths[row][1]
    )

    def resolve_queries() -> ResolvedQueries:
        resolved = resolve()
        return ResolvedQueries(resolved.vectors, [query.id for query in queries], sizes)

    return resolve_queries, len(references)


async def prepare_references(
    encoding: EncodeBatches,
    model: LoadedModel,
    references: Sequence[Reference],
    path_of: PathOf,
    vector_path_of: PathOf | None = None,
    asks: Callable[[int], bool] = lambda _: True,
) -> Callable[[], ResolvedQueries]:
    """Encode the inputs among references; the result resolves all of them, in a compute thread.

    Args:
        asks: whether a reference is a query, which may have a tower of its own, or an item.

    Raises:
        ServiceProblem: no encoder, or an input that it refuses; names its path. The returned function
            raises it for a wrong dimension, NaN, a zero vector or an unknown id.
    """
    rows = [row for row, reference in enumerate(references) if reference.input is not None]
    encoded = np.empty((0, model.gallery.dim), dtype=np.float32)
    if rows:
        if model.encoder is None:
            raise build_field_problem(
                NO_ENCODER,
                f"{path_of(rows[0])}.input",
                "this bundle holds vectors and no encoder: send vector or id",
            )
        inputs = [reference.input for reference in references if reference.input is not None]
        encoded = np.empty((len(rows), model.gallery.dim), dtype=np.float32)
        for of_queries in (True, False):
            part = [number for number, row in enumerate(rows) if asks(row) == of_queries]
            if part:
                encoded[part] = await encode_inputs(
                    encoding,
                    model.encoder.queries if of_queries else model.encoder,
                    [inputs[number] for number in part],
                    [f"{path_of(rows[number])}.input" for number in part].__getitem__,
                )
    name_vector = vector_path_of or (lambda row: f"{path_of(row)}.vector")
    return lambda: _resolve(model, references, path_of, name_vector, rows, encoded)


async def encode_inputs(
    encoding: EncodeBatches, encoder: Encoder, inputs: Sequence[RawInput], path_of: PathOf
) -> UnitVectors:
    """Unit vectors float32 [n, d] of inputs; raises a problem that names the path of a refused one."""
    try:
        with record_span("encode"):
            return await encoding.encode(encoder, inputs)
    except RefusedInput as refused:
        path = path_of(refused.number)
        raise ServiceProblem(
            INVALID_INPUT,
            f"{path}: {refused.reason}",
            errors=[FieldProblem(path=path, message=refused.reason)],
        ) from None


def _resolve(
    model: LoadedModel,
    references: Sequence[Reference],
    path_of: PathOf,
    vector_path_of: PathOf,
    encoded_rows: list[int],
    encoded: UnitVectors,
) -> ResolvedQueries:
    n, dim = len(references), model.gallery.dim
    rows = np.ones((n, dim), dtype=np.float32)
    for row, reference in enumerate(references):
        if reference.vector is not None:
            if len(reference.vector) != dim:
                raise build_field_problem(
                    WRONG_DIMENSION,
                    vector_path_of(row),
                    f"the model's vectors have {dim} numbers, found {len(reference.vector)}",
                )
            # a number beyond float32 becomes infinite here and is refused below
            with np.errstate(over="ignore"):
                rows[row] = reference.vector
    vectors = _normalize(rows, path_of)
    vectors[encoded_rows] = encoded
    for row, reference in enumerate(references):
        if reference.id is not None:
            stored = model.gallery.view.get_vector(reference.id)
            if stored is None:
                raise build_field_problem(
                    UNKNOWN_ITEM, f"{path_of(row)}.id", f"no item has the id '{reference.id[:100]}'"
                )
            vectors[row] = stored
    return ResolvedQueries(vectors, [reference.id for reference in references])


def take_rows(rows: Float32s) -> ResolvedQueries:
    """Raw float32 rows [n, d] as queries; raises a problem that names a row that cannot be used."""
    return ResolvedQueries(_normalize(rows, "body.{}".format), [None] * len(rows))


def _normalize(rows: Float32s, path_of: PathOf) -> UnitVectors:
    """Float32 [n, d] rows of length 1; raises a problem that names a row with NaN, infinity or length 0."""
    try:
        return normalise_queries(rows, rows.shape[1])
    except InputError:
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        bad = int(np.flatnonzero(~np.isfinite(squares) | (squares == 0))[0])
        what = (
            "is a zero vector, which has no direction"
            if squares[bad] == 0
            else "holds NaN, infinity or a value too large"
        )
        raise build_field_problem(INVALID_INPUT, path_of(bad), f"the vector {what}") from None


def check_count(n: int, path: str, settings: ServiceSettings) -> None:
    """Raises the problem ``limit-exceeded`` for more queries than one request may hold."""
    if n > settings.max_queries:
        raise build_field_problem(
            LIMIT_EXCEEDED, path, f"{n} given, at most {settings.max_queries} are allowed in one request"
        )


def check_k(k: int, settings: ServiceSettings, path: str = "k") -> None:
    """Raises the problem ``limit-exceeded`` for a larger k, or another number like it, than allowed."""
    if k > settings.max_k:
        raise build_field_problem(LIMIT_EXCEEDED, path, f"{k} given, at most {settings.max_k} is allowed")

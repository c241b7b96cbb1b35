"""Rank metrics as in "A Metric Learning Reality Check" (arXiv 2003.08505, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api_schemas.report import Retrieval
from evaluation.queries import Queries

RECALL_AT = (1, 2, 4, 8, 10)


@dataclass(frozen=True)
class QueryRetrieval:
    """Per query with a partner: float64 [q] each, and which queries they are (int64 [q])."""

    queries: NDArray[np.int64]
    first_rank: NDArray[np.int64]
    r_precision: NDArray[np.float64]
    map_at_r: NDArray[np.float64]


def per_query(queries: Queries) -> QueryRetrieval:
    """Rank of the first partner, R-precision and MAP@R of every query that has a partner.

    With R partners: R-precision is the share of partners among the R nearest; MAP@R is the mean over
    ranks i = 1..R of the precision at i where item i is a partner, else 0.
    """
    have = np.flatnonzero(queries.n_partners)
    R = queries.n_partners[have]
    within = queries.ranks <= np.repeat(queries.n_partners, queries.n_partners)
    starts = queries.partner_starts[have]
    if not len(have):
        none = np.zeros(0)
        return QueryRetrieval(have, have, none, none)
    hits = np.add.reduceat(within, starts, dtype=np.int64)
    precision = np.add.reduceat(np.where(within, queries.places / queries.ranks, 0.0), starts)
    return QueryRetrieval(have, queries.ranks[starts], hits / R, precision / R)


def retrieval(queries: Queries) -> Retrieval:
    """Means over the queries that have a partner; null where there is none."""
    found = per_query(queries)
    if not len(found.queries):
        return Retrieval(**dict.fromkeys(Retrieval.model_fields))
    recalls = {f"recall_at_{k}": float(np.mean(found.first_rank <= k)) for k in RECALL_AT}
    return Retrieval(
        **recalls, r_precision=float(found.r_precision.mean()), map_at_r=float(found.map_at_r.mean())
    )

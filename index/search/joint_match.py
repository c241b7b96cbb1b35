"""Queries of one batch whose classes are chosen together: those near each other tend to be of one class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from common.array_types import Bools, Float64s, Int64s, UnitVectors
from common.time_budget import check_time
from decision.decider import MatchDecision
from index.search.gallery_view import SearchHit
from index.search.match_rule import MatchRule, select_members

SCALE = 20.0  # of squared distances: unit vectors hardly differ at 1
WEIGHT = 1.0  # of agreement with each neighbour against them
NEIGHBOURS = 3
CANDIDATES = 5  # classes of a query that are considered
ROUNDS, MOST_UPDATES = 20, 100
CHANGE, SETTLED = 1e-4, 1e-6

SumClasses = Callable[[Sequence[str]], tuple[Float64s, Int64s]]
"""Sums float64 [c, d] of the items of classes, and how many there are of each, int64 [c]."""


def label_jointly(queries: UnitVectors, sums: Float64s, counts: Int64s, allowed: Bools) -> Float64s:
    """How far each query belongs to each class, float64 [n, c], rows that sum to 1.

    Ziko et al., Clustering is All You Need? (SLK), in its k-means form: the least of ``sum_ik y_ik s |x_i -
    c_k|^2 - w / 2 sum_ij a_ij <y_i, y_j>`` over rows y_i of the simplex, ``a_ij`` 1 where j is one of the 3
    nearest queries of i. Bound updates ``y_i = softmax_k(-s |x_i - c_k|^2 + w sum_j a_ij y_jk)`` alternate
    with centres c_k, means of a class's items, which stay in it, and of the queries as far as they belong to
    it.

    Args:
        queries: float32 [n, d]. sums, counts: float64 [c, d] and int64 [c], of the items of each class.
        allowed: bool [n, c], which classes a query may be of: one at least.

    Reference implementation: features are centred and the queries moved to the mean of the items, which takes
    batches in which every class comes as often; here vectors stay as they are. Its s is 1 and its w 0.5: on
    unit vectors neighbours decide alone then, and batches of many classes are named worse than one by one.
    """
    points = queries.astype(np.float64)
    linked = _link_neighbours(points)
    centres = sums / counts[:, None]
    belongs = np.zeros(allowed.shape)
    energy = np.inf
    for _ in range(ROUNDS):
        costs = np.where(allowed, SCALE * _compute_distances(points, centres), np.inf)
        belongs = _settle(costs, linked)
        before, energy = energy, _compute_energy(costs, linked, belongs)
        if abs(before - energy) <= CHANGE * abs(energy):
            break
        centres = (sums + belongs.T @ points) / (counts + belongs.sum(axis=0))[:, None]
    return belongs


def choose_jointly(
    results: list[list[SearchHit]], queries: UnitVectors, sum_classes: SumClasses
) -> list[list[SearchHit]]:
    """The hits of each query with those of the class that all queries together choose for it in front.

    Args:
        results: of each query, best first. queries: float32 [n, d].
    """
    own = [list(dict.fromkeys(hit.label for hit in hits))[:CANDIDATES] for hits in results]
    labels = sorted({label for of_query in own for label in of_query})
    given = [row for row, of_query in enumerate(own) if of_query]
    if not given:
        return results
    code = {label: number for number, label in enumerate(labels)}
    allowed = np.zeros((len(given), len(labels)), dtype=bool)
    for place, row in enumerate(given):
        allowed[place, [code[label] for label in own[row]]] = True
    belongs = label_jointly(queries[given], *sum_classes(labels), allowed)
    chosen = dict(zip(given, belongs.argmax(axis=1).tolist(), strict=True))
    return [
        sorted(hits, key=lambda hit, row=row: hit.label != labels[chosen[row]]) if hits else hits  # type: ignore[misc]
        for row, hits in enumerate(results)
    ]


def take_proof_away(decisions: Sequence[MatchDecision]) -> list[MatchDecision]:
    """The same decisions, of which a point's proof and calibration say nothing."""
    return [
        decision._replace(
            probability=None,
            beyond_proof=True,
            candidates=tuple(candidate._replace(probability=None) for candidate in decision.candidates),
        )
        for decision in decisions
    ]


def sum_members(rule: MatchRule, labels: Sequence[str]) -> tuple[Float64s, Int64s]:
    """See ``SumClasses``: of the items that count for a rule."""
    sums = np.zeros((len(labels), rule.counting_rows[0][0].vectors.shape[1]))
    counts = np.zeros(len(labels), dtype=np.int64)
    for part, counting in rule.counting_rows:
        rows, classes = select_members(part, labels, counting)
        np.add.at(sums, classes, part.vectors[rows].astype(np.float64))
        counts += np.bincount(classes, minlength=len(labels))
    return sums, np.maximum(counts, 1)


def _settle(costs: Float64s, linked: Int64s) -> Float64s:
    """Bound updates until nothing changes, from the distances alone: float64 [n, c]."""
    belongs = _soften(-costs)
    for _ in range(MOST_UPDATES):
        check_time()
        updated = _soften(WEIGHT * belongs[linked].sum(axis=1) - costs)
        change = np.abs(updated - belongs).max()
        belongs = updated
        if change < SETTLED:
            break
    return belongs


def _soften(values: Float64s) -> Float64s:
    """Softmax of each row; minus infinity counts as never."""
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _compute_energy(costs: Float64s, linked: Int64s, belongs: Float64s) -> float:
    """What is minimised, with the entropy that its bound adds."""
    agreement = (belongs * belongs[linked].sum(axis=1)).sum()
    within = belongs > 0
    entropy = (belongs[within] * np.log(belongs[within])).sum()
    return float((belongs[within] * costs[within]).sum() - WEIGHT / 2 * agreement + entropy)


def _compute_distances(points: Float64s, centres: Float64s) -> Float64s:
    """Squared distances, float64 [n, c]."""
    squares = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * points @ centres.T, 0.0))


def _link_neighbours(points: Float64s) -> Int64s:
    """The nearest other queries of each, int64 [n, at most 3], ties by position."""
    near = points @ points.T
    np.fill_diagonal(near, -np.inf)
    count = min(NEIGHBOURS, len(points) - 1)
    return np.argsort(-near, axis=1, kind="stable")[:, :count]

"""Groups of the pool: found by linkage at a calibrated pair threshold, around what a person has arranged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from api_schemas.operating_point import OperatingPoint
from common.array_types import Int64s, UnitVectors
from decision.scorers import Scorer
from decision.targets import get_endpoint
from embeddings.embedding_set import normalise_rows
from evaluation.grouping.group_ids import keep_group_ids
from evaluation.grouping.group_vectors import group_vectors
from evaluation.grouping.split_groups import split_groups
from index.store.kept_queries import KeptQuery, PoolFilter, make_group_id
from service.errors.problems import CONFLICT, NOT_FOUND, ServiceProblem
from service.models.loaded_model import LoadedModel
from service.unknowns.rematch import find_offers

BISECTIONS = 40
LINK_FAR, CORE_FAR = 2.0, 0.1  # times the FAR of the linking point
MOST_LINK_FAR = 0.02  # to which a stricter point is loosened


def find_linking_point(model: LoadedModel, name: str | None) -> OperatingPoint:
    """The 1:1 point of this id or name, the active one for None; raises a problem where there is none."""
    if name is None:
        if model.active_verify is None:
            raise ServiceProblem(
                CONFLICT,
                "There is no active 1:1 operating point, whose threshold would link two unknowns: name one "
                "with operating_point, or make one (limen calibrate --target-far).",
            )
        return model.active_verify
    points = [point for point in model.points.values() if name in (point.id, point.name)]
    linking = [point for point in points if get_endpoint(point.target) == "verify"]
    if not linking:
        raise ServiceProblem(NOT_FOUND, f"The model has no 1:1 operating point '{name[:100]}'.")
    return linking[0]


def find_thresholds(model: LoadedModel, point: OperatingPoint) -> tuple[float, float | None]:
    """The scores at which two unknowns are linked, and at which they are of one core.

    They are those of twice the FAR of the point, but no more than 2 % if that is less, and of a tenth of it,
    where the bundle holds the rates of other thresholds; else its own threshold, and no core.
    """
    curves = [one for one in ([] if model.report is None else model.report.tradeoffs) if one.far is not None]
    curve = next((one for one in curves if one.endpoint == "verify" and one.score == point.score), None)
    if curve is None or curve.far is None or point.target.kind != "far" or point.target.value is None:
        return point.threshold, None
    far, target = np.array(curve.far), point.target.value
    wanted = max(target, min(LINK_FAR * target, MOST_LINK_FAR)), CORE_FAR * target
    link, core = (curve.thresholds[min(int((far > most).sum()), len(far) - 1)] for most in wanted)
    return min(link, point.threshold), max(core, point.threshold)


def group_pool(model: LoadedModel, point: OperatingPoint, min_size: int) -> None:
    """Group the unknowns again, and match each of them again.

    What a person put together stays together (must-link), what was split off stays apart (cannot-link), and
    what joins a dropped group is dropped with it. A group that is much the same keeps its id.
    """
    unknowns = model.get_live_gallery().unknowns
    queries: list[KeptQuery] = []
    blocks: list[UnitVectors] = []
    for block, rows in unknowns.iterate(PoolFilter(decision="unknown")):
        counting = [
            row
            for row, query in enumerate(block)
            if query.status == "open" or (query.status == "dropped" and query.pin is not None)
        ]
        queries += [block[row] for row in counting]
        blocks.append(rows[counting])
    if not queries:
        return
    vectors = np.concatenate(blocks)
    scorer = model.gallery.prepare(point).scorer
    threshold, strict = (
        None if score is None else compute_similarity_threshold(scorer, score, vectors)
        for score in find_thresholds(model, point)
    )
    assert threshold is not None
    chosen = arrange_groups(queries, vectors, threshold, min_size, strict)
    dropped_by = {
        query.pin: query.change
        for query in queries
        if query.status == "dropped" and query.pin is not None and query.change is not None
    }
    groups: dict[str, str | None] = {}
    dropped: dict[str, tuple[str, str]] = {}
    for query, group in zip(queries, chosen, strict=True):
        by = None if group is None else dropped_by.get(group)
        if by is not None and group is not None and query.status == "open":
            dropped[query.id] = group, by
        elif group != query.group:
            groups[query.id] = group
    unknowns.set_groups(groups, dropped)
    offers = find_offers(model, vectors)
    unknowns.set_offered(
        {query.id: offer for query, offer in zip(queries, offers, strict=True) if offer != query.offered}
    )


def compute_similarity_threshold(scorer: Scorer, threshold: float, vectors: UnitVectors) -> float:
    """The similarity at which a pair is accepted: the threshold itself, or for a score that density corrects
    that of a pair whose two densities are the median of these vectors [n, d].
    """
    if scorer.is_similarity:
        return threshold
    density = np.full(1, np.median(scorer.compute_densities(vectors)), dtype=np.float32)
    low, high = -1.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if scorer(np.array([middle], dtype=np.float32), density, density)[0] >= threshold:
            high = middle
        else:
            low = middle
    return high


def arrange_groups(
    queries: Sequence[KeptQuery],
    vectors: UnitVectors,
    threshold: float,
    min_size: int,
    strict: float | None = None,
) -> list[str | None]:
    """The group of each query: pinned ones in theirs, others by linkage or with the nearest of the pinned.

    With a threshold ``strict`` for cores groups are taken apart where they have several.
    """
    groups = group_vectors(vectors, threshold, min_size=min_size)
    if strict is not None:
        groups = split_groups(vectors, groups, threshold, strict, min_size)
    keys = [query.id for query in queries]
    previous = {query.id: query.group for query in queries if query.group is not None}
    ids = keep_group_ids(groups, keys, previous, make_group_id)
    of_row = groups.of_row
    names = sorted({query.pin for query in queries if query.pin is not None})
    if not names:
        return [None if code < 0 else ids[code] for code in of_row.tolist()]
    pins = np.array(
        [-1 if query.pin is None else names.index(query.pin) for query in queries], dtype=np.int64
    )
    joined = _join_pinned(vectors, of_row, pins, threshold)
    free = of_row.copy()
    free[joined >= 0] = -1
    sizes = np.bincount(free[free >= 0], minlength=len(ids))
    # a pinned group keeps its id, so that what is left of the linkage's group needs another
    others = [make_group_id() if name in names else name for name in ids]
    return [
        names[pin] if pin >= 0 else others[code] if code >= 0 and sizes[code] >= min_size else None
        for pin, code in zip(joined.tolist(), free.tolist(), strict=True)
    ]


def _join_pinned(vectors: UnitVectors, of_row: Int64s, pins: Int64s, threshold: float) -> Int64s:
    """int64 [n]: the pinned group of each row, -1 for none.

    A row that is not pinned joins the nearest of the pinned groups whose centre is at least as similar as the
    threshold, if linkage put it with one of their rows or with nothing.
    """
    n_pins = int(pins.max()) + 1
    rows = np.flatnonzero(pins >= 0)
    sums = np.zeros((n_pins, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, pins[rows], vectors[rows].astype(np.float64))
    centres = normalise_rows(sums, "groups")
    beside = {(code, pin) for code, pin in zip(of_row[rows].tolist(), pins[rows].tolist(), strict=True)}
    joined = pins.copy()
    with_pinned = np.isin(of_row, of_row[rows][of_row[rows] >= 0])
    for row in np.flatnonzero((pins < 0) & (with_pinned | (of_row < 0))).tolist():
        similarities = centres @ vectors[row]
        for pin in np.argsort(-similarities, kind="stable").tolist():
            if similarities[pin] < threshold:
                break
            if of_row[row] < 0 or (int(of_row[row]), pin) in beside:
                joined[row] = pin
                break
    return joined

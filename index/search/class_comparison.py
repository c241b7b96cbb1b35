"""A class compared with itself and with all others: its scores, hardest pairs and lookalikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.array_types import Float32s, Int64s, RowIndices, UnitVectors
from common.time_budget import check_time
from decision.decider import Decider
from decision.scorers import CosineScorer, Scorer
from embeddings.similarity import compute_pair_similarities
from index.search.gallery_view import GalleryView
from index.search.generation import Generation
from index.search.match_rule import compute_tightness

NEAR = 10  # items of other classes that are looked for near each item
HARDEST = 10
MOST_TIMES = 2  # that an item comes among the hardest impostor pairs
LOOKALIKES = 10


class HardPair(NamedTuple):
    """Two items, the second of the class ``b_label``."""

    a: str
    b: str
    b_label: str
    similarity: float
    score: float


@dataclass(frozen=True)
class ClassComparison:
    """How a class is seen by a pair score.

    Attributes:
        n_items: items of the class.
        ids: of the items that were compared.
        tightness: mean similarity of two different items, over all of them; None for a single one.
        genuine: float32 [s (s - 1) / 2], scores of the pairs of compared items.
        impostor: float32 [s * o], scores with an even sample of o items of other classes.
        hardest_genuine: the least alike, least first.
        hardest_impostor: the most alike, most first.
        lookalikes: label, best score and all near scores of other classes, best first.
    """

    n_items: int
    ids: list[str]
    tightness: float | None
    genuine: Float32s
    impostor: Float32s
    n_others: int
    hardest_genuine: list[HardPair]
    hardest_impostor: list[HardPair]
    lookalikes: list[tuple[str, list[float]]]


class _Sample(NamedTuple):
    """Items taken from the parts of a view: ids, vectors float32 [s, d], densities float32 [s] or None."""

    ids: list[str]
    vectors: UnitVectors
    densities: Float32s | None


def find_rows_of_class(view: GalleryView, label: str) -> list[tuple[Generation, RowIndices]]:
    """The live rows of a class in each part of a view."""
    found = []
    for part, live in view.parts:
        code = part.items.get_code(label)
        rows = np.empty(0, dtype=np.int64) if code is None else part.items.get_rows_of_class(code)
        found.append((part, rows if live is None else rows[live.rows[rows]]))
    return found


def page_class(view: GalleryView, label: str, after: str | None, limit: int) -> list[str]:
    """The ids of a class in their order, after a text that need not be one of them."""
    ids = [item_id for part, rows in find_rows_of_class(view, label) for item_id in part.items.ids.take(rows)]
    return sorted(item_id for item_id in ids if after is None or item_id > after)[:limit]


def count_items_of_classes(view: GalleryView) -> tuple[list[str], Int64s]:
    """The labels of a view and how many live items each has; none of zero."""
    codes = view.class_codes
    counts = np.zeros(len(codes), dtype=np.int64)
    for number, (_, live) in enumerate(view.parts):
        of_rows = codes.get_codes_of_part(number)
        counts += np.bincount(of_rows if live is None else of_rows[live.rows], minlength=len(codes))
    present = np.flatnonzero(counts)
    return codes.get_labels(present), counts[present]


def compare_class(
    view: GalleryView, label: str, decider: Decider | None, sample: int, others: int
) -> ClassComparison | None:
    """Compare the items of a class with each other and with those of other classes; None without items.

    Args:
        decider: its scorer scores the pairs; the similarity without one.
        sample: most items of the class that are compared, taken evenly.
        others: most items of other classes in the histogram, taken evenly.
    """
    parts = find_rows_of_class(view, label)
    n = sum(len(rows) for _, rows in parts)
    if not n:
        return None
    scorer = CosineScorer() if decider is None or decider.scorer.is_similarity else decider.scorer
    own = _take(parts, sample, scorer)
    away = _take(_find_other_rows(view, label), others, scorer)
    first, second = np.triu_indices(len(own.ids), 1)
    genuine = _score(scorer, own, own)[first, second]
    check_time()
    impostor = _score(scorer, own, away).ravel()
    near = _find_near(view, label, decider, own)
    order = np.argsort(genuine, kind="stable")[:HARDEST]
    pairs = [(int(first[at]), int(second[at])) for at in order]
    return ClassComparison(
        n_items=n,
        ids=own.ids,
        tightness=compute_tightness(parts),
        genuine=genuine,
        impostor=impostor,
        n_others=len(away.ids),
        hardest_genuine=[
            HardPair(own.ids[a], own.ids[b], label, similarity, score)
            for (a, b), similarity, score in zip(pairs, *_score_exactly(scorer, own, pairs), strict=True)
        ],
        hardest_impostor=_select_hardest(near, len(own.ids)),
        lookalikes=_group_by_label(near),
    )


def _find_other_rows(view: GalleryView, label: str) -> list[tuple[Generation, RowIndices]]:
    found = []
    for part, live in view.parts:
        code = part.items.get_code(label)
        kept = np.ones(len(part), dtype=bool) if code is None else part.items.label_codes != code
        found.append((part, np.flatnonzero(kept if live is None else kept & live.rows)))
    return found


def _take(parts: list[tuple[Generation, RowIndices]], most: int, scorer: Scorer) -> _Sample:
    """At most so many rows of the parts, evenly spaced."""
    n = sum(len(rows) for _, rows in parts)
    chosen = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.empty(0, np.int64)
    ids: list[str] = []
    vectors, densities, start = [], [], 0
    for part, rows in parts:
        taken = rows[chosen[(chosen >= start) & (chosen < start + len(rows))] - start]
        start += len(rows)
        ids += part.items.ids.take(taken)
        vectors.append(np.asarray(part.vectors[taken]))
        if scorer.density_key is not None:
            densities.append(part.items.densities[scorer.density_key][taken])
    return _Sample(ids, np.concatenate(vectors), np.concatenate(densities) if densities else None)


def _score(scorer: Scorer, a: _Sample, b: _Sample) -> Float32s:
    """float32 [s, o]: scores of all pairs, right to the rounding of a product in float64."""
    similarities = (a.vectors.astype(np.float64) @ b.vectors.T.astype(np.float64)).astype(np.float32)
    if a.densities is None or b.densities is None:
        return scorer(similarities)
    return scorer(similarities, a.densities[:, None], b.densities[None])


def _score_exactly(
    scorer: Scorer, own: _Sample, pairs: list[tuple[int, int]]
) -> tuple[list[float], list[float]]:
    """Similarities and scores of pairs by the kernel of decisions."""
    if not pairs:
        return [], []
    a, b = np.array(pairs).T
    similarities = compute_pair_similarities(own.vectors[a], own.vectors[b])
    dense = own.densities
    scores = scorer(similarities) if dense is None else scorer(similarities, dense[a], dense[b])
    return similarities.tolist(), scores.tolist()


def _find_near(view: GalleryView, label: str, decider: Decider | None, own: _Sample) -> list[HardPair]:
    """The nearest items of other classes of each compared item, most alike first."""
    results = view.search(own.vectors, NEAR, decider=decider, condition={"label": {"$ne": label}})
    pairs = [
        HardPair(item_id, hit.id, hit.label, hit.similarity, hit.score)
        for item_id, hits in zip(own.ids, results, strict=True)
        for hit in hits
    ]
    return sorted(pairs, key=lambda pair: (-pair.score, pair.a, pair.b))


def _select_hardest(near: Iterable[HardPair], n_items: int) -> list[HardPair]:
    """The first pairs without any item too often; a small class has to show each of its own more often."""
    most = {"a": max(MOST_TIMES, -(-HARDEST // n_items)), "b": MOST_TIMES}
    times: Counter[tuple[str, str]] = Counter()
    chosen: list[HardPair] = []
    for pair in near:
        ends = (("a", pair.a), ("b", pair.b))
        if len(chosen) < HARDEST and all(times[end] < most[end[0]] for end in ends):
            times.update(ends)
            chosen.append(pair)
    return chosen


def _group_by_label(near: Iterable[HardPair]) -> list[tuple[str, list[float]]]:
    by_label: dict[str, list[float]] = {}
    for pair in near:
        by_label.setdefault(pair.b_label, []).append(pair.score)
    return list(by_label.items())[:LOOKALIKES]

"""Thresholds for 1:N: how often an unknown query finds a match (FPIR), by leaving classes out.

Each class in turn is unknown to a gallery of the others: a query's best score within each other
class is all that matters, and the share of queries whose best score reaches the threshold is the
FPIR at a gallery of ``g = classes - 1`` classes.

Gallery of ``G <= g`` classes: the mean over all ways to draw G of the g, in closed form: a query of
which k classes reach the threshold is matched with probability ``1 - C(g-k, G) / C(g, G)``.

Larger gallery, from g classes: ``FPIR_G <= 1 - (1 - FPIR_g)^(G/g)``. With p(q) the chance that one
class matches query q, ``1 - FPIR_G = E[(1-p)^G] >= E[(1-p)^g]^(G/g)`` by Jensen's inequality: safe, and
tight where queries are alike. More items per class count like more classes, by the same argument.
Galleries drawn from an eighth of the classes, carried on this way, use a query's best score in many
classes instead of one and give a steadier bound than the one gallery of all others
(``benchmarks/statistics.py``).

At the levels that matter only a few queries are matched, so the FPIR is not counted at the threshold
but carried there from a lower score u with about 150 matched queries:
``FPIR(t) = FPIR(u) exp(-(y(t)-y(u))/m)``, m the mean excess over y(u). For similarities
``y(s) = -log(1 - s^2)``, in which the caps of a sphere have an exponential tail in any dimension; other
scores are first brought to the scale of similarities. Lighter tails, where the chance of a stranger's
score shrinks ever faster, make the rate err on the safe side; a threshold at which more queries are
matched than the target allows is never taken, whatever the tail says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from api_schemas.errors import CalibrationRefused
from api_schemas.operating_point import GallerySize
from decision.progress import Track, silent
from decision.score import CosineScorer
from evaluation.bounds import Interval, PairShares, class_matrix
from evaluation.pair_threshold import SUPPORT_CLASSES, SUPPORT_PAIRS, last_true, supported_at
from evaluation.pairs import Pairs
from evaluation.tails import Tail, collect, sampled_rows

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MATCHED = 150  # matched unknown queries from which a tail is carried to rarer levels
STEEPEST = 200.0  # the furthest it is carried, as a ratio of FPIRs
LEAST = 1.5  # it starts at least this much above the target
STRAIGHT = 0.95
DRAWN_PART = 8  # galleries are drawn of one class in eight
LEAST_DRAWN = 10
MOST = 0.25  # and at no higher FPIR, above which a maximum has no tail


@dataclass(frozen=True)
class GalleryPlan:
    """How a gallery's FPIR follows from leaving out classes.

    Attributes:
        wanted: the gallery the point must hold for.
        classes: drawn from the other classes, at most ``classes - 1``.
        power: exponent that carries the rate on from there; 1 where nothing is extrapolated.
    """

    wanted: GallerySize
    classes: int
    power: float

    def at_wanted(self, rate: float) -> float:
        """FPIR at the wanted gallery (an upper bound where extrapolated) from that at ``classes``."""
        return float(-np.expm1(self.power * np.log1p(-min(max(rate, 0.0), 1 - 1e-12))))

    def at_classes(self, rate: float) -> float:
        """The inverse of ``at_wanted``."""
        return float(-np.expm1(np.log1p(-rate) / self.power))

    def describe(self, available: int) -> str:
        """One sentence for the record."""
        size = f"a gallery of {self.wanted.items} items of {self.wanted.classes} classes"
        drawn = f"the mean over all draws of {self.classes} of {available} classes"
        if self.power > 1.0001:
            return f"{size}: {drawn}, carried on by 1-(1-F)^{self.power:.3g} (Jensen's upper bound)"
        return f"{size}: {drawn}"


def plan_gallery(n_items: int, n_classes: int, wanted: GallerySize | None) -> GalleryPlan:
    """The plan for a set of that many items and classes; its own gallery unless one is wanted."""
    size = wanted or GallerySize(items=n_items, classes=n_classes)
    others = n_classes - 1
    drawn = min(size.classes, others, max(LEAST_DRAWN, others // DRAWN_PART))
    items = n_items / n_classes * drawn
    return GalleryPlan(size, drawn, max(1.0, size.classes / drawn, size.items / items))


def match_weights(others: int, drawn: int, ranks: int) -> Floats:
    """Chance that the best of ``drawn`` classes out of ``others`` has rank 1, 2, ...; float [ranks]."""
    k = np.arange(min(ranks, others) + 1)
    missed = np.zeros(len(k))
    possible = others - k >= drawn
    left = others - k[possible]
    missed[possible] = np.exp(
        gammaln(left + 1) - gammaln(left - drawn + 1) - gammaln(others + 1) + gammaln(others - drawn + 1)
    )
    return -np.diff(missed)


@dataclass(frozen=True, eq=False)
class UnknownQueries:
    """Best scores of unknown queries within each other class, above a floor, highest first.

    Attributes:
        tail: the pairs they were taken from.
        query, gallery: int64 [m], classes of the query and of the gallery's item.
        scores: float64 [m].
        weights: float64 [m]: chance that this score is the best one in a drawn gallery.
    """

    tail: Tail
    query: Integers
    gallery: Integers
    scores: Floats
    weights: Floats

    @property
    def n_queries(self) -> int:
        """Every item is a query of an unknown class once."""
        return len(self.tail.pairs.a)

    @cached_property
    def shares(self) -> Floats:
        """float [m]: FPIR with the threshold at each score, were it the last of its ties."""
        return np.cumsum(self.weights) / self.n_queries

    def fpir(self, threshold: float) -> float:
        """Share of unknown queries matched, counted."""
        matched = int(np.searchsorted(-self.scores, -float(np.float32(threshold)), side="right"))
        return float(self.shares[matched - 1]) if matched else 0.0


def unknown_queries(tail: Tail, drawn: int) -> UnknownQueries:
    """Reduce pairs of items to each query's best score within each class, weighted by rank."""
    codes_a, codes_b = tail.codes
    n_classes = len(tail.pairs.classes)
    query = np.concatenate([tail.a, tail.b])
    gallery = np.concatenate([codes_b, codes_a])
    scores = np.concatenate([tail.scores, tail.scores])
    order = np.lexsort((-scores, gallery, query))
    query, gallery, scores = query[order], gallery[order], scores[order]
    first = np.ones(len(query), dtype=bool)
    first[1:] = (np.diff(query) != 0) | (np.diff(gallery) != 0)
    query, gallery, scores = query[first], gallery[first], scores[first]
    order = np.lexsort((-scores, query))
    query, gallery, scores = query[order], gallery[order], scores[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    rank = np.arange(len(query)) - np.repeat(starts, np.diff(np.append(starts, len(query))))
    by_rank = match_weights(n_classes - 1, drawn, n_classes - 1)
    order = np.argsort(-scores, kind="stable")
    return UnknownQueries(
        tail,
        tail.pairs.a.codes[query[order]],
        gallery[order],
        scores[order].astype(np.float64),
        by_rank[rank[order]],
    )


def collect_unknown(
    pairs: Pairs, share: float, drawn: int, *, seed: int = 0, track: Track = silent
) -> UnknownQueries:
    """The tail down to a score where at least ``share`` of unknown queries are matched."""
    rows, scores = sampled_rows(pairs, seed)
    present = np.flatnonzero(pairs.a.sizes)
    best = np.maximum.reduceat(scores, pairs.a.starts[present], axis=1)
    best = -np.sort(-best, axis=1)[:, :-1]
    weights = match_weights(len(present) - 1, drawn, best.shape[1])
    order = np.argsort(-best, axis=None)
    reached = np.cumsum(np.broadcast_to(weights, best.shape).ravel()[order]) / len(rows)
    ordered = best.ravel()[order]
    wanted = min(1.0, 1.5 * share)
    while True:
        floor = float(ordered[min(int(np.searchsorted(reached, wanted)), len(ordered) - 1)])
        found = unknown_queries(collect(pairs, floor, track), drawn)
        if (len(found.shares) and found.shares[-1] >= share) or wanted >= 1.0:
            return found
        wanted = min(1.0, 2 * wanted)


class UnknownTail:
    """FPIR as a function of the threshold, from score ``start`` on, with its class-resampled interval."""

    def __init__(self, unknown: UnknownQueries, start: float, weights: Floats) -> None:
        count = int(np.searchsorted(-unknown.scores, -start, side="right"))
        sizes = unknown.tail.pairs.a.sizes.astype(np.float64)
        n = len(sizes)
        query, gallery = unknown.query[:count], unknown.gallery[:count]
        self.stretch = Stretch.of(unknown.tail.pairs)
        excess = self.stretch(unknown.scores[:count]) - self.stretch(np.array([start]))
        matched = class_matrix(query, gallery, unknown.weights[:count], n)
        excesses = class_matrix(query, gallery, unknown.weights[:count] * excess, n)
        self.start = start
        self.shares = PairShares([matched, excesses], sizes, np.full(n, 1.0 / (n - 1)), weights)
        self.has_tail = bool(self.shares.values[1] > 0)

    def interval(self, threshold: float, confidence: float) -> Interval:
        """FPIR at a threshold at or above ``start``."""
        beyond = float(np.diff(self.stretch(np.array([self.start, threshold])))[0])
        share, excess = self.shares.values
        if beyond <= 0 or not self.has_tail:
            return self.shares.interval(lambda f: f[0], np.array([1.0, 0.0]), confidence)
        carried = float(share * np.exp(-beyond * share / excess))
        gradient = carried * np.array([1 / share - beyond / excess, beyond * share / excess**2])
        return self.shares.interval(lambda f: _carried(f, beyond), gradient, confidence)


@dataclass(frozen=True)
class Stretch:
    """The coordinate in which tails are exponential, of scores ``low + (high - low) * similarity``.

    Scores corrected by densities may lie beyond the score of similarity 1: from ``STRAIGHT`` on the
    coordinate is continued as a straight line, which again errs on the safe side.
    """

    low: float
    high: float
    straight: float

    @classmethod
    def of(cls, pairs: Pairs) -> Stretch:
        """The scale of a scorer at the mean density of the items."""
        if isinstance(pairs.scorer, CosineScorer) or pairs.a.densities is None:
            return cls(0.0, 1.0, 1 - 1e-9)
        middle = np.full(2, pairs.a.densities.mean())
        low, high = pairs.scorer(np.array([0.0, 1.0]), middle, middle).astype(np.float64)
        return cls(float(low), float(high), STRAIGHT)

    def __call__(self, scores: Floats) -> Floats:
        """float, the shape of ``scores``, ascending with them."""
        similar = np.maximum((scores - self.low) / (self.high - self.low), 0.0)
        inside = np.minimum(similar, self.straight)
        slope = 2 * self.straight / (1 - self.straight**2)
        return np.asarray(-np.log1p(-(inside**2)) + slope * (similar - inside))


def _carried(shares: Floats, beyond: float) -> Floats:
    share, excess = shares
    usable = (share > 0) & (excess > 0)
    safe_share, safe_excess = np.where(usable, share, 1.0), np.where(usable, excess, 1.0)
    values: Floats = np.where(usable, safe_share * np.exp(-beyond * safe_share / safe_excess), 0.0)
    return values


def tail_level(share: float, n_queries: int) -> float:
    """The FPIR at which a tail that is to be carried to ``share`` starts."""
    level = min(max(LEAST * share, MATCHED / n_queries), STEEPEST * share)
    return min(1.0, max(LEAST * share, min(level, MOST)))


def tail_start(unknown: UnknownQueries, share: float) -> float:
    """The score at which that tail starts."""
    level = tail_level(share, unknown.n_queries)
    place = min(int(np.searchsorted(unknown.shares, level)), len(unknown.scores) - 1)
    return float(unknown.scores[place])


def known_queries_missed(
    best_same: NDArray[Any], best_other: NDArray[Any], threshold: float
) -> NDArray[np.bool_]:
    """Which known queries get no match or a wrong one; a tie with another class counts as wrong.

    Args:
        best_same, best_other: float32 [n], best score with an item of the own and of another class.
    """
    limit = np.float32(threshold)
    return np.asarray((best_same < limit) | (best_same <= best_other))


def fpir_threshold(
    pairs: Pairs,
    share: float,
    plan: GalleryPlan,
    confidence: float,
    weights: Floats,
    *,
    seed: int = 0,
    track: Track = silent,
) -> tuple[float, Interval]:
    """The lowest threshold whose FPIR at the wanted gallery is at most ``share``, by its upper bound.

    Returns:
        The threshold (a float32 value) and the FPIR there, at the wanted gallery.

    Raises:
        CalibrationRefused: the tail cannot be supported, or ties leave no threshold.
    """
    allowed = plan.at_classes(share)
    n = len(pairs.a)
    unknown = collect_unknown(pairs, tail_level(allowed, n), plan.classes, seed=seed, track=track)
    start = tail_start(unknown, allowed)
    above = unknown.tail.accepted(start)
    first, second = unknown.tail.codes
    supported = supported_at(first[:above], second[:above])
    wanted = f"FPIR <= {share:g} in a gallery of {plan.wanted.classes} classes"
    if supported is None:
        raise CalibrationRefused(
            f"{wanted} cannot be supported by {n} queries of {len(pairs.classes)} classes: at least "
            f"{SUPPORT_PAIRS} accepted impostor pairs from {SUPPORT_CLASSES} classes must lie within "
            f"{STEEPEST:g} times that rate, found {above}; give more classes or items, a smaller gallery, "
            "or a higher target."
        )
    rates = UnknownTail(unknown, start, weights)
    tried = _between(unknown.scores, isinstance(pairs.scorer, CosineScorer))
    candidates = np.unique(np.concatenate([unknown.scores, tried]).astype(np.float32))
    candidates = candidates[candidates > np.float32(start)]

    def fails(place: int) -> bool:
        threshold = float(candidates[place])
        return unknown.fpir(threshold) > allowed or rates.interval(threshold, confidence).bound > allowed

    if not rates.has_tail or not len(candidates) or fails(len(candidates) - 1):
        raise CalibrationRefused(
            f"Ties or duplicates across classes leave no threshold with {wanted}: the highest score of an "
            f"unknown query is {unknown.scores[0]:.7g}; items that are stored under two labels should be "
            "removed, or the target raised."
        )
    place = last_true(fails, 0, len(candidates)) + 1 if fails(0) else 0
    threshold = float(candidates[place])
    return threshold, rates.interval(threshold, confidence).transformed(plan.at_wanted)


def _between(scores: Floats, similarities: bool) -> Floats:
    """Thresholds to try besides the scores seen: closer and closer to 1 for similarities, else evenly
    over the tail and three times its length beyond."""
    low, high = float(scores[-1]), float(scores[0])
    if similarities:
        return np.asarray(1 - (1 - low) * np.geomspace(1, 1e-6, 2000))
    return np.linspace(low, high + 3 * (high - low), 4000)

"""Thresholds for 1:N: how often an unknown query finds a match (FPIR), by leaving classes out.

Each class in turn is unknown to the others. Only a query's score within each other class counts; the *match
rate* ``p`` is the fraction of (query, other class) whose score reaches the threshold. It is a mean over
pairs of classes, so that its bound over newly sampled classes is known (``bootstrap_bounds.py``), and every
pair of classes adds to it; the one gallery of all other classes counts the best pair of each query only.

Gallery of G classes: ``FPIR_G <= 1 - (1 - p)^G``. With p(q) the chance that one class matches query q,
``1 - FPIR_G = E[(1-p(q))^G] >= (1-p)^G`` by Jensen's inequality: safe, and tight where queries are
alike or matches rare. More items per class count like more classes, by the same argument.

The match rate is extrapolated by its tail (``match_rate_tail.py``). A threshold at which more is matched than
the target allows is never taken, whatever the tail says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from api_schemas.operating_point import Aggregate, GallerySize, Target
from common.array_types import Float32s, Float64s
from common.errors import CalibrationRefused
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.class_evidence.evidence_trials import EVIDENCE
from evaluation.calibration.class_mean_scores import MEAN_OF_CLASS
from evaluation.calibration.match_rate_tail import (
    LEAST,
    MIN_TRIALS,
    STEEPEST,
    compute_start_rate,
    fit_match_rate_tail,
)
from evaluation.calibration.nearest_scores import NEAREST
from evaluation.calibration.pair_thresholds import MIN_CLASSES, CalibrationSet, find_last_true
from evaluation.calibration.sets.tracks import combine_vectors
from evaluation.calibration.trials import Coordinate, RankedScores, SearchRule, Trials

SEARCH_RULES: dict[Aggregate, SearchRule] = {
    "nearest": NEAREST,
    "mean_of_class": MEAN_OF_CLASS,
    "evidence": EVIDENCE,
}
"""The 1:N rules; a new one is a file and a line here."""
SPARE = 1.2  # of the rate down to which trials are collected


def get_search_rule(target: Target) -> SearchRule:
    """The rule of a target, for as many vectors of a query as it says."""
    return combine_vectors(SEARCH_RULES[target.aggregate], target.vectors)


@dataclass(frozen=True)
class GalleryPlan:
    """FPIR of a gallery from the match rate of one class; the gallery counts for ``power`` of them."""

    wanted: GallerySize
    power: float

    def compute_fpir(self, match_rate: float) -> float:
        """The upper bound of the FPIR at the wanted gallery."""
        return float(-np.expm1(self.power * np.log1p(-min(max(match_rate, 0.0), 1 - 1e-12))))

    def compute_match_rate(self, fpir: float) -> float:
        """The inverse of ``compute_fpir``."""
        return float(-np.expm1(np.log1p(-fpir) / self.power))

    def describe(self) -> str:
        """One sentence for the record."""
        return (
            f"a gallery of {self.wanted.items} items of {self.wanted.classes} classes: the match rate p of "
            f"one class, extended by 1-(1-p)^{self.power:.4g} (Jensen's upper bound)"
        )


def plan_gallery(n_items: int, n_classes: int, wanted: GallerySize | None) -> GalleryPlan:
    """The plan for a set of that many items and classes; for its own gallery unless one is wanted."""
    size = wanted or GallerySize(items=n_items, classes=n_classes)
    return GalleryPlan(size, max(size.classes, size.items / n_items * n_classes))


def find_fpir_threshold(data: CalibrationSet, plan: GalleryPlan) -> tuple[float, Interval]:
    """The lowest threshold whose FPIR at the wanted gallery meets the target by its bound, and that FPIR.

    Raises:
        CalibrationRefused: the tail cannot be supported, or ties leave no threshold.
    """
    confidence, rule = data.target.confidence, get_search_rule(data.target)
    allowed = plan.compute_match_rate(data.rate)
    trials = data.scored.score_trials(rule)
    unknown = collect_unknown(trials, rule, allowed)
    wanted = f"FPIR <= {data.rate:g} in a gallery of {plan.wanted.classes} classes"
    tail = fit_match_rate_tail(unknown, allowed, data.weights)
    if tail is None:
        found = unknown.count_matched(unknown.find_score(compute_start_rate(allowed, trials.n_classes)))
        raise CalibrationRefused(
            f"{wanted} cannot be supported by {len(trials)} queries of {trials.n_classes} classes: at least "
            f"{MIN_TRIALS} matches of a query and another class, of {MIN_CLASSES} classes, must lie within "
            f"{STEEPEST:g} times that rate, found {found}; give more classes or items, a smaller gallery, or "
            "a higher target."
        )
    candidates = build_candidates(unknown.scores, trials.coordinate)
    candidates = candidates[candidates > np.float32(tail.start)]

    def misses_target(position: int) -> bool:
        threshold = float(candidates[position])
        return (
            unknown.compute_match_rate(threshold) > allowed
            or tail.compute_interval(threshold, confidence).upper_bound > allowed
        )

    if not tail.has_tail or not len(candidates) or misses_target(len(candidates) - 1):
        raise CalibrationRefused(
            f"Ties or duplicates across classes leave no threshold with {wanted}: the highest score of an "
            f"unknown query is {unknown.scores[0]:.7g}; items that are stored under two labels should be "
            "removed, or the target raised."
        )
    position = find_last_true(misses_target, 0, len(candidates)) + 1 if misses_target(0) else 0
    threshold = float(candidates[position])
    return threshold, tail.compute_interval(threshold, confidence).transform(plan.compute_fpir)


def collect_unknown(trials: Trials, rule: SearchRule, rate: float) -> RankedScores:
    """The highest trials, down to the rate from which a tail to ``rate`` starts and a little further."""
    start = max(rule.compute_start_rate(rate, trials.n_classes), LEAST * rate)
    enough = 2 * MIN_TRIALS / max(1, trials.other.size)
    return trials.collect_top(SPARE * max(start, enough))


def build_candidates(scores: Float64s, coordinate: Coordinate) -> Float32s:
    """float32, ascending: thresholds to try, the observed scores and others between and beyond them.

    Closer and closer to 1 for similarities, else evenly over the tail and three times its length beyond, up
    to the least score of copies.
    """
    low, high = float(scores[-1]), float(scores[0])
    between = (
        1 - (1 - low) * np.geomspace(1, 1e-6, 2000)
        if coordinate.is_of_similarities
        else np.linspace(low, high + 3 * (high - low), 4000)
    )
    every = np.concatenate([scores, between])
    return np.unique(np.minimum(every, coordinate.highest).astype(np.float32))

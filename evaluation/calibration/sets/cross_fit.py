"""Evidence of a threshold without classes to spare: chosen without a fold of them, measured on the fold."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from api_schemas.operating_point import Evidence, Status
from common.array_types import Bools, Float64s, Int64s
from common.errors import CalibrationRefused
from decision.scorers import accepts
from evaluation.calibration.bootstrap_bounds import Interval, estimate_class_fraction_interval
from evaluation.calibration.fpir_thresholds import get_search_rule
from evaluation.calibration.measure_threshold import get_ends
from evaluation.calibration.pair_thresholds import CalibrationSet, ScoredPairs
from evaluation.calibration.select_threshold import select_threshold
from evaluation.calibration.sets.search_trials import SearchTrials, split_search
from evaluation.calibration.trials import Trials
from evaluation.metrics.class_bootstrap import draw_classes

FOLDS = 5
STREAM = 20


class CrossFit:
    """Folds of the classes of a set; in each, the rest of it is what a threshold is chosen on.

    Args:
        in_gallery: bool [classes], False for a cohort's; None where there is none. With a cohort, its
            classes are the folds: the gallery is whole in each.
    """

    def __init__(self, data: CalibrationSet, in_gallery: Bools | None) -> None:
        self.data = data
        self.in_gallery = in_gallery
        n = len(data.pairs.classes)
        self.of_class = np.random.default_rng([data.seed, STREAM]).permutation(n) % FOLDS
        if in_gallery is not None:
            self.of_class[in_gallery] = -1

    @cached_property
    def parts(self) -> list[ScoredPairs]:
        """The set without each fold."""
        return [self.data.scored.restrict(self.of_class != fold) for fold in range(FOLDS)]

    def measure(
        self, data: CalibrationSet, status: Status, strangers: Trials | None, threshold: float
    ) -> Evidence | None:
        """Evidence over the folds whose rest supports the target; None where no fold's does.

        Args:
            strangers: trials of real unknown queries with the gallery, that thresholds are chosen on.
            threshold: that of the whole set, for known queries where they are in no fold.
        """
        trials = data.scored.score_trials(get_search_rule(data.target))
        counts = _Counts(data, split_search(trials, self.in_gallery, None))
        done = 0
        for fold in range(FOLDS):
            held = self.of_class == fold
            try:
                own = self._select(data, status, strangers, fold)
            except CalibrationRefused:
                continue
            done += 1
            counts.add(held, own)
        if not done:
            return None
        if self.in_gallery is not None:
            counts.add_known(threshold)
        return counts.build(
            f"{done} of {FOLDS} folds of the {'cohort' if self.in_gallery is not None else 'classes'}: the "
            "threshold chosen on the others, measured on the queries of the fold"
        )

    def _select(self, data: CalibrationSet, status: Status, strangers: Trials | None, fold: int) -> float:
        part = self.parts[fold]
        rule = get_search_rule(data.target)
        kept = self.of_class != fold
        trials = part.share_trials(rule, lambda: data.scored.score_trials(rule).select_classes(kept))
        in_gallery = None if self.in_gallery is None else self.in_gallery[kept]
        rest = CalibrationSet(part.pairs, data.target, data.seed, draws=part.draws, shared=part)
        if strangers is not None and self.in_gallery is None:
            strangers = strangers.select_classes(kept)
        search = split_search(trials, in_gallery, strangers)
        return select_threshold(rest, status, search).threshold


class _Counts:
    """Events of held-out classes, and of how many trials, per class."""

    def __init__(self, data: CalibrationSet, search: SearchTrials) -> None:
        self.data, self.search = data, search
        n = len(data.pairs.classes)
        self.events = {name: np.zeros(n) for name in ("far", "frr", "fpir", "fnir")}
        self.totals = {name: np.zeros(n) for name in ("far", "frr", "fpir", "fnir")}

    def add(self, held: Bools, threshold: float) -> None:
        """Count the queries and pairs of held-out classes at a threshold that was chosen without them."""
        data, pairs = self.data, self.data.pairs
        if get_search_rule(data.target).is_of_pairs:
            accepted = np.asarray(data.scored.count_accepted(threshold).sum(axis=1)).ravel()
            self._put("far", accepted * held, pairs.impostor_per_class * held)
            rejected = data.genuine.count_rejected(threshold)
            self._put("frr", rejected * held, data.genuine.per_class * held)
        unknown = self.search.unknown
        rows = held[unknown.groups]
        matched = accepts(unknown.best_other[rows], threshold)
        self._put_queries("fpir", matched, unknown.groups[rows])
        if not self.search.has_strangers:
            self._put_known(held, threshold)

    def add_known(self, threshold: float) -> None:
        """Count the known queries of a gallery that was whole in every fold."""
        self._put_known(np.ones(self.search.known.n_classes, dtype=bool), threshold)

    def _put_known(self, held: Bools, threshold: float) -> None:
        known = self.search.known
        rows = held[known.codes] & known.is_known
        missed = ~accepts(known.decisive[rows], threshold)
        self._put_queries("fnir", missed, known.codes[rows])

    def _put_queries(self, name: str, events: Bools, codes: Int64s) -> None:
        n = len(self.events[name])
        events_of_class = np.bincount(codes, events, minlength=n).astype(np.float64)
        self._put(name, events_of_class, np.bincount(codes, minlength=n))

    def _put(self, name: str, events: Float64s, totals: Float64s | Int64s) -> None:
        self.events[name] += events
        self.totals[name] += totals

    def build(self, method: str) -> Evidence:
        pairs = self.data.pairs
        intervals = {name: self._estimate(name) for name in self.events}
        far, frr, fpir, fnir = (intervals[name] for name in ("far", "frr", "fpir", "fnir"))
        return Evidence(
            n_items=len(pairs.a),
            n_classes=len(pairs.classes),
            n_genuine_pairs=pairs.n_genuine,
            n_impostor_pairs=pairs.n_impostor,
            far=None if far is None else far.estimate,
            far_upper=None,
            frr=None if frr is None else frr.estimate,
            frr_upper=None,
            fpir=None if fpir is None else fpir.estimate,
            fpir_upper=None,
            fnir=None if fnir is None else fnir.estimate,
            method=f"{method}; intervals resample classes",
            classes_disjoint=True,
            far_ci=get_ends(far),
            frr_ci=get_ends(frr),
            fpir_ci=get_ends(fpir),
            fnir_ci=get_ends(fnir),
        )

    def _estimate(self, name: str) -> Interval | None:
        events, totals = self.events[name], self.totals[name]
        some = totals > 0
        if not some.any():
            return None
        draws = draw_classes(int(some.sum()), self.data.seed)
        return estimate_class_fraction_interval(
            events[some], totals[some].astype(np.float64), draws, self.data.target.confidence
        )

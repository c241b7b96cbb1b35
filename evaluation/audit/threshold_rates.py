"""FAR, FRR, FPIR and FNIR of one threshold with class-resampled intervals, of a set or of a part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from api_schemas.operating_point import Aggregate, ClassRates
from api_schemas.operating_point import Interval as Ends
from api_schemas.report import ThresholdRates
from common.array_types import Bools, Float32s, Float64s, Int64s
from common.progress import Track, silent
from decision.scorers import Scorer, accepts
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.bootstrap_bounds import (
    Interval,
    PairFractions,
    build_class_matrix,
    estimate_class_fraction_interval,
)
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.impostor_scores import compute_window
from evaluation.calibration.trials import UNKNOWN, Trials
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.exclusions import ExcludeSame
from evaluation.pairs.pairs import Block, Pairs, arrange

LEAST_RESAMPLED = 5  # classes that an interval needs
SEED = 0


@dataclass(frozen=True, eq=False)
class MeasuredThreshold:
    """A threshold on one set of pairs and trials; what is counted is counted once.

    Attributes:
        pairs: of a set with itself, or of queries with a gallery.
        trials: of the same, by the rule ``aggregate``.
        strangers: trials of further queries whose classes are in no gallery; None where there are none.
        stranger_rows: int64, the rows of these in the set that was given.
        leaves_classes_out: no query's class is missing in the gallery, so that each in turn is taken out.
        threshold: float32 value of the score; scores from there on are accepted.
    """

    pairs: Pairs
    trials: Trials
    strangers: Trials | None
    stranger_rows: Int64s
    aggregate: Aggregate
    threshold: float
    confidence: float
    leaves_classes_out: bool
    track: Track = silent

    @classmethod
    def prepare(
        cls,
        items: EmbeddingSet,
        threshold: float,
        *,
        gallery: EmbeddingSet | None = None,
        unknown: EmbeddingSet | None = None,
        exclude_same: ExcludeSame = None,
        scorer: Scorer | None = None,
        aggregate: Aggregate = "nearest",
        confidence: float = 0.95,
        track: Track = silent,
    ) -> MeasuredThreshold:
        """Arrange and score items, alone or with a gallery, and further queries of unknown classes."""
        rule = SEARCH_RULES[aggregate]
        pairs = arrange(items, gallery=gallery, exclude_same=exclude_same, scorer=scorer)
        strangers, rows = None, np.zeros(0, dtype=np.int64)
        if unknown is not None:
            references = items if gallery is None else gallery
            of_unknown = arrange(unknown, gallery=references, exclude_same=exclude_same, scorer=pairs.scorer)
            strangers = replace(rule.score_trials(of_unknown, track), of_unknown=of_unknown.a.codes)
            rows = of_unknown.a.rows
        trials = rule.score_trials(pairs, track)
        some_lack_their_class = bool((trials.codes == UNKNOWN).any())
        if some_lack_their_class:
            trials = replace(trials, of_unknown=pairs.a.codes)
        return cls(
            pairs, trials, strangers, rows, aggregate, threshold, confidence, not some_lack_their_class, track
        )

    def select_rows(self, rows: Int64s, strangers: Int64s | None = None) -> MeasuredThreshold:
        """The same of some rows of ``a`` and some of the further unknown queries.

        Pairs have both ends among the rows (against a gallery: the query); queries meet the whole gallery.
        """
        of_group = self.strangers
        if of_group is not None and strangers is not None:
            of_group = of_group.select_queries(strangers)
        return replace(
            self,
            pairs=self.pairs.select_rows(rows),
            trials=self.trials.select_queries(rows),
            strangers=of_group,
        )

    # -- events ------------------------------------------------------------------------------------------
    @cached_property
    def accepted(self) -> Any:
        """Accepted impostor pairs of two classes, symmetric [classes, classes], half of each on a side."""
        pairs, n = self.pairs, len(self.pairs.classes)
        limit, near = np.float32(self.threshold), np.float32(compute_window(pairs))
        nothing = np.zeros(0, dtype=np.int64)
        total: Any = build_class_matrix(nothing, nothing, None, n)
        for block in self.track(pairs.iterate_blocks(), "pairs", len(pairs.tiles)):
            rows, columns = np.nonzero((block.scores >= limit - near) & pairs.mask_impostors(block))
            kept = accepts(self._rescore_near(block, rows, columns), self.threshold)
            first = pairs.a.codes[rows[kept] + block.rows.start]
            second = pairs.b.codes[columns[kept] + block.columns.start]
            total = total + build_class_matrix(first, second, None, n)
        return total

    def _rescore_near(self, block: Block, rows: Int64s, columns: Int64s) -> Float32s:
        """Scores as decisions are made on: blocks of large sets are rounded another way."""
        pairs, scores = self.pairs, block.scores[rows, columns]
        close = np.flatnonzero(scores <= np.float32(self.threshold) + np.float32(compute_window(pairs)))
        if pairs.exact or not len(close):
            return scores
        a, b = rows[close] + block.rows.start, columns[close] + block.columns.start
        densities = (pairs.a.densities, a), (pairs.b.densities, b)
        scores[close] = pairs.scorer(
            compute_pair_similarities(pairs.a.vectors[a], pairs.b.vectors[b]),
            *(None if values is None else values[positions] for values, positions in densities),
        )
        return scores

    @cached_property
    def rejected(self) -> Float64s:
        """float64 [classes]: genuine pairs that are rejected."""
        rejected = np.zeros(len(self.pairs.classes))
        for part in self.pairs.iterate_genuine():
            codes = part.codes[~accepts(part.scores, self.threshold)]
            rejected += np.bincount(codes, minlength=len(rejected))
        return rejected

    @property
    def is_of_pairs(self) -> bool:
        """Whether pairs are accepted by the same threshold."""
        return SEARCH_RULES[self.aggregate].is_of_pairs

    @cached_property
    def unknown_queries(self) -> Trials:
        """Those given; else those whose class the gallery lacks; else all, each class left out in turn."""
        if self.strangers is not None:
            return self.strangers
        if self.leaves_classes_out:
            return self.trials
        return self.trials.select_queries(self.trials.codes == UNKNOWN)

    # -- rates ---------------------------------------------------------------------------------------------
    def measure(self) -> ThresholdRates:
        """The four rates, with intervals where there are classes and errors to resample."""
        unknown, known = self.unknown_queries, self.trials
        rows = np.isfinite(unknown.best_other)
        matched = accepts(unknown.best_other[rows], self.threshold)
        codes = unknown.groups[rows]
        if self.strangers is not None and len(np.unique(codes)) < LEAST_RESAMPLED:
            codes = np.arange(len(codes))  # unknown queries under one label: each stands for itself
        is_known = known.is_known
        missed = ~accepts(known.decisive[is_known], self.threshold)
        rates = {
            "far": self._estimate_far(),
            "frr": self._estimate_frr(),
            "fpir": self._estimate_queries(matched, codes),
            "fnir": self._estimate_queries(missed, known.codes[is_known]),
        }
        figures: dict[str, float | Ends | None] = {}
        for name, rate in rates.items():
            if isinstance(rate, Interval):
                figures |= {name: rate.estimate, f"{name}_ci": (rate.lower, rate.upper)}
            else:
                figures |= {name: rate, f"{name}_ci": None}
        return ThresholdRates.model_validate(figures)

    def _estimate_far(self) -> Interval | float | None:
        pairs = self.pairs
        if not self.is_of_pairs or not pairs.n_impostor:
            return None
        far = float(self.accepted.sum()) / pairs.n_impostor
        present = np.flatnonzero(pairs.class_sizes)
        if len(present) < LEAST_RESAMPLED or not far:
            return far
        a, b = (side.sizes[present].astype(np.float64) for side in (pairs.a, pairs.b))
        # every pair of a symmetric set counts in both orders
        matrix = self.accepted[np.ix_(present, present)] * (2.0 if pairs.symmetric else 1.0)
        fractions = PairFractions([matrix], a, b, draw_classes(len(present), SEED))
        interval = fractions.compute_interval(lambda f: f[0], np.ones(1), self.confidence)
        # excluded pairs are in the total of the fraction
        return interval.transform(lambda value: min(1.0, max(0.0, value * far / interval.estimate)))

    def _estimate_frr(self) -> Interval | float | None:
        if not self.is_of_pairs:
            return None
        return self._estimate(self.rejected, self.pairs.genuine_per_class.astype(np.float64))

    def _estimate_queries(self, events: Bools, codes: Int64s) -> Interval | float | None:
        groups = np.unique(codes, return_inverse=True)[1]
        return self._estimate(
            np.bincount(groups, events).astype(np.float64), np.bincount(groups).astype(np.float64)
        )

    def _estimate(self, events: Float64s, totals: Float64s) -> Interval | float | None:
        """A fraction over classes, float64 [classes] each."""
        some = totals > 0
        if not some.any():
            return None
        events, totals = events[some], totals[some]
        if len(totals) < LEAST_RESAMPLED or not events.any():
            return float(events.sum() / totals.sum())
        return estimate_class_fraction_interval(
            events, totals, draw_classes(len(totals), SEED), self.confidence
        )

    # -- classes -------------------------------------------------------------------------------------------
    def measure_classes(self) -> list[ClassRates]:
        """FAR, FRR and utility of each class at the threshold."""
        pairs = self.pairs
        # half of every accepted pair is in the row of each of its classes
        accepted = 2 * np.asarray(self.accepted.sum(axis=1)).ravel()
        rates = []
        for code, label in enumerate(pairs.classes):
            impostors, genuine = int(pairs.impostor_per_class[code]), int(pairs.genuine_per_class[code])
            far = float(accepted[code]) / impostors if impostors else None
            frr = float(self.rejected[code]) / genuine if genuine else None
            utility = None
            if far is not None and frr is not None:
                utility = float(compute_utility(1 - far, 1 - frr, 1.0))
            size = int(pairs.class_sizes[code])
            rates.append(ClassRates(label=str(label), n_items=size, far=far, frr=frr, utility=utility))
        return rates

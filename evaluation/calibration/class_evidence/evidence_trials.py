"""The 1:N rule ``evidence``: a query's score with a class is the evidence of the whole class.

A query's own item is left out of its own class: of its sum, its tightness and its nearest item. Trials among
classes that the form was fitted on take scores that were fitted without the classes of both ends
(``CrossFittedEvidence``), so that match rates, their tails and bounds hold for classes not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from common.array_types import Float32s, Float64s, Int64s, Texts
from common.progress import Track, silent
from decision.class_evidence import EvidenceScorer, PreparedClasses
from evaluation.calibration.class_evidence.class_features import (
    GalleryClasses,
    average_rows,
    compute_query_densities,
    score_cells,
)
from evaluation.calibration.match_rate_tail import compute_start_rate
from evaluation.calibration.trials import (
    SearchRule,
    Trials,
    number_gallery_classes,
    sample_labelled_trials,
)
from evaluation.pairs.pairs import Pairs

NO_FOLD = -1
TAIL_RATES = (0.1, 0.01, 0.001)  # of trials with other classes
MOST_POWER = 3.0
USUAL_POWER = 2.0
SUPPORTED = 10.0  # pairs of classes at the last rate, from which on the power is as measured
LEAST_TRIALS = 1000


@dataclass(frozen=True, eq=False)
class CrossFittedEvidence(EvidenceScorer):
    """An evidence score whose trials with classes that it was fitted on have scores fitted without these.

    Attributes:
        folds: the fold of each class that the form was fitted on.
        parts: by the folds of query and class, lower first, the score fitted without both.
    """

    folds: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[tuple[int, int], EvidenceScorer] = field(default_factory=dict)

    @classmethod
    def wrap(cls, scorer: EvidenceScorer) -> CrossFittedEvidence:
        """A score for classes that it was not fitted on."""
        return cls(scorer.score, scorer.cohort, scorer.arrays)

    def find_folds(self, labels: Texts) -> Int64s:
        """int64 [n]: the fold of each class, NO_FOLD for one that the form was not fitted on."""
        return np.array([self.folds.get(str(label), NO_FOLD) for label in labels], dtype=np.int64)

    def get_part(self, query: int, klass: int) -> EvidenceScorer:
        """The score of trials between two folds; of one with none: fitted without the one."""
        low, high = min(query, klass), max(query, klass)
        if high == NO_FOLD:
            return self
        return self.parts[high if low == NO_FOLD else low, high]


def score_evidence_trials(pairs: Pairs, track: Track = silent, vectors: int = 1) -> Trials:
    """Every query's evidence for every class, its own items left out.

    A query is of so many ``vectors``, consecutive rows: it is scored by the means of what the form weighs.
    """
    scorer = pairs.scorer
    assert isinstance(scorer, EvidenceScorer)
    gallery = GalleryClasses.measure(pairs, scorer)
    columns, codes = number_gallery_classes(pairs)
    crossed = scorer if isinstance(scorer, CrossFittedEvidence) else CrossFittedEvidence.wrap(scorer)
    of_classes = crossed.find_folds(pairs.classes)
    codes = codes[::vectors]
    of_queries, of_columns = of_classes[pairs.a.codes[::vectors]], of_classes[columns]
    prepared: dict[int, PreparedClasses] = {}
    other = np.empty((len(codes), len(columns)), dtype=np.float32)
    for single in gallery.iterate_strips(pairs, "class evidence", track, vectors):
        strip, densities = single.combine(vectors), None
        if scorer.has_densities:
            densities = average_rows(compute_query_densities(pairs, single, gallery, scorer), vectors)
        of_rows = of_queries[strip.rows]
        for query_fold in np.unique(of_rows):
            for class_fold in np.unique(of_columns):
                part = crossed.get_part(int(query_fold), int(class_fold))
                if id(part) not in prepared:
                    prepared[id(part)] = part.prepare(gallery.models, exact=False)
                rows = np.flatnonzero(of_rows == query_fold)
                chosen = np.flatnonzero(of_columns == class_fold)
                scores = score_cells(strip, part, prepared[id(part)], densities, rows, chosen, vectors)
                other[np.ix_(rows + strip.rows.start, chosen)] = scores
    known = np.flatnonzero(codes >= 0)
    own = np.full(len(codes), -np.inf, dtype=np.float32)
    own[known] = other[known, codes[known]]
    other[known, codes[known]] = -np.inf
    return Trials(other, own, codes, len(pairs.b), PowerCoordinate.fit(other, scorer.least_of_copies))


@dataclass(frozen=True)
class PowerCoordinate:
    """The coordinate ``(score - centre)^power``, in which the tail of evidence is exponential (Weibull's).

    Log-odds of a normal ratio have the power 2, calibrated ones at least 1. Where the tail bends back, as
    lookalike classes make it, the power is 1, and the tail's own test moves its start up.
    """

    is_of_similarities: ClassVar[bool] = False
    centre: float
    power: float
    highest: float = np.inf

    @classmethod
    def fit(cls, scores: Float32s, highest: float | None = None) -> PowerCoordinate:
        """The power by which the scores at TAIL_RATES, evenly spaced in their logarithm, are evenly spaced.

        With few classes one or two pairs of them are all that the last rate is measured on, and the highest
        of few scores are too low, which looks like a light tail: the less, the nearer it is to USUAL_POWER.

        ``scores`` float32 [queries, classes], -inf for a query's own class. The centre is their median.
        ``highest`` is the least score of copies, if they have one.
        """
        finite = scores[np.isfinite(scores)]
        limit = np.inf if highest is None else highest
        if finite.size < LEAST_TRIALS:
            return cls(0.0, 1.0, limit)
        levels = np.quantile(finite, [0.5, *(1 - rate for rate in TAIL_RATES)]).astype(np.float64)
        low, middle, high = np.maximum(levels[1:] - levels[0], 0.0)
        powers = np.linspace(1.0, MOST_POWER, 41)
        is_bent = high**powers - 2 * middle**powers + low**powers >= 0  # beyond it the spacing grows
        measured = float(powers[is_bent][0]) if is_bent.any() else MOST_POWER
        n = scores.shape[1]
        weight = min(1.0, TAIL_RATES[-1] * n * (n - 1) / SUPPORTED)
        return cls(float(levels[0]), weight * measured + (1 - weight) * USUAL_POWER, limit)

    def __call__(self, scores: Float64s) -> Float64s:
        """float, the shape of ``scores``, ascending with them."""
        return np.asarray(np.maximum(scores - self.centre, 0.0) ** self.power)


EVIDENCE = SearchRule(
    description="the evidence of a whole class",
    scores_name="class evidence",
    is_of_pairs=False,
    compute_start_rate=compute_start_rate,
    score_trials=score_evidence_trials,
    sample_labelled=sample_labelled_trials,
    score_tracks=lambda pairs, vectors, track: score_evidence_trials(pairs, track, vectors),
)

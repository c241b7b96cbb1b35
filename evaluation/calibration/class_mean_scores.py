"""The 1:N rule ``mean_of_class``: a query's score with a class is its mean score with the class's items.

A query's own item is left out of the mean of its own class. Match rates, their tails and their bounds are
those of trials of a query and a class, as for the nearest item (``nearest_scores.py``).

The tail is extrapolated over a short way only. Classes differ in how long their mean vector is, so the tail
of means is a mixture and heavier than an exponential: extrapolated from 80 times a match rate it came to 0.87
of it on classes of unequal spread, and its bound held in 0.83 of 60 draws; counted, 0.99 and 0.93.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.array_types import Float32s
from common.progress import Track, silent
from decision.scorers import accepts
from evaluation.calibration.fit_probability import LabelledScores
from evaluation.calibration.impostor_scores import ImpostorTail, sample_rows
from evaluation.calibration.match_rate_tail import LEAST, SearchRule, UnknownQueries, collect_rate
from evaluation.calibration.pair_thresholds import MIN_PAIRS
from evaluation.pairs.pairs import Pairs

ROWS = 256
IMPOSTORS = 100_000  # trials that a probability is fitted on


def iterate_class_means(pairs: Pairs, track: Track = silent) -> Iterator[tuple[slice, Float32s]]:
    """Rows of a symmetric set with float32 [m, classes]: each row's mean score with the items of each class.

    A row's own item is left out; -inf for a class that has no other.
    """
    all_columns = slice(0, len(pairs.a))
    strips = [slice(first, min(first + ROWS, len(pairs.a))) for first in range(0, len(pairs.a), ROWS)]
    for rows in track(strips, "class means", len(strips)):
        scores = pairs.score_block(rows, all_columns).scores
        sums = np.add.reduceat(scores, pairs.a.starts[:-1], axis=1, dtype=np.float64)
        counts = np.broadcast_to(pairs.a.sizes, sums.shape).copy()
        own = np.arange(len(sums)), pairs.a.codes[rows]
        sums[own] -= scores[own[0], np.arange(rows.start, rows.stop)]
        counts[own] -= 1
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(counts > 0, sums / counts, -np.inf)
        yield rows, means.astype(np.float32)


def collect_trials_above(pairs: Pairs, floor: float, track: Track = silent) -> UnknownQueries:
    """Every trial of a query and another class with a mean of at least ``floor``, highest first."""
    queries, classes, scores = [], [], []
    for rows, means in iterate_class_means(pairs, track):
        means[np.arange(len(means)), pairs.a.codes[rows]] = -np.inf
        query, code = np.nonzero(accepts(means, floor))
        queries.append(query + rows.start)
        classes.append(code)
        scores.append(means[query, code])
    query, code, score = np.concatenate(queries), np.concatenate(classes), np.concatenate(scores)
    order = np.argsort(-score, kind="stable")
    query, code, score = query[order], code[order], score[order]
    # a class is in the tail by its first item: what a bound needs of a trial is its two classes
    tail = ImpostorTail(pairs, floor, query, pairs.a.starts[code], score)
    return UnknownQueries(tail, pairs.a.codes[query], code, score.astype(np.float64))


def collect_trials(pairs: Pairs, rate: float, seed: int = 0, track: Track = silent) -> UnknownQueries:
    """Trials down to a mean a little more than ``rate`` of them reach, or enough to support a bound."""
    trials = len(pairs.a) * (len(pairs.classes) - 1)
    rate = min(1.0, max(LEAST * rate, 2 * MIN_PAIRS / trials))
    _, scores = sample_rows(pairs, seed)
    sums = np.add.reduceat(scores, pairs.a.starts[:-1], axis=1, dtype=np.float64)
    means = (sums / pairs.a.sizes).ravel()
    means = -np.sort(-means[np.isfinite(means)])
    return collect_rate(lambda floor: collect_trials_above(pairs, floor, track), means, rate, 1.1 * rate)


def compute_best_means(pairs: Pairs, track: Track = silent) -> tuple[Float32s, Float32s]:
    """float32 [n] each: a query's mean with its own class, and its best mean with any other; -inf if none."""
    same, other = (np.full(len(pairs.a), -np.inf, dtype=np.float32) for _ in range(2))
    for rows, means in iterate_class_means(pairs, track):
        own = np.arange(len(means)), pairs.a.codes[rows]
        same[rows] = means[own]
        means[own] = -np.inf
        other[rows] = means.max(axis=1)
    return same, other


def sample_labelled_means(pairs: Pairs, seed: int) -> LabelledScores:
    """Every query's mean with its own class and a random part of those with others, with the ground truth."""
    same, others, first, second = [], [], [], []
    fraction = min(1.0, IMPOSTORS / (len(pairs.a) * max(1, len(pairs.classes) - 1)))
    rng = np.random.default_rng([seed, 5])
    for rows, means in iterate_class_means(pairs):
        codes = pairs.a.codes[rows]
        own = np.arange(len(means)), codes
        same.append(means[own])
        means[own] = -np.inf
        query, code = np.nonzero(np.isfinite(means) & (rng.random(means.shape) < fraction))
        others.append(means[query, code])
        first.append(codes[query])
        second.append(code)
    genuine = np.concatenate(same)
    known = np.isfinite(genuine)
    codes = pairs.a.codes[known]
    return LabelledScores(
        scores=np.concatenate([genuine[known], *others]).astype(np.float64),
        genuine=np.arange(known.sum() + sum(map(len, others))) < known.sum(),
        first=np.concatenate([codes, *first]),
        second=np.concatenate([codes, *second]),
    )


MEAN_OF_CLASS = SearchRule(
    description="the mean over a class's items",
    scores_name="means",
    is_of_pairs=False,
    compute_start_rate=lambda rate, _: rate,
    collect=collect_trials,
    collect_above=collect_trials_above,
    compute_best=compute_best_means,
    sample_labelled=sample_labelled_means,
)

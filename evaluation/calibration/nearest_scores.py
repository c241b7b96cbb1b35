"""The 1:N rule ``nearest``: a query's score with a class is that of the nearest of the class's items."""

from __future__ import annotations

import numpy as np

from common.array_types import Float32s
from common.progress import Track, silent
from evaluation.calibration.fit_probability import LabelledScores
from evaluation.calibration.impostor_scores import collect_tail, sample_impostors, sample_rows
from evaluation.calibration.match_rate_tail import (
    SearchRule,
    UnknownQueries,
    collect_rate,
    compute_start_rate,
)
from evaluation.calibration.pair_thresholds import score_genuine_pairs
from evaluation.pairs.pairs import Pairs

IMPOSTORS = 100_000  # pairs that a probability is fitted on
STREAM = 5  # of random impostor pairs


def collect_unknown_queries(
    pairs: Pairs, rate: float, seed: int = 0, track: Track = silent
) -> UnknownQueries:
    """The trials down to a score where at least ``rate`` of all are matched."""
    rows, scores = sample_rows(pairs, seed)
    present = np.flatnonzero(pairs.a.sizes)
    best = np.maximum.reduceat(scores, pairs.a.starts[present], axis=1).ravel()
    sample = -np.sort(-best)[: len(rows) * (len(present) - 1)]  # what is left are the queries' own classes
    return collect_rate(lambda floor: collect_above(pairs, floor, track), sample, rate, 1.5 * rate)


def collect_above(pairs: Pairs, floor: float, track: Track = silent) -> UnknownQueries:
    """Every trial, a query's best score within another class, of at least ``floor``, highest first."""
    tail = collect_tail(pairs, floor, track)
    codes_a, codes_b = tail.codes
    query = np.concatenate([tail.a, tail.b])
    gallery = np.concatenate([codes_b, codes_a])
    scores = np.concatenate([tail.scores, tail.scores])
    order = np.argsort(-scores, kind="stable")
    trial = query[order] * len(pairs.classes) + gallery[order]
    best = order[np.sort(np.unique(trial, return_index=True)[1])]
    return UnknownQueries(tail, pairs.a.codes[query[best]], gallery[best], scores[best].astype(np.float64))


def compute_best_scores(pairs: Pairs, track: Track = silent) -> tuple[Float32s, Float32s]:
    """float32 [n] each: best score with another item of the own class, and of any other; -inf if none."""
    n = len(pairs.a)
    same, other = np.full(n, -np.inf, dtype=np.float32), np.full(n, -np.inf, dtype=np.float32)
    for part in pairs.iterate_genuine():
        np.maximum.at(same, part.a, part.scores)
        np.maximum.at(same, part.b, part.scores)
    for block in track(pairs.iterate_blocks(), "pairs", len(pairs.tiles)):
        scores = np.where(pairs.mask_impostors(block), block.scores, np.float32(-np.inf))
        np.maximum(other[block.rows], scores.max(axis=1), out=other[block.rows])
        np.maximum(other[block.columns], scores.max(axis=0), out=other[block.columns])
    return same, other


def sample_labelled_scores(pairs: Pairs, seed: int) -> LabelledScores:
    """All genuine pairs and a random part of the impostor pairs, with their ground truth."""
    genuine = score_genuine_pairs(pairs)
    a, b, scores = sample_impostors(pairs, IMPOSTORS, seed, STREAM)
    return LabelledScores(
        scores=np.concatenate([genuine.scores, scores]).astype(np.float64),
        genuine=np.repeat([True, False], [len(genuine.scores), len(scores)]),
        first=np.concatenate([genuine.codes, pairs.a.codes[a]]),
        second=np.concatenate([genuine.codes, pairs.a.codes[b]]),
    )


NEAREST = SearchRule(
    description="the nearest item of a class",
    scores_name="best scores",
    is_of_pairs=True,
    compute_start_rate=compute_start_rate,
    collect=collect_unknown_queries,
    collect_above=collect_above,
    compute_best=compute_best_scores,
    sample_labelled=sample_labelled_scores,
)
